#include "host/model/random.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <set>
#include <vector>

using namespace tenon;

TEST_CASE("a random stream's element depends on seed, name and index alone") {
  const RandomStream a(7, "order"), again(7, "order"), other_name(7, "noise"), other_seed(8, "order");
  CHECK(a.bits(1000) == again.bits(1000));
  int same = 0;
  for (std::uint64_t i = 0; i < 64; ++i) same += a.bits(i) == other_name.bits(i) || a.bits(i) == other_seed.bits(i);
  CHECK(same == 0);
}

TEST_CASE("normal numbers have mean 0 and deviation 1, and a longer fill begins with the shorter") {
  std::vector<float> many(100000), few(10);
  RandomStream(1, "init").normal(many);
  RandomStream(1, "init").normal(few);
  CHECK(std::equal(few.begin(), few.end(), many.begin()));
  double sum = 0, squares = 0;
  for (const float x : many) sum += x, squares += x * x;
  CHECK(std::abs(sum / 1e5) < 0.02);
  CHECK(std::abs(squares / 1e5 - 1) < 0.02);
}

TEST_CASE("below() reaches every number under its bound and none above") {
  const RandomStream stream(3, "split");
  std::set<std::uint64_t> seen;
  for (std::uint64_t i = 0; i < 200; ++i) seen.insert(stream.below(i, 7));
  CHECK(seen.size() == 7);
  CHECK(*seen.rbegin() == 6);
}
