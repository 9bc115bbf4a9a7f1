// A mean and how sure it is.
// Thread: pure functions.
#pragma once

#include <optional>
#include <span>

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

} // namespace tenon
