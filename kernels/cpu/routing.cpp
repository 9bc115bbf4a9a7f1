#include "kernels/cpu/routing.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace tenon::cpu {
namespace {

// Those whose z is less than `reach` below the largest, with z - largest as their strengths to begin with. Nobody else
// has a share: were t lower, the largest alone would have more than 1.
std::int64_t candidates(const Kernels& kernels, const float* scores, std::int64_t count, float temperature, float reach,
                        std::int32_t* experts, float* strengths) {
  const float largest = kernels.largest(scores, count),
              below = std::nextafter(largest, -INFINITY); // huge ones share, too
  const std::int64_t found = kernels.above(scores, count, std::min(below, largest - reach * temperature), experts);
  for (std::int64_t i = 0; i < found; ++i) strengths[i] = (scores[experts[i]] - largest) / temperature;
  return found;
}

// Drops those of whom keep(strength) is false.
template <class Keep>
std::int64_t keep_if(std::int64_t count, std::int32_t* experts, float* strengths, const Keep& keep) {
  std::int64_t kept = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const float strength = strengths[i];
    experts[kept] = experts[i], strengths[kept] = strength;
    kept += keep(strength); // no branch: who stays is hard to foresee
  }
  return kept;
}

// Divides by the sum and drops who has nothing.
std::int64_t normalise(std::int64_t count, std::int32_t* experts, float* strengths) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += strengths[i];
  const std::int64_t kept = keep_if(count, experts, strengths, [](float strength) { return strength > 0; });
  for (std::int64_t i = 0; i < kept; ++i) strengths[i] = static_cast<float>(strengths[i] / sum);
  return kept;
}

} // namespace

std::int64_t top_k(const Kernels& kernels, const float* scores, std::int64_t count, std::int64_t k, float temperature,
                   std::int32_t* experts, float* strengths) {
  k = std::min(k, count);
  if (k <= 0) return 0;
  k = kernels.best(scores, count, k, experts); // fewer where others are excluded
  if (k == 0) return 0;
  const float largest = scores[experts[0]];
  std::sort(experts, experts + k);
  for (std::int64_t i = 0; i < k; ++i) strengths[i] = std::exp((scores[experts[i]] - largest) / temperature);
  return normalise(k, experts, strengths);
}

// t grows from below as those without a share leave. (Michelot 1986, Journal of Optimization Theory 50)
std::int64_t sparsemax(const Kernels& kernels, const float* scores, std::int64_t count, float temperature,
                       std::int32_t* experts, float* strengths) {
  if (count == 0) return 0;
  std::int64_t found = candidates(kernels, scores, count, temperature, 1.0f, experts, strengths);
  double t = 0;
  for (std::int64_t before = -1; found != before;) {
    double sum = 0;
    for (std::int64_t i = 0; i < found; ++i) sum += strengths[i];
    t = (sum - 1) / static_cast<double>(found);
    before = std::exchange(found, keep_if(found, experts, strengths, [&](float z) { return z > t; }));
  }
  for (std::int64_t i = 0; i < found; ++i) strengths[i] = static_cast<float>(std::max(strengths[i] - t, 0.0));
  return normalise(found, experts, strengths);
}

// Newton's steps from the left on a sum that falls and is convex in t: they never pass the root, and whoever has no
// share at one of them has none at the end.
std::int64_t entmax15(const Kernels& kernels, const float* scores, std::int64_t count, float temperature,
                      std::int32_t* experts, float* strengths) {
  if (count == 0) return 0;
  constexpr int most = 60;
  constexpr double enough = 1e-9;
  std::int64_t found = candidates(kernels, scores, count, temperature, 2.0f, experts, strengths);
  double t = -1;
  for (int i = 0; i < most; ++i) {
    found = keep_if(found, experts, strengths, [&](float z) { return z / 2 > t; });
    double sum = 0, squares = 0;
    for (std::int64_t j = 0; j < found; ++j) {
      const double share = strengths[j] / 2 - t;
      sum += share, squares += share * share;
    }
    t += (squares - 1) / (2 * sum);
    if (squares - 1 < enough) break;
  }
  for (std::int64_t j = 0; j < found; ++j) {
    const double share = std::max(strengths[j] / 2 - t, 0.0);
    strengths[j] = static_cast<float>(share * share);
  }
  return normalise(found, experts, strengths);
}

} // namespace tenon::cpu
