// Sparse execution is exact: whatever is chosen, in whatever chunks, in whatever company, the outputs are those of
// running every expert at every position with the same strengths.
#include "host/execution/merge.hpp"
#include "tests/support/tiny_model.hpp"

#include <catch2/catch.hpp>

namespace tenon::test {
namespace {

constexpr double kTolerance = 1e-4; // float32, LibTorch computing

// Strengths (T,E) with many zeros, each row summing to 1. Odd seeds choose seldom, so that gaps are long.
at::Tensor random_strengths(const std::string& name, std::int64_t length, std::int64_t experts, std::uint64_t seed) {
  const double rate = seed % 2 ? 0.08 : 0.3;
  const RandomStream random(seed, name);
  at::Tensor w_TE = at::zeros({length, experts});
  for (std::int64_t t = 0; t < length; ++t)
    for (std::int64_t e = 0; e < experts; ++e) {
      const std::uint64_t at = 2 * static_cast<std::uint64_t>(t * experts + e);
      if (random.uniform(at) < rate) w_TE[t][e].fill_(random.uniform(at + 1) + 0.01);
    }
  const at::Tensor nothing = w_TE.sum(1).eq(0).nonzero().squeeze(1);
  w_TE.select(1, 0).index_fill_(0, nothing, 1.0);
  return w_TE / w_TE.sum(1, true);
}

// Logits (T,V) with every expert run at every position.
at::Tensor dense(Composition& composition, const std::vector<std::int32_t>& ids, const at::Tensor& w_TE) {
  const Model& model = composition.model();
  const Batch batch = Batch::whole(tensor_of(ids).unsqueeze(0));
  const at::Tensor h_TC = model.trunk().forward(batch);
  const tenon_span span{0, batch.size(), 0, nullptr};
  Experts& experts = composition.experts();
  const at::Tensor base_TC = experts[0].forward(h_TC, {}, {&span, 1});
  at::Tensor m_TC = at::zeros_like(h_TC);
  for (std::size_t slot = 0; slot < experts.size(); ++slot) {
    const at::Tensor y_TC = slot == 0 ? base_TC : experts[slot].forward(h_TC, base_TC, {&span, 1});
    m_TC += y_TC * w_TE.select(1, static_cast<std::int64_t>(slot)).unsqueeze(1);
  }
  return model.head().forward(m_TC, batch);
}

// A sequence on its way: what it is to read, and what came out.
struct Walk {
  Sequence sequence;
  std::vector<std::int32_t> ids;
  at::Tensor w_TE, logits_TV;
  std::int64_t length() const { return static_cast<std::int64_t>(ids.size()); }
  bool finished() const { return sequence.length() == length(); }
};

Walk start(const Composition& composition, const std::string& name, std::int64_t length, std::uint64_t seed) {
  const auto experts = static_cast<std::int64_t>(composition.packages().size());
  return {composition.new_sequence(), tokens(name, static_cast<std::size_t>(length), seed),
          random_strengths(name, length, experts, seed), at::zeros({length, composition.model().shape().vocab})};
}

// Back to `length` positions, and from there on another text with other strengths.
void turn(const Composition& composition, Walk& walk, std::int64_t length, std::uint64_t seed) {
  walk.sequence.truncate(length);
  Walk other = start(composition, "turned", walk.length(), seed);
  std::copy(other.ids.begin() + length, other.ids.end(), walk.ids.begin() + length);
  walk.w_TE = at::cat({walk.w_TE.narrow(0, 0, length), other.w_TE.narrow(0, length, walk.length() - length)});
}

Walk fork(const Walk& walk) { return {walk.sequence.fork(), walk.ids, walk.w_TE.clone(), walk.logits_TV.clone()}; }

// One step of all walks together: a chunk of each, in one batch.
void step(Composition& composition, std::vector<Walk>& walks, const RandomStream& random, std::uint64_t number) {
  Batch batch;
  std::vector<at::Tensor> ids, w;
  std::vector<std::pair<Walk*, std::int64_t>> parts;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < walks.size(); ++i) {
    Walk& walk = walks[i];
    const std::int64_t left = walk.length() - walk.sequence.length();
    const auto count = std::min<std::int64_t>(left, static_cast<std::int64_t>(random.below(number * 16 + i, 6)));
    if (count == 0) continue;
    const std::int64_t position = walk.sequence.length();
    batch.rows.push_back({offset, count, position, &walk.sequence});
    ids.push_back(tensor_of(walk.ids).narrow(0, position, count));
    w.push_back(walk.w_TE.narrow(0, position, count));
    parts.emplace_back(&walk, position);
    offset += count;
  }
  if (parts.empty()) return;
  batch.tokens_N = at::cat(ids);
  const at::Tensor w_NE = at::cat(w);
  const at::Tensor logits_NV = composition.model().head().forward(composition.middle(batch, &w_NE), batch);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const BatchRows& rows = batch.rows[i];
    parts[i]
        .first->logits_TV.narrow(0, parts[i].second, rows.length)
        .copy_(logits_NV.narrow(0, rows.offset, rows.length));
  }
}

void finish(Composition& composition, std::vector<Walk>& walks, std::uint64_t seed) {
  const RandomStream random(seed, "steps");
  const auto finished = [](const Walk& walk) { return walk.finished(); };
  for (std::uint64_t number = 0; !std::all_of(walks.begin(), walks.end(), finished); ++number)
    step(composition, walks, random, number);
}

void check(Composition& composition, const std::vector<Walk>& walks) {
  for (const Walk& walk : walks)
    CHECK(largest_difference(walk.logits_TV, dense(composition, walk.ids, walk.w_TE)) < kTolerance);
}

const std::vector<ExpertKind> kEveryKind = {causal("one"),  token("two"),   recurrent("three"),
                                            causal("four"), window("five"), window_rows("six", 3)};
const auto kSlots = static_cast<std::int64_t>(kEveryKind.size()) + 1;

TEST_CASE("sparse execution equals dense execution over random strengths, chunks and batches") {
  const Tiny tiny;
  const auto composition = tiny.compose(kEveryKind);
  for (const std::uint64_t seed : {1, 2, 3}) {
    composition->experts().rows_at_once = seed == 3 ? 5 : 512;
    std::vector<Walk> walks;
    for (const std::int64_t length : {1, 7, 24, 40})
      walks.push_back(start(*composition, "text" + std::to_string(length), length, seed));
    finish(*composition, walks, seed);
    check(*composition, walks);
  }
  CHECK(composition->experts().total_work().run_rows > 0);
}

TEST_CASE("a forked sequence and the one it came from go on exactly, each its own way") {
  const Tiny tiny;
  const auto composition = tiny.compose(kEveryKind);
  std::vector<Walk> walks;
  walks.push_back(start(*composition, "text", 30, 4));
  const RandomStream random(4, "before");
  for (std::uint64_t number = 0; walks[0].sequence.length() < 11; ++number) step(*composition, walks, random, number);
  walks.push_back(fork(walks[0]));
  turn(*composition, walks[1], walks[1].sequence.length(), 5);
  finish(*composition, walks, 6);
  check(*composition, walks);
  CHECK(largest_difference(walks[0].logits_TV, walks[1].logits_TV) > 0.1);
}

TEST_CASE("a sequence that was cut back goes on as if it had never been longer") {
  const Tiny tiny;
  const auto composition = tiny.compose(kEveryKind);
  for (const std::uint64_t seed : {7, 8})
    for (const std::int64_t length : {0, 1, 13, 17, 22, 29}) {
      std::vector<Walk> walks;
      walks.push_back(start(*composition, "text", 30, seed));
      finish(*composition, walks, 8);
      turn(*composition, walks[0], length, seed + 2);
      finish(*composition, walks, 10);
      check(*composition, walks);
    }
}

TEST_CASE("sparse execution equals dense execution without state, whole sequences at once") {
  const Tiny tiny;
  const auto composition = tiny.compose(kEveryKind);
  const auto one = tokens("one", 20), two = tokens("two", 20);
  const at::Tensor w_1 = random_strengths("w1", 20, kSlots, 1), w_2 = random_strengths("w2", 20, kSlots, 2),
                   w_NE = at::cat({w_1, w_2});
  const Batch batch = Batch::whole(at::stack({tensor_of(one), tensor_of(two)}));
  const at::Tensor logits_NV = composition->model().head().forward(composition->middle(batch, &w_NE), batch);
  CHECK(largest_difference(logits_NV.narrow(0, 0, 20), dense(*composition, one, w_1)) < kTolerance);
  CHECK(largest_difference(logits_NV.narrow(0, 20, 20), dense(*composition, two, w_2)) < kTolerance);
}

TEST_CASE("what nobody chooses is not run, and a token expert runs on its own rows alone") {
  const Tiny tiny;
  const auto composition = tiny.compose({causal("one"), token("two")});
  Sequence sequence = composition->new_sequence();
  at::Tensor w_NE = at::zeros({10, 3});
  w_NE.select(1, 0).fill_(1.0);
  const auto ids = tokens("text", 20);
  (void)composition->middle(Batch::next(sequence, std::span(ids).first(10)), &w_NE);
  CHECK(composition->experts().total_work().run_rows == 10); // the base alone
  CHECK(composition->experts().total_work().dense_rows == 30);
  w_NE.zero_();
  w_NE.select(1, 0).fill_(0.5);
  w_NE.select(1, 0)[3].fill_(0.0), w_NE[3][1].fill_(1.0); // one is chosen at position 13: 14 rows of catching up
  w_NE.select(1, 2).fill_(0.5);
  w_NE[3][2].fill_(0.0);
  (void)composition->middle(Batch::next(sequence, std::span(ids).subspan(10)), &w_NE);
  CHECK(composition->experts().total_work().run_rows == 10 + 10 + 14 + 9);
}

// Strengths of base and one expert: the expert alone at these positions, the base everywhere else.
at::Tensor alone_at(std::int64_t length, std::initializer_list<std::int64_t> positions) {
  at::Tensor w_TE = at::zeros({length, 2});
  w_TE.select(1, 0).fill_(1.0);
  for (const std::int64_t position : positions) w_TE[position][0].fill_(0.0), w_TE[position][1].fill_(1.0);
  return w_TE;
}

std::int64_t rows_run(Composition& composition, const std::vector<std::int32_t>& ids, std::int64_t chunk,
                      const at::Tensor& w_TE) {
  composition.experts().work[1] = {};
  Sequence sequence = composition.new_sequence();
  at::Tensor logits_TV;
  for (std::int64_t at = 0; at < static_cast<std::int64_t>(ids.size()); at += chunk) {
    const at::Tensor w_NE = w_TE.narrow(0, at, chunk);
    const Batch batch =
        Batch::next(sequence, std::span(ids).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(chunk)));
    const at::Tensor y = composition.model().head().forward(composition.middle(batch, &w_NE), batch);
    logits_TV = logits_TV.defined() ? at::cat({logits_TV, y}) : y;
  }
  CHECK(largest_difference(logits_TV, dense(composition, ids, w_TE)) < kTolerance);
  return composition.experts().work[1].run_rows;
}

TEST_CASE("a window expert behind a gap runs its window alone, the others everything they missed") {
  const Tiny tiny;
  const auto ids = tokens("text", 60);
  const at::Tensor w_TE = alone_at(60, {10, 11, 40, 43, 59});
  for (const std::int64_t chunk : {1, 20, 60}) {
    INFO("chunk " << chunk);
    // Windows of 4 before 10 and 11, before 40 and, over the short gap, 43; before 59.
    CHECK(rows_run(*tiny.compose({window("w")}), ids, chunk, w_TE) == 5 + 7 + 4);
    CHECK(rows_run(*tiny.compose({window_rows("w", 4)}), ids, chunk, w_TE) == 5 + 7 + 4);
    CHECK(rows_run(*tiny.compose({token("t")}), ids, chunk, w_TE) == 5);
    CHECK(rows_run(*tiny.compose({causal("c")}), ids, chunk, w_TE) == 60);
    CHECK(rows_run(*tiny.compose({recurrent("r")}), ids, chunk, w_TE) == 60);
  }
}

TEST_CASE("a sequence cut back into a window's run-up is exact from its next choice on") {
  const Tiny tiny;
  const auto composition = tiny.compose({window_rows("w", 5)});
  const auto ids = tokens("text", 40);
  for (const std::int64_t length : {26, 27, 28, 29, 30, 31}) {
    const at::Tensor w_TE = alone_at(40, {30, 31});
    Sequence sequence = composition->new_sequence();
    const at::Tensor before = w_TE.narrow(0, 0, 32), first = alone_at(40, {length}).narrow(0, length, 8);
    (void)composition->middle(Batch::next(sequence, std::span(ids).first(32)), &before);
    sequence.truncate(length);
    const at::Tensor m_NC =
        composition->middle(Batch::next(sequence, std::span(ids).subspan(static_cast<std::size_t>(length), 8)), &first);
    const at::Tensor h_NC = tiny.model->trunk().forward(Batch::whole(tensor_of(ids).unsqueeze(0)));
    CHECK(largest_difference(m_NC[0], h_NC.narrow(0, length - 4, 5).mean(0)) < kTolerance);
  }
}

TEST_CASE("a long missed span is caught up in calls of bounded length") {
  const Tiny tiny;
  const auto composition = tiny.compose({recurrent("r")});
  composition->experts().rows_at_once = 7;
  recurrent_largest_call = 0;
  CHECK(rows_run(*composition, tokens("text", 60), 20, alone_at(60, {59})) == 60);
  CHECK(recurrent_largest_call == 7);
}

TEST_CASE("an expert that fails with its state half written is caught up again") {
  const Tiny tiny;
  Composition::Options options;
  options.strict = true;
  const auto composition = tiny.compose({recurrent("r")}, {}, 0.0, options);
  const auto ids = tokens("text", 24);
  const at::Tensor w_TE = alone_at(24, {5, 20}), first = w_TE.narrow(0, 0, 12), second = w_TE.narrow(0, 12, 12);
  Sequence sequence = composition->new_sequence();
  (void)composition->middle(Batch::next(sequence, std::span(ids).first(12)), &first);
  const Batch batch = Batch::next(sequence, std::span(ids).subspan(12));
  recurrent_failures = 1;
  CHECK_THROWS_AS(composition->middle(batch, &second), Error);
  sequence.truncate(12);
  const at::Tensor m_NC = composition->middle(batch, &second);
  const Batch whole = Batch::whole(tensor_of(ids).unsqueeze(0));
  CHECK(largest_difference(m_NC, composition->middle(whole, &w_TE).narrow(0, 12, 12)) < kTolerance);
}

TEST_CASE("one expert with strength 1 gives its output bit for bit") {
  const Tiny tiny;
  const auto composition = tiny.compose(kEveryKind);
  const auto ids = tokens("text", 16);
  const Batch batch = Batch::whole(tensor_of(ids).unsqueeze(0));
  const at::Tensor h_TC = tiny.model->trunk().forward(batch);
  const tenon_span span{0, 16, 0, nullptr};
  Experts& experts = composition->experts();
  const at::Tensor base_TC = experts[0].forward(h_TC, {}, {&span, 1});
  for (std::size_t slot = 0; slot < experts.size(); ++slot) {
    at::Tensor w_NE = at::zeros({16, kSlots});
    w_NE.select(1, static_cast<std::int64_t>(slot)).fill_(1.0);
    CHECK(composition->middle(batch, &w_NE)
              .equal(slot == 0 ? base_TC : experts[slot].forward(h_TC, base_TC, {&span, 1})));
  }
}

TEST_CASE("removing an expert gives, bit for bit, what never having had it gives") {
  const Tiny tiny;
  for (const std::string strengths : {"softmax", "top_k"}) {
    const Routing routing{strengths, 2, 1.0, "token"};
    // The same packages loaded before and after, and one that was there in between.
    std::vector<ExpertPackage> packages = tiny_experts(*tiny.model, {causal("one"), token("two"), recurrent("three")});
    Composition all(tiny.model, packages, routing, 0.3, {});
    const Batch batch = Batch::whole(tensor_of(tokens("text", 24)).unsqueeze(0));
    const at::Tensor with = all.forward(batch);
    packages.erase(packages.begin() + 2);
    Composition without(tiny.model, packages, routing, 0.3, {});
    const auto never = tiny.compose({causal("one"), recurrent("three")}, routing, 0.3);
    CHECK(without.forward(batch).equal(never->forward(batch)));
    CHECK_FALSE(with.equal(never->forward(batch)));
  }
}

TEST_CASE("an expert at fault is masked with one line, and its strength goes to the base") {
  const Tiny tiny;
  for (const std::string fault : {"throw", "nan", "infinity", "shape", "type"}) {
    std::vector<std::string> said;
    Composition::Options options;
    options.say = [&](const std::string& line) { said.push_back(line); };
    const auto composition =
        tiny.compose({causal("one"), faulty("bad", fault, 1)}, {"softmax", 2, 1.0, "token"}, 0.0, options);
    const Batch batch = Batch::whole(tensor_of(tokens("text", 12)).unsqueeze(0));
    const at::Tensor well = composition->forward(batch);
    CHECK(said.empty());
    const at::Tensor masked = composition->forward(batch);
    CHECK(composition->experts().masked(2));
    (void)composition->forward(batch);
    REQUIRE(said.size() == 1);
    CHECK_THAT(said[0], Catch::Contains("bad 1.0.0") && Catch::Contains("masked"));
    // "bad" said what the base says, so giving its share to the base changes rounding alone.
    CHECK(masked.isfinite().all().item<bool>());
    CHECK(largest_difference(masked, well) < kTolerance);
  }
}

TEST_CASE("with strict set, an expert at fault ends the call with exit status 7") {
  const Tiny tiny;
  for (const std::string fault : {"throw", "nan", "shape", "type"}) {
    Composition::Options options;
    options.strict = true;
    const auto composition = tiny.compose({faulty("bad", fault)}, {"softmax", 2, 1.0, "token"}, 0.0, options);
    try {
      (void)composition->forward(Batch::whole(tensor_of(tokens("text", 12)).unsqueeze(0)));
      FAIL("no error");
    } catch (const Error& error) {
      CHECK(exit_status(error.code) == 7);
      CHECK(error.unit == "bad 1.0.0");
    }
  }
}

} // namespace
} // namespace tenon::test
