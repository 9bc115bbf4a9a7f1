#include "host/inference/sampling.hpp"

#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace tenon {
namespace {

[[noreturn]] void refuse(const char* option, double found, const char* need) {
  throw Error(Code::usage, "sampling", fmt::format("{}: found {}, need {}", option, found, need));
}

void check_options(const SamplingOptions& options) {
  if (!std::isfinite(options.temperature) || options.temperature < 0)
    refuse("temperature", options.temperature, "0 (greedy) or more");
  if (options.top_k < 0) refuse("top-k", static_cast<double>(options.top_k), "0 (all) or more");
  if (!(options.top_p > 0 && options.top_p <= 1)) refuse("top-p", options.top_p, "more than 0, at most 1");
}

// The largest logit's id, the lowest among equals.
std::size_t largest(std::span<const float> logits_V) {
  if (logits_V.empty()) throw Error(Code::usage, "sampling", "there are no logits to sample from");
  std::size_t best = 0;
  for (std::size_t i = 0; i < logits_V.size(); ++i) {
    if (std::isnan(logits_V[i]) || logits_V[i] == INFINITY)
      throw Error(Code::numeric, "sampling",
                  fmt::format("the logit of token {} is {}, need a finite number", i, logits_V[i]),
                  "the model or an expert computes something that is not finite; try --strict to see which");
    if (logits_V[i] > logits_V[best]) best = i;
  }
  if (std::isinf(logits_V[best]))
    throw Error(Code::numeric, "sampling", "every logit is -infinity: no token can follow");
  return best;
}

void normalize(std::vector<Choice>& all) {
  double sum = 0;
  for (const Choice& one : all) sum += one.probability;
  for (Choice& one : all) one.probability /= sum;
}

void keep_top_p(std::vector<Choice>& sorted, double top_p) {
  double reached = 0;
  std::size_t kept = 0;
  while (kept < sorted.size() && reached < top_p) reached += sorted[kept++].probability;
  sorted.resize(std::max<std::size_t>(kept, 1));
  normalize(sorted);
}

} // namespace

std::vector<Choice> choices(std::span<const float> logits_V, const SamplingOptions& options) {
  const std::size_t best = largest(logits_V);
  if (options.temperature == 0) return {{static_cast<std::int32_t>(best), 1.0}};

  std::vector<std::int32_t> order(logits_V.size());
  std::iota(order.begin(), order.end(), 0);
  const auto more_likely = [&](std::int32_t a, std::int32_t b) {
    return logits_V[a] != logits_V[b] ? logits_V[a] > logits_V[b] : a < b;
  };
  if (options.top_k > 0 && static_cast<std::size_t>(options.top_k) < order.size()) {
    std::nth_element(order.begin(), order.begin() + options.top_k, order.end(), more_likely);
    order.resize(static_cast<std::size_t>(options.top_k));
  }
  std::sort(order.begin(), order.end(), more_likely);

  std::vector<Choice> out;
  out.reserve(order.size());
  for (const std::int32_t id : order)
    out.push_back({id, std::exp((static_cast<double>(logits_V[id]) - logits_V[best]) / options.temperature)});
  normalize(out);
  if (options.top_p < 1) keep_top_p(out, options.top_p);
  return out;
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), stream_(options.seed, "sample") {
  check_options(options);
}

std::int32_t Sampler::sample(std::span<const float> logits_V, std::uint64_t index) const {
  const std::vector<Choice> all = choices(logits_V, options_);
  double left = stream_.uniform(index);
  for (const Choice& one : all) {
    left -= one.probability;
    if (left < 0) return one.id;
  }
  // Rounding left a crumb over: it belongs to the last that has any probability.
  for (auto one = all.rbegin(); one != all.rend(); ++one)
    if (one->probability > 0) return one->id;
  return all.front().id;
}

} // namespace tenon
