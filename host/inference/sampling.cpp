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

void require_numbers(std::span<const float> logits_V) {
  for (std::size_t i = 0; i < logits_V.size(); ++i)
    if (!(logits_V[i] < INFINITY))
      throw Error(Code::numeric, "sampling",
                  fmt::format("the logit of token {} is {}, need a finite number", i, logits_V[i]),
                  "the model or an expert computes something that is not finite; try --strict to see which");
}

// Lanes side by side, which a compiler makes vectors of: a vocabulary is gone through once a token.
struct Largest {
  static constexpr std::size_t kLanes = 16;
  float top = -INFINITY;
  bool numbers = true; // none is NaN or infinity

  explicit Largest(std::span<const float> x) {
    float lanes[kLanes];
    std::int32_t strange[kLanes] = {};
    std::fill(lanes, lanes + kLanes, -INFINITY);
    std::size_t i = 0;
    for (; i + kLanes <= x.size(); i += kLanes)
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        lanes[lane] = x[i + lane] > lanes[lane] ? x[i + lane] : lanes[lane];
        strange[lane] |= !(x[i + lane] < INFINITY);
      }
    for (; i < x.size(); ++i) top = std::max(top, x[i]), numbers = numbers && x[i] < INFINITY;
    for (std::size_t lane = 0; lane < kLanes; ++lane)
      top = std::max(top, lanes[lane]), numbers = numbers && strange[lane] == 0;
  }
};

// The largest logit's id, the lowest among equals.
std::size_t largest(std::span<const float> logits_V) {
  if (logits_V.empty()) throw Error(Code::usage, "sampling", "there are no logits to sample from");
  const Largest all(logits_V);
  if (!all.numbers) require_numbers(logits_V);
  if (std::isinf(all.top)) throw Error(Code::numeric, "sampling", "every logit is -infinity: no token can follow");
  return static_cast<std::size_t>(std::find(logits_V.begin(), logits_V.end(), all.top) - logits_V.begin());
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

// What choices() says of a whole vocabulary, sorted no further down than a draw looks: to sort all of it would cost
// more than the model does.
class Ranking {
 public:
  Ranking(std::span<const float> logits_V, double temperature) : logits_V_(logits_V), weights_V_(logits_V.size()) {
    constexpr double kNothing = -60; // so unlikely that a whole vocabulary of such does not change the sum
    const double best = logits_V[largest(logits_V)];
    for (std::size_t i = 0; i < logits_V.size(); ++i) {
      const double x = (logits_V[i] - best) / temperature;
      weights_V_[i] = x < kNothing ? 0.0 : std::exp(x);
      total_ += weights_V_[i];
    }
  }

  // The first token, likeliest first, at which the probabilities kept by top_p exceed `drawn`, in [0, 1).
  std::int32_t at(double drawn, double top_p) const {
    for (double depth = 4;; depth *= 2) {
      const std::vector<std::int32_t> ids = down_to(depth);
      const bool all = ids.size() == logits_V_.size();
      double mass = total_;
      std::size_t kept = ids.size();
      if (top_p < 1) {
        for (mass = 0, kept = 0; kept < ids.size() && mass < top_p * total_;) mass += weight(ids[kept++]);
        if (mass < top_p * total_ && !all) continue;
      }
      double left = drawn * mass;
      for (std::size_t i = 0; i < kept; ++i)
        if (left -= weight(ids[i]); left < 0) return ids[i];
      if (top_p < 1 || all) return last_of(ids, kept);
    }
  }

 private:
  double weight(std::int32_t id) const { return weights_V_[static_cast<std::size_t>(id)]; }

  // Tokens no more than so many nats below the likeliest, in order.
  std::vector<std::int32_t> down_to(double depth) const {
    const double least = std::exp(-depth);
    std::vector<std::int32_t> ids;
    for (std::size_t i = 0; i < weights_V_.size(); ++i)
      if (weights_V_[i] >= least) ids.push_back(static_cast<std::int32_t>(i));
    std::sort(ids.begin(), ids.end(), [&](std::int32_t a, std::int32_t b) {
      const float x = logits_V_[static_cast<std::size_t>(a)], y = logits_V_[static_cast<std::size_t>(b)];
      return x != y ? x > y : a < b;
    });
    return ids;
  }

  // A crumb that rounding left over.
  std::int32_t last_of(const std::vector<std::int32_t>& ids, std::size_t kept) const {
    while (kept > 1 && weight(ids[kept - 1]) == 0) --kept;
    return ids[kept - 1];
  }

  std::span<const float> logits_V_;
  std::vector<double> weights_V_;
  double total_ = 0;
};

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
  if (options_.temperature == 0) return static_cast<std::int32_t>(largest(logits_V));
  const double drawn = stream_.uniform(index);
  if (options_.top_k == 0) return Ranking(logits_V, options_.temperature).at(drawn, options_.top_p);
  const std::vector<Choice> all = choices(logits_V, options_);
  double left = drawn;
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
