#include "host/training/losses.hpp"

#include "tests/kernels/tolerance.hpp"
#include "tests/support/tiny_model.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>

namespace tenon {
namespace {

using test::kTolerance;

constexpr std::int64_t kRows = 37, kWidth = 12, kVocabulary = 50;

struct Problem {
  at::Tensor unembedding = test::normal("unembedding", {kVocabulary, kWidth}, 0.7);
  at::Tensor features = test::normal("features", {kRows, kWidth}, 1.0);
  at::Tensor base = test::normal("base", {kRows, kWidth}, 1.0);
  at::Tensor targets = at::arange(kRows, at::kLong) * 7 % kVocabulary;

  at::Tensor leaf() const { return features.clone().set_requires_grad(true); }
  // As many rows a chunk as given.
  VocabularyLoss chunked(std::int64_t rows, bool bfloat16 = false) const {
    return VocabularyLoss(unembedding, bfloat16, rows * 4 * kVocabulary);
  }
};

at::Tensor plain_cross_entropy(const Problem& problem, const at::Tensor& features) {
  return at::nll_loss(at::log_softmax(features.mm(problem.unembedding.t()), 1), problem.targets);
}

at::Tensor plain_divergence(const Problem& problem, const at::Tensor& features) {
  const at::Tensor log_p = at::log_softmax(problem.base.mm(problem.unembedding.t()), 1);
  const at::Tensor log_q = at::log_softmax(features.mm(problem.unembedding.t()), 1);
  return (log_p.exp() * (log_p - log_q)).sum(1).mean();
}

} // namespace

TEST_CASE("chunked cross-entropy has the value and the gradient of the whole") {
  const Problem problem;
  const at::Tensor whole = problem.leaf();
  const at::Tensor expected = plain_cross_entropy(problem, whole);
  (expected * 3.0).backward();
  for (const std::int64_t rows : {1, 5, 36, 37, 1000}) {
    const VocabularyLoss loss = problem.chunked(rows);
    const at::Tensor leaf = problem.leaf();
    const at::Tensor value = loss.cross_entropy(leaf, problem.targets);
    (value * 3.0).backward(); // the gradient that arrives is used, not assumed to be 1
    INFO("rows a chunk " << rows);
    CHECK(value.item<double>() == Approx(expected.item<double>()).epsilon(kTolerance.chunked_loss));
    CHECK(at::allclose(leaf.grad(), whole.grad(), kTolerance.chunked_gradient, kTolerance.smallest_gradient));
  }
}

TEST_CASE("chunked KL from the base has the value and the gradient of the whole, and none for the base") {
  const Problem problem;
  const at::Tensor whole = problem.leaf();
  const at::Tensor expected = plain_divergence(problem, whole);
  (expected * 0.5).backward();
  for (const std::int64_t rows : {1, 5, 1000}) {
    const VocabularyLoss loss = problem.chunked(rows);
    const at::Tensor leaf = problem.leaf(), base = problem.base.clone().set_requires_grad(true);
    const at::Tensor value = loss.divergence(leaf, base);
    (value * 0.5).backward();
    INFO("rows a chunk " << rows);
    CHECK(value.item<double>() == Approx(expected.item<double>()).epsilon(kTolerance.chunked_divergence));
    CHECK(at::allclose(leaf.grad(), whole.grad(), kTolerance.chunked_gradient, kTolerance.smallest_gradient));
    CHECK_FALSE(base.grad().defined());
  }
}

TEST_CASE("KL of the base from itself is zero, and so is its gradient") {
  const Problem problem;
  const VocabularyLoss loss = problem.chunked(8);
  const at::Tensor leaf = problem.base.clone().set_requires_grad(true);
  const at::Tensor value = loss.divergence(leaf, problem.base);
  value.backward();
  CHECK(std::abs(value.item<double>()) < kTolerance.no_divergence);
  CHECK(leaf.grad().abs().max().item<double>() < kTolerance.no_gradient);
}

TEST_CASE("losses per position average to the loss") {
  const Problem problem;
  const VocabularyLoss loss = problem.chunked(10);
  const at::Tensor each = loss.per_position(problem.features, problem.targets);
  CHECK(each.size(0) == kRows);
  CHECK(each.mean().item<double>() == Approx(loss.cross_entropy_into(problem.features, problem.targets, at::Tensor()))
                                          .epsilon(kTolerance.chunked_loss));
}

TEST_CASE("the loss in bfloat16 stays near the one in float32") {
  const Problem problem;
  const VocabularyLoss exact = problem.chunked(10), rounded = problem.chunked(10, true);
  const at::Tensor a = problem.leaf(), b = problem.leaf();
  const at::Tensor exact_value = exact.cross_entropy(a, problem.targets),
                   value = rounded.cross_entropy(b, problem.targets);
  exact_value.backward();
  value.backward();
  CHECK(value.item<double>() == Approx(exact_value.item<double>()).epsilon(kTolerance.loss_bf16));
  CHECK((a.grad() - b.grad()).norm().item<double>() < kTolerance.loss_gradient_bf16 * a.grad().norm().item<double>());
}

} // namespace tenon
