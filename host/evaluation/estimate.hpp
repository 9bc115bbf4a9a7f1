// A mean and how sure it is.
// Thread: pure functions.
#pragma once

#include <optional>
#include <span>
#include <utility>

namespace tenon {

// The 95% interval is Student's t over blocks, which counts blocks as independent; neighbours from one document are
// less than that, so it is a little too narrow where documents span many blocks. Absent with fewer than two blocks.
struct Estimate {
  double mean = 0;
  std::optional<double> low, high;
  double variance = 0; // of the mean
  double freedom = 0;  // degrees of freedom of that variance
};

Estimate estimate(std::span<const double> values);
// The mean of `means` with equal weights, whatever the sizes behind them; degrees of freedom after Welch and
// Satterthwaite.
Estimate pool(std::span<const Estimate> means);

// 95% bounds of a share of `count` trials: Wilson's score interval (Wilson, 1927), which stays inside [0, 1].
std::pair<double, double> wilson_interval(double share, double count);

} // namespace tenon
