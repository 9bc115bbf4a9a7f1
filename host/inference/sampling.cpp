#include "host/inference/sampling.hpp"

#include "kernels/cpu/engine.hpp"
#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace tenon {
namespace {

[[noreturn]] void refuse(const char* option, double found, const char* need) {
  throw Error(Code::usage, "sampling", fmt::format("{}: found {}, need {}", option, found, need),
              "give such a number; usual are --temperature 0.8, --top-p 0.9 and --top-k 0");
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

// The largest logit's id, the lowest among equals.
std::size_t largest(std::span<const float> logits_V) {
  if (logits_V.empty()) throw Error(Code::usage, "sampling", "there are no logits to sample from");
  const cpu::Peak peak = cpu::engine().kernels->rows.peak(logits_V.data(), static_cast<std::int64_t>(logits_V.size()));
  if (!peak.numbers) require_numbers(logits_V);
  if (peak.place < 0) throw Error(Code::numeric, "sampling", "every logit is -infinity: no token can follow");
  return static_cast<std::size_t>(peak.place);
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

// The k most likely ids, likeliest first, the lower id first among equals; none of logit -infinity.
void most_likely(std::span<const float> logits_V, std::size_t k, std::vector<std::int32_t>& ids) {
  constexpr std::size_t few = 256; // so many are kept in order while the others go past
  const auto more_likely = [&](std::int32_t a, std::int32_t b) {
    return logits_V[a] != logits_V[b] ? logits_V[a] > logits_V[b] : a < b;
  };
  k = std::min(k, logits_V.size());
  if (k <= few && k < logits_V.size()) {
    ids.resize(k);
    const std::int64_t found = cpu::engine().kernels->best(logits_V.data(), static_cast<std::int64_t>(logits_V.size()),
                                                           static_cast<std::int64_t>(k), ids.data());
    ids.resize(static_cast<std::size_t>(found));
    return;
  }
  ids.resize(logits_V.size());
  std::iota(ids.begin(), ids.end(), 0);
  if (k < ids.size()) std::nth_element(ids.begin(), ids.begin() + static_cast<std::int64_t>(k), ids.end(), more_likely);
  ids.resize(k);
  std::sort(ids.begin(), ids.end(), more_likely);
  while (std::isinf(logits_V[ids.back()])) ids.pop_back();
}

// What choices() says. One serves draw after draw, and keeps its memory.
class Shortlist {
 public:
  const std::vector<Choice>& of(std::span<const float> logits_V, const SamplingOptions& options) {
    const std::size_t best = largest(logits_V);
    choices_.clear();
    if (options.temperature == 0) {
      choices_.push_back({static_cast<std::int32_t>(best), 1.0});
      return choices_;
    }
    most_likely(logits_V, options.top_k > 0 ? static_cast<std::size_t>(options.top_k) : logits_V.size(), ids_);
    for (const std::int32_t id : ids_)
      choices_.push_back({id, std::exp((static_cast<double>(logits_V[id]) - logits_V[best]) / options.temperature)});
    normalize(choices_);
    if (options.top_p < 1) keep_top_p(choices_, options.top_p);
    return choices_;
  }

 private:
  std::vector<std::int32_t> ids_;
  std::vector<Choice> choices_;
};

// What choices() says of a whole vocabulary, sorted no further down than a draw looks: to sort all of it would cost
// more than the model does. One serves draw after draw, and keeps its memory.
class Ranking {
 public:
  // Of these logits from here on, which are borrowed until the last draw from them.
  void rank(std::span<const float> logits_V, double temperature) {
    logits_V_ = logits_V;
    const std::size_t size = logits_V.size(), padded = (size + cpu::kPanel - 1) / cpu::kPanel * cpu::kPanel;
    weights_V_.resize(padded), ids_.resize(size);
    constexpr double least = std::numeric_limits<float>::min(), most = std::numeric_limits<float>::max();
    const float best = logits_V[largest(logits_V)],
                inverse = static_cast<float>(std::clamp(1 / temperature, least, most));
    for (std::size_t i = 0; i < size; ++i) weights_V_[i] = (logits_V[i] - best) * inverse;
    float top = 0, sum = 0;
    cpu::engine().kernels->soften(weights_V_.data(), static_cast<std::int64_t>(size), static_cast<std::int64_t>(padded),
                                  top, sum, {});
    total_ = cpu::engine().kernels->rows.sum(weights_V_.data(), static_cast<std::int64_t>(size));
  }

  // The first token, likeliest first, at which the probabilities kept by top_p exceed `drawn`, in [0, 1).
  std::int32_t at(double drawn, double top_p) {
    for (double depth = 4;; depth *= 2) {
      const bool all = depth > kNothing;
      const std::span<const std::int32_t> ids = down_to(std::min(depth, kNothing));
      double mass = total_;
      std::size_t kept = ids.size();
      if (top_p < 1) {
        for (mass = 0, kept = 0; kept < ids.size() && mass < top_p * total_;) mass += weight(ids[kept++]);
        if (mass < top_p * total_ && !all) continue;
      }
      double left = drawn * mass;
      for (std::size_t i = 0; i < kept; ++i)
        if (left -= weight(ids[i]); left < 0) return ids[i];
      if (top_p < 1 || all) return ids[kept - 1]; // a crumb that rounding left over
    }
  }

 private:
  // Nats below the likeliest at which a token is so unlikely that a whole vocabulary of such is never drawn.
  static constexpr double kNothing = 60;

  double weight(std::int32_t id) const { return weights_V_[static_cast<std::size_t>(id)]; }

  // Tokens less than so many nats below the likeliest, in order.
  std::span<const std::int32_t> down_to(double depth) {
    const std::int64_t found =
        cpu::engine().kernels->above(weights_V_.data(), static_cast<std::int64_t>(logits_V_.size()),
                                     static_cast<float>(std::exp(-depth)), ids_.data());
    const std::span<std::int32_t> ids = std::span(ids_).first(static_cast<std::size_t>(found));
    std::sort(ids.begin(), ids.end(), [&](std::int32_t a, std::int32_t b) {
      const float x = logits_V_[static_cast<std::size_t>(a)], y = logits_V_[static_cast<std::size_t>(b)];
      return x != y ? x > y : a < b;
    });
    return ids;
  }

  std::span<const float> logits_V_;
  double total_ = 0;
  std::vector<float> weights_V_;
  std::vector<std::int32_t> ids_;
};

} // namespace

std::vector<Choice> choices(std::span<const float> logits_V, const SamplingOptions& options) {
  return Shortlist().of(logits_V, options);
}

Sampler::Sampler(const SamplingOptions& options) : options_(options), stream_(options.seed, "sample") {
  check_options(options);
}

std::int32_t Sampler::sample(std::span<const float> logits_V, std::uint64_t index) const {
  if (options_.temperature == 0) return static_cast<std::int32_t>(largest(logits_V));
  const double drawn = stream_.uniform(index);
  if (options_.top_k == 0) {
    thread_local Ranking ranking;
    ranking.rank(logits_V, options_.temperature);
    return ranking.at(drawn, options_.top_p);
  }
  thread_local Shortlist shortlist;
  const std::vector<Choice>& all = shortlist.of(logits_V, options_);
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
