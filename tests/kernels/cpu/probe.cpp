#include "kernels/cpu/probe.hpp"

#include "kernels/cpu/tier.hpp"

#include <catch2/catch.hpp>

using namespace tenon::cpu;

TEST_CASE("a probe finds a limit for every kind of number that this processor has vectors for") {
  const Probe probe(1 << 20);
  for (const int threads : {1, 2}) {
    Pool pool(threads);
    const Limits limits = probe.measure(pool);
    CHECK(limits.read > 0);
    CHECK((limits.float32 > 0) == supported(Tier::avx2));
    CHECK((limits.bf16 > 0) == supported(Tier::avx2));
    CHECK((limits.int8 > 0) == supported(Tier::avx2));
  }
}

TEST_CASE("the limit of a format is that of the numbers its products compute in") {
  const Limits limits{1, 2, 3, 4};
  CHECK(limits.peak(PackedFormat::bf16) == 3);
  CHECK(limits.peak(PackedFormat::int8g32) == 4);
  CHECK(limits.peak(PackedFormat::int4g32m) == 4);
}
