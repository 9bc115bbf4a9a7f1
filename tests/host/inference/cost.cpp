#include "host/inference/cost.hpp"
#include "tests/support/packed_tiny.hpp"

#include <catch2/catch.hpp>

namespace tenon::test {
namespace {

// Of the tiny model: 4 heads of 8, 2 of them of keys; one layer in the trunk, one in the head, two in an expert.
constexpr double kLayerOperations = 2.0 * 2 * 4 * 8, kLayerBytes = 2.0 * 2 * 8 * 4;

TEST_CASE("a position that a row sees costs its keys and values, and its scores and sums, in every layer") {
  const Tiny tiny;
  const auto composition = tiny.compose({causal("one"), recurrent("two")});
  const Cost ends = seen_cost(composition->model());
  CHECK(ends.bytes == 2 * kLayerBytes);
  CHECK(ends.float32 == 2 * kLayerOperations);
  CHECK(ends.bf16 == 0);
  const Cost keeps_nothing = seen_cost(*composition->packages()[2].expert);
  CHECK(keeps_nothing.bytes == 0);
  CHECK(keeps_nothing.float32 == 0);
}

TEST_CASE("attention over keys in bfloat16 is counted among the products of bfloat16") {
  PackedTiny tiny;
  const auto composition = tiny.compose({});
  const Cost ends = seen_cost(composition->model()), base = seen_cost(*composition->packages()[0].expert);
  CHECK(ends.bf16 == 2 * kLayerOperations);
  CHECK(base.bf16 == 2 * kLayerOperations);
  CHECK(ends.float32 == 0);
  CHECK(base.bytes == ends.bytes);
}

} // namespace
} // namespace tenon::test
