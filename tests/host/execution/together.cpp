// Experts that are the base's run with changes of low rank go through it together with the base, runs on weights of
// their own beside each other, and nobody can tell.
#include "host/execution/merge.hpp"
#include "tests/support/packed_in_memory.hpp"
#include "tests/support/tiny_model.hpp"

#include <catch2/catch.hpp>

namespace tenon::test {
namespace {

// The base, two low-rank experts on its weights, and one of another kind that stands on its output.
class Shared {
 public:
  // own: the low-rank experts have norms of their own, so that they run beside each other and not with the base.
  explicit Shared(const Tiny& tiny, bool own = false, cpu::PackedFormat format = cpu::PackedFormat::bf16) {
    std::vector<ExpertPackage> packages = tiny_experts(*tiny.model, {low_rank("one"), token("two"), low_rank("three")});
    std::map<std::string, at::Tensor> base;
    for (const ExpertParameter& parameter : packages[0].expert->parameters()) base[parameter.name] = parameter.tensor;
    std::vector<at::Tensor> matrices;
    for (const auto& [name, tensor] : base)
      if (tensor.dim() == 2) matrices.push_back(tensor);
    for (const std::size_t slot : {1, 3})
      for (const ExpertParameter& parameter : packages[slot].expert->parameters())
        if (base.count(parameter.name))
          packages[slot].expert->bind(
              parameter.name, own && parameter.tensor.dim() == 1 ? base[parameter.name].clone() : base[parameter.name]);
    forms_.emplace(matrices, format);
    for (const ExpertPackage& package : packages) package.expert->prepare(TENON_INFERENCE);
    low_rank_calls = 0;
    composition =
        std::make_unique<Composition>(tiny.model, std::move(packages), Routing{}, 0.0, Composition::Options{});
  }

  std::unique_ptr<Composition> composition;

 private:
  static ExpertKind low_rank(const std::string& name) {
    ExpertKind kind = causal(name);
    kind.architecture = "test.low_rank";
    return kind;
  }
  std::optional<PackedInMemory> forms_;
};

cpu::PackedFormat each_format() {
  return GENERATE(cpu::PackedFormat::bf16, cpu::PackedFormat::bf16e4, cpu::PackedFormat::int8g32,
                  cpu::PackedFormat::int4g32, cpu::PackedFormat::int4g32m);
}

at::Tensor strengths(std::int64_t rows, std::uint64_t seed) {
  const at::Tensor w_NE = normal("strengths", {rows, 4}, 1.0, seed).relu();
  w_NE.select(1, 0).add_(0.01);
  return w_NE / w_NE.sum(1, true);
}

// Each expert by itself at every row, then the sum.
at::Tensor one_by_one(Composition& composition, const at::Tensor& h_NC, const Batch& batch, const at::Tensor& w_NE) {
  std::vector<tenon_span> spans;
  for (const BatchRows& row : batch.rows) spans.push_back({row.offset, row.length, 0, nullptr});
  Experts& experts = composition.experts();
  const at::Tensor base_NC = experts[0].forward(h_NC, {}, spans);
  at::Tensor m_NC = at::zeros_like(h_NC);
  for (std::size_t slot = 0; slot < experts.size(); ++slot) {
    const at::Tensor y_NC = slot == 0 ? base_NC : experts[slot].forward(h_NC, base_NC, spans);
    m_NC += y_NC * w_NE.select(1, static_cast<std::int64_t>(slot)).unsqueeze(1);
  }
  return m_NC;
}

TEST_CASE("runs with the base, and beside each other, have the same bits as each by itself") {
  const Tiny tiny;
  const cpu::PackedFormat format = each_format();
  CAPTURE(cpu::packed_name(format));
  const Shared shared(tiny, GENERATE(false, true), format);
  Composition& composition = *shared.composition;
  const Batch batch = Batch::whole(at::stack({tensor_of(tokens("a", 6)), tensor_of(tokens("b", 6))}));
  const at::Tensor w_NE = strengths(12, 1);
  const at::Tensor together = composition.middle(batch, &w_NE);
  CHECK(low_rank_calls == 0);
  CHECK(together.equal(one_by_one(composition, composition.model().trunk().forward(batch), batch, w_NE)));
  CHECK(low_rank_calls == 2);
}

// Two sequences, step by step: positions [from, to) of each.
const std::vector<std::pair<std::int64_t, std::int64_t>> kSteps = {{0, 5}, {5, 6}, {6, 7}, {7, 21}};

// h_NC: all positions of one, then of the other.
std::vector<at::Tensor> by_definition(Composition& composition, const at::Tensor& h_NC) {
  const Batch batch = Batch::whole(at::zeros({2, 21}, at::kLong));
  const at::Tensor m_2TC = one_by_one(composition, h_NC, batch, strengths(42, 2)).view({2, 21, -1});
  std::vector<at::Tensor> out;
  for (const auto& [from, to] : kSteps) out.push_back(m_2TC.narrow(1, from, to - from).reshape({2 * (to - from), -1}));
  return out;
}

struct Walk {
  std::vector<at::Tensor> outputs; // a step each
  at::Tensor h_NC;
};

Walk walk(Composition& composition, std::int64_t at_once) {
  composition.experts().rows_at_once = at_once;
  const std::vector<std::int32_t> a = tokens("a", 21), b = tokens("b", 21);
  const at::Tensor w_2TE = strengths(42, 2).view({2, 21, 4});
  Sequence first = composition.new_sequence(), second = composition.new_sequence();
  std::vector<at::Tensor> out;
  for (const auto& [from, to] : kSteps) {
    Batch batch;
    batch.rows = {{0, to - from, from, &first}, {to - from, to - from, from, &second}};
    batch.tokens_N = at::cat({tensor_of(a).narrow(0, from, to - from), tensor_of(b).narrow(0, from, to - from)});
    const at::Tensor w_NE = w_2TE.narrow(1, from, to - from).reshape({-1, 4});
    out.push_back(composition.middle(batch, &w_NE));
  }
  return {out, at::cat({first.h.rows(0, 21), second.h.rows(0, 21)})};
}

TEST_CASE("sequences go on with low-rank experts to the same bits, whether these run with the base or not") {
  const Tiny tiny;
  const cpu::PackedFormat format = each_format();
  CAPTURE(cpu::packed_name(format));
  std::vector<at::Tensor> expected;
  {
    const Shared own(tiny, true, format);
    const Walk walked = walk(*own.composition, 512);
    expected = walked.outputs;
    const std::vector<at::Tensor> defined = by_definition(*own.composition, walked.h_NC);
    for (std::size_t step = 0; step < expected.size(); ++step) // expert two, LibTorch's, rounds by how many rows it has
      CHECK(expected[step].allclose(defined[step], 0, 1e-5));
  }
  const Shared shared(tiny, false, format);
  const auto check = [&](std::int64_t at_once) {
    const std::vector<at::Tensor> found = walk(*shared.composition, at_once).outputs;
    for (std::size_t step = 0; step < found.size(); ++step) CHECK(found[step].equal(expected[step]));
  };
  check(512);
  CHECK(low_rank_calls == 0);
  const Shared own(tiny, true, format);
  for (const std::int64_t at_once : {512, 3}) {
    const std::vector<at::Tensor> found = walk(*own.composition, at_once).outputs;
    for (std::size_t step = 0; step < found.size(); ++step) CHECK(found[step].equal(expected[step]));
  }
  check(3); // so few rows a call that some hold one expert's alone
}

TEST_CASE("an expert that fails among others is masked, and the others go on") {
  const Tiny tiny;
  const Shared shared(tiny, GENERATE(false, true));
  Composition& composition = *shared.composition;
  for (const ExpertParameter& parameter : composition.experts()[1].parameters())
    if (parameter.name == "blocks.0.ffn.down.b") at::Tensor(parameter.tensor).detach().fill_(NAN);
  composition.experts()[1].prepare(TENON_INFERENCE);
  const Batch batch = Batch::whole(tensor_of(tokens("a", 9)).unsqueeze(0));
  const at::Tensor w_NE = strengths(9, 3);
  const at::Tensor found = composition.middle(batch, &w_NE);
  CHECK(composition.experts().masked(1));
  CHECK_FALSE(composition.experts().masked(3));
  at::Tensor moved_NE = w_NE.clone();
  moved_NE.select(1, 0) += moved_NE.select(1, 1);
  moved_NE.select(1, 1).zero_();
  const at::Tensor again = composition.middle(batch, &moved_NE);
  CHECK(found.equal(again));
}

} // namespace
} // namespace tenon::test
