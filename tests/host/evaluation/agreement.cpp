// Every format of products beside float32, teacher-forced: a small random model reads random text. Nothing in it is
// likely, so that its perplexity tells of a scale that is off.
#include "tests/support/agreement.hpp"

#include "tests/kernels/tolerance.hpp"
#include "tests/support/packed_tiny.hpp"

#include <catch2/catch.hpp>

namespace tenon::test {
namespace {

constexpr std::size_t kTexts = 4, kLength = 128;

// bf16 is held against the model's own weights, integers against those that they compute with.
at::Tensor reference_of(Format format, const at::Tensor& weights) {
  return format == Format::bf16 ? weights : dequantised(weights);
}

std::unique_ptr<Composition> in_float32(const PackedTiny& tiny, const Composition& packed,
                                        const Multiplied& multiplied) {
  ModelFiles files;
  files.tokenizer = tiny.scratch.path() / "tokenizer.json";
  files.normalization = tiny.scratch.path() / "normalization.safetensors";
  auto model = model_on(*tiny.model, files, tiny.scratch.path() / "reference.safetensors", multiplied);
  ExpertPackage base = tiny_expert(*model, causal("base"));
  base.row.reset();
  bind_on(*base.expert, *packed.packages().front().expert, multiplied);
  std::vector<ExpertPackage> experts;
  experts.push_back(std::move(base));
  return std::make_unique<Composition>(std::move(model), std::move(experts), Routing{}, 0.0, Composition::Options{});
}

// All texts in one batch.
Batch texts() {
  std::vector<at::Tensor> all;
  for (std::size_t i = 0; i < kTexts; ++i) all.push_back(tensor_of(tokens("text", kLength, i)));
  return Batch::whole(at::stack(all));
}

Agreement compare(const at::Tensor& logits_NV, const at::Tensor& reference_NV, const Batch& batch) {
  Agreement out;
  for (const BatchRows& text : batch.rows) {
    const auto part = [&](const at::Tensor& whole) { return whole.narrow(0, text.offset, text.length); };
    out.add(part(logits_NV), part(reference_NV), part(batch.tokens_N));
  }
  return out;
}

bool agrees(Format format, const Agreement& found) {
  if (!(std::abs(found.worse_percent()) < kTolerance.agreement_percent)) return false;
  return format != Format::bf16 ||
         (found.lead < kTolerance.agreement_lead && found.mean_kl() < kTolerance.agreement_kl);
}

} // namespace

TEST_CASE("a model in a packed format tells what it tells in float32, and one with a scale off by 1% does not") {
  const Format format = each_packed_format();
  PackedTiny tiny(format);
  const auto packed = tiny.compose({});
  const Batch batch = texts();
  const at::Tensor logits_NV = packed->forward(batch);
  // Beside float32 whose matrices are that much larger: those of blocks, and the last.
  const auto beside = [&](double blocks, double last) {
    const std::int64_t vocabulary = tiny.model->shape().vocab;
    const auto reference = in_float32(tiny, *packed, [&](const at::Tensor& weights) {
      if (weights.dim() < 2) return weights;
      return reference_of(format, weights) * (weights.size(0) == vocabulary ? last : blocks);
    });
    return compare(logits_NV, reference->forward(batch), batch);
  };
  const Agreement same = beside(1.0, 1.0), all = beside(1.01, 1.01), last = beside(1.0, 1.01);
  CAPTURE(format_name(format), same.lead, same.mean_kl(), same.worse_percent(), all.worse_percent(),
          last.worse_percent());
  CHECK(same.positions == kTexts * (kLength - 1));
  CHECK(agrees(format, same));
  CHECK_FALSE(agrees(format, all));
  CHECK_FALSE(agrees(format, last));
}

} // namespace tenon::test
