#include "host/model/state.hpp"

#include "registry/base/error.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>

#include <algorithm>
#include <type_traits>

using namespace tenon;

// A copy would share tensors with its original, and write into them.
static_assert(!std::is_copy_constructible_v<RowBuffer> && !std::is_copy_assignable_v<RowBuffer>);
static_assert(!std::is_copy_constructible_v<ModuleState> && !std::is_copy_assignable_v<ModuleState>);
static_assert(!std::is_copy_constructible_v<Sequence> && std::is_move_constructible_v<Sequence>);

namespace {

ModuleLayout layout() { return {{"k", true, {2, 3}}, {"memory", false, {4}}}; }

at::Tensor numbered(std::int64_t rows, double first) {
  return at::arange(rows * 6, at::kFloat).view({rows, 2, 3}) + first;
}

// A position lies all over its block, as in a kernel's form.
class Scattered : public RowForm {
 public:
  std::int64_t width() const override { return 6; }
  void put(const float* rows, std::int64_t first, std::int64_t count, float* const* blocks) const override {
    for (std::int64_t i = 0; i < 6 * count; ++i)
      blocks[(first + i / 6) / kStateBlock][place(first + i / 6, i % 6)] = -rows[i];
  }
  void get(float* rows, std::int64_t first, std::int64_t count, const float* const* blocks) const override {
    for (std::int64_t i = 0; i < 6 * count; ++i)
      rows[i] = -blocks[(first + i / 6) / kStateBlock][place(first + i / 6, i % 6)];
  }

 private:
  static std::int64_t place(std::int64_t position, std::int64_t number) {
    return number * kStateBlock + position % kStateBlock;
  }
};

} // namespace

TEST_CASE(
    "rows that a kernel keeps in a form of its own come back, and are forked, cut back and restored as rows are") {
  const auto form = std::make_shared<const Scattered>();
  const at::Tensor first = numbered(300, 0), more = numbered(20, 5000);
  ModuleState state(ModuleLayout{{"k", true, {2, 3}}});
  state.append(0, first.narrow(0, 0, 40)); // row by row, as a restored state has them
  const auto at = state.extend(0, 260, 6, form);
  CHECK(at.before == 40);
  form->put(first.data_ptr<float>() + 40 * 6, 40, 260, at.blocks);
  CHECK(at::equal(state.rows(0), first));
  state.advance(300);

  ModuleState fork = state.fork();
  fork.append(0, more);
  state.append(0, more.flip(0));
  CHECK(at::equal(fork.rows(0), at::cat({first, more})));
  CHECK(at::equal(state.rows(0), at::cat({first, more.flip(0)})));

  state.truncate(270);
  CHECK(at::equal(state.rows(0), first.narrow(0, 0, 270)));
  ModuleState restored(ModuleLayout{{"k", true, {2, 3}}});
  restored.restore(0, 270, {state.value(0)});
  restored.append(0, more);
  CHECK(at::equal(restored.rows(0), at::cat({first.narrow(0, 0, 270), more})));
}

TEST_CASE("state appends rows and gives back all of them in order") {
  ModuleState state(layout());
  state.append(0, numbered(2, 0));
  state.append(0, numbered(100, 12)); // grows past its first room
  CHECK(at::equal(state.rows(0), numbered(102, 0)));
}

TEST_CASE("state refuses a slot or a shape that the layout does not have") {
  ModuleState state(layout());
  CHECK_THROWS_AS(state.append(1, numbered(1, 0)), Error);
  CHECK_THROWS_AS(state.append(0, at::zeros({1, 3, 2})), Error);
  CHECK_THROWS_AS(state.fixed(0), Error);
  CHECK_THROWS_AS(state.rows(7), Error);
}

TEST_CASE("a forked state goes its own way") {
  ModuleState state(layout());
  state.append(0, numbered(3, 0));
  state.fixed(1).fill_(5);
  state.advance(3);
  ModuleState fork = state.fork();
  fork.append(0, numbered(1, 100));
  fork.fixed(1).fill_(7);
  CHECK(state.rows(0).size(0) == 3);
  CHECK(state.fixed(1)[0].item<float>() == 5);
  CHECK(at::equal(fork.rows(0).narrow(0, 0, 3), numbered(3, 0)));
  CHECK(fork.done() == 3);
}

TEST_CASE("forks share their rows' memory, and copy a block only when one of them writes into it") {
  const auto pool = BlockPool::make();
  const ModuleLayout rows_only = {{"k", true, {2, 3}}};
  const std::int64_t block_bytes = kStateBlock * 6 * 4;
  ModuleState state(rows_only, pool);
  state.append(0, numbered(3 * kStateBlock + 10, 0));
  CHECK(pool->used_bytes() == 4 * block_bytes);
  {
    ModuleState one = state.fork(), two = state.fork();
    CHECK(pool->used_bytes() == 4 * block_bytes);
    one.append(0, numbered(5, 7));
    CHECK(pool->used_bytes() == 5 * block_bytes);
    state.append(0, numbered(5, 9));
    CHECK(pool->used_bytes() == 6 * block_bytes);
    CHECK(at::equal(two.rows(0), numbered(3 * kStateBlock + 10, 0)));
    CHECK(at::equal(one.rows(0).slice(0, -5), numbered(5, 7)));
    CHECK(at::equal(state.rows(0).slice(0, -5), numbered(5, 9)));
  }
  CHECK(pool->used_bytes() == 4 * block_bytes); // those who left gave back what was theirs alone
  state.truncate(0);
  CHECK(pool->used_bytes() == 0);
  CHECK(pool->peak_bytes() == 6 * block_bytes);
}

TEST_CASE("blocks of every size are aligned and nobody else's, new or used before") {
  const auto pool = BlockPool::make();
  std::vector<std::pair<StateBlock, std::int64_t>> blocks;
  const auto take_all = [&] {
    for (const std::int64_t floats : {1, 17, 1000, 48 * 1024, 48 * 1024 + 1, 147456, 600000})
      for (int i = 0; i < 25; ++i) {
        const StateBlock& block = blocks.emplace_back(pool->take(floats), floats).first;
        CHECK(reinterpret_cast<std::uintptr_t>(block.get()) % 64 == 0);
        std::fill_n(block.get(), floats, static_cast<float>(blocks.size()));
      }
  };
  take_all();
  for (std::size_t i = 0; i < blocks.size(); i += 2) blocks[i].first.reset();
  take_all();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const auto& [block, floats] = blocks[i];
    if (block) CHECK(std::count(block.get(), block.get() + floats, static_cast<float>(i + 1)) == floats);
  }
}

TEST_CASE("rows that were asked for stay as they were when the state goes on") {
  ModuleState state(ModuleLayout{{"k", true, {2, 3}}});
  state.append(0, numbered(4, 0));
  const at::Tensor seen = state.rows(0);
  state.truncate(0);
  state.append(0, numbered(4, 50));
  CHECK(at::equal(seen, numbered(4, 0)));
}

TEST_CASE("a state of positions is cut back where asked, one with fixed tensors starts again") {
  ModuleState positions(ModuleLayout{{"k", true, {2, 3}}});
  positions.append(0, numbered(5, 0));
  positions.advance(5);
  positions.truncate(2);
  CHECK(positions.done() == 2);
  CHECK(at::equal(positions.rows(0), numbered(2, 0)));

  ModuleState recurrent(layout());
  recurrent.append(0, numbered(5, 0));
  recurrent.fixed(1).fill_(1);
  recurrent.advance(5);
  recurrent.truncate(2);
  CHECK(recurrent.done() == 0);
  CHECK(recurrent.rows(0).size(0) == 0);
  CHECK(recurrent.fixed(1).abs().sum().item<float>() == 0);
}

TEST_CASE("a state restarted behind a gap keeps the rows since, and is as new once cut back to before it") {
  ModuleState state(ModuleLayout{{"k", true, {2, 3}}});
  state.append(0, numbered(5, 0));
  state.advance(5);
  state.restart(20);
  CHECK(state.rows(0).size(0) == 0);
  state.append(0, numbered(4, 0));
  state.advance(4);
  state.truncate(22);
  CHECK((state.first() == 20 && state.done() == 22));
  CHECK(at::equal(state.rows(0), numbered(2, 0)));
  CHECK(state.fork().first() == 20);
  state.truncate(20);
  CHECK((state.first() == 0 && state.done() == 0));
  CHECK(state.rows(0).size(0) == 0);
}

TEST_CASE("what a failed call left behind is dropped: its rows, or the whole state where it was written in place") {
  ModuleState positions(ModuleLayout{{"k", true, {2, 3}}}), recurrent(layout());
  for (ModuleState* state : {&positions, &recurrent}) {
    state->append(0, numbered(3, 0));
    state->advance(3);
    state->append(0, numbered(2, 0)); // of the call that fails
  }
  positions.undo_failed();
  CHECK((positions.done() == 3 && positions.rows(0).size(0) == 3));
  recurrent.fixed(1).fill_(1);
  recurrent.undo_failed();
  CHECK((recurrent.done() == 0 && recurrent.fixed(1).abs().sum().item<float>() == 0));
}
