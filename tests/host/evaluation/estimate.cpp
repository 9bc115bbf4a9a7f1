#include "host/evaluation/estimate.hpp"

#include <catch2/catch.hpp>
#include <vector>

namespace tenon {
namespace {

TEST_CASE("the interval is Student's t over the values") {
  const std::vector<double> values = {1, 2, 3, 4};
  const Estimate out = estimate(values);
  CHECK(out.mean == Approx(2.5));
  CHECK(*out.low == Approx(2.5 - 3.182446 * 0.6454972)); // t(3, .975) by table
  CHECK(*out.high == Approx(2.5 + 3.182446 * 0.6454972));
}

TEST_CASE("one value has no interval, equal values one without width") {
  CHECK_FALSE(estimate(std::vector<double>{2.0}).low);
  const Estimate same = estimate(std::vector<double>{2.0, 2.0, 2.0});
  CHECK(*same.low == 2.0);
  CHECK(*same.high == 2.0);
}

TEST_CASE("pooling weighs corpora alike, however many blocks each has") {
  const Estimate few = estimate(std::vector<double>{1, 3}), many = estimate(std::vector<double>{9, 10, 10, 10, 11});
  const Estimate out = pool(std::vector<Estimate>{few, many});
  CHECK(out.mean == Approx(6.0));
  CHECK(out.variance == Approx((few.variance + many.variance) / 4));
  // Welch and Satterthwaite: nearly all of the variance is that of the two values, so about one degree of freedom.
  CHECK(out.freedom == Approx(1.2).margin(0.1));
  CHECK(*out.low < 6.0);
  CHECK_FALSE(pool(std::vector<Estimate>{few, estimate(std::vector<double>{1.0})}).low);
}

TEST_CASE("a share's interval is Wilson's, inside 0 and 1") {
  const auto [low, high] = wilson_interval(0.5, 100);
  CHECK(low == Approx(0.4038).margin(1e-4)); // by table
  CHECK(high == Approx(0.5962).margin(1e-4));
  CHECK(wilson_interval(0.0, 10).first == 0.0);
  CHECK(wilson_interval(0.0, 10).second == Approx(0.2775).margin(1e-4));
  CHECK(wilson_interval(1.0, 10).second == Approx(1.0));
  CHECK(wilson_interval(1.0, 10).second <= 1.0);
}

} // namespace
} // namespace tenon
