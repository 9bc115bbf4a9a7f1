#include "host/evaluation/estimate.hpp"

#include <boost/math/distributions/students_t.hpp>

#include <algorithm>
#include <cmath>

namespace tenon {
namespace {

void set_interval(Estimate& out) {
  if (out.freedom <= 0) return;
  const double t = boost::math::quantile(boost::math::students_t(out.freedom), 0.975);
  const double half = t * std::sqrt(out.variance);
  out.low = out.mean - half;
  out.high = out.mean + half;
}

} // namespace

Estimate estimate(std::span<const double> values) {
  Estimate out;
  const auto count = static_cast<double>(values.size());
  for (const double value : values) out.mean += value / count;
  if (values.size() < 2) return out;
  for (const double value : values) out.variance += (value - out.mean) * (value - out.mean);
  out.variance /= (count - 1) * count;
  out.freedom = count - 1;
  set_interval(out);
  return out;
}

Estimate pool(std::span<const Estimate> means) {
  Estimate out;
  const auto count = static_cast<double>(means.size());
  double squares = 0;
  bool sure = !means.empty();
  for (const Estimate& one : means) {
    const double part = one.variance / (count * count);
    out.mean += one.mean / count;
    out.variance += part;
    sure = sure && one.freedom > 0;
    if (one.freedom > 0) squares += part * part / one.freedom;
  }
  if (sure && squares == 0) {
    out.low = out.high = out.mean; // no spread at all
    return out;
  }
  if (sure) out.freedom = out.variance * out.variance / squares;
  set_interval(out);
  return out;
}

std::pair<double, double> wilson_interval(double share, double count) {
  constexpr double z = 1.959963984540054, squared = z * z;
  const double scale = 1 / (1 + squared / count), centre = scale * (share + squared / (2 * count));
  const double half = scale * z * std::sqrt(share * (1 - share) / count + squared / (4 * count * count));
  return {std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

} // namespace tenon
