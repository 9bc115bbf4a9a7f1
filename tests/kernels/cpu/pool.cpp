#include "kernels/cpu/pool.hpp"

#include "kernels/cpu/tier.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <atomic>
#include <memory>
#include <stdexcept>
#include <string>

namespace tenon::cpu {

TEST_CASE("a pool does every task once, in thousands of regions of any size") {
  Pool pool(4);
  CHECK(pool.threads() == 4);
  std::vector<std::atomic<int>> done(50);
  for (int region = 0; region < 3000; ++region) pool.run(region % 51, [&](std::int64_t i) { ++done[i]; });
  for (int i = 0; i < 50; ++i) {
    int expected = 0;
    for (int region = 0; region < 3000; ++region) expected += i < region % 51;
    CHECK(done[i] == expected);
  }
}

TEST_CASE("a thread begins with its own task, or the caller does that as well") {
  Pool pool(4);
  for (std::int64_t region = 0; region < 500; ++region) {
    const std::int64_t count = 2 + region % 7;
    std::vector<int> by(static_cast<std::size_t>(count), -1);
    pool.run(count, [&](std::int64_t i) { by[i] = Pool::thread(); });
    CHECK(by[0] == 0);
    for (int i = 1; i < std::min<std::int64_t>(count, 4); ++i) CHECK((by[i] == i || by[i] == 0));
  }
}

TEST_CASE("what tasks wrote is seen after the region") {
  Pool pool(3);
  std::vector<std::int64_t> plain(1000);
  for (int region = 1; region < 200; ++region) {
    pool.run(1000, [&](std::int64_t i) { plain[i] += i; });
    for (std::int64_t i = 0; i < 1000; ++i)
      if (plain[i] != i * region) FAIL("task " << i << " of region " << region);
  }
}

TEST_CASE("regions within tasks and of other threads run as well") {
  Pool pool(2);
  std::atomic<int> inner{0}, other{0};
  std::thread elsewhere([&] {
    for (int i = 0; i < 200; ++i) pool.run(7, [&](std::int64_t) { ++other; });
  });
  for (int i = 0; i < 200; ++i) pool.run(3, [&](std::int64_t) { pool.run(5, [&](std::int64_t) { ++inner; }); });
  elsewhere.join();
  CHECK(inner == 200 * 15);
  CHECK(other == 200 * 7);
}

TEST_CASE("what a task throws reaches whoever called, once all others are done, and the pool goes on") {
  Pool pool(3);
  for (std::int64_t bad = 0; bad < 20; ++bad) {
    std::atomic<int> done{0};
    const auto run = [&] {
      pool.run(20, [&](std::int64_t i) {
        if (i == bad) throw std::runtime_error("task " + std::to_string(i));
        ++done;
      });
    };
    CHECK_THROWS_WITH(run(), "task " + std::to_string(bad));
    CHECK(done == 19);
  }
  std::vector<int> by(3, -1);
  pool.run(3, [&](std::int64_t i) { by[static_cast<std::size_t>(i)] = 1; });
  CHECK(by == std::vector<int>{1, 1, 1});
}

TEST_CASE("a forced tier that is unknown or that this processor lacks is refused with the remedy") {
  CHECK(choose_tier("") == supported_tiers().back());
  CHECK(choose_tier("reference") == Tier::reference);
  CHECK_THROWS_WITH(choose_tier("sse"), Catch::Contains("need one of reference, avx2, avx512"));
  for (const Tier tier : {Tier::avx2, Tier::avx512}) {
    if (supported(tier))
      CHECK(choose_tier(tier_name(tier)) == tier);
    else
      CHECK_THROWS_WITH(choose_tier(tier_name(tier)), Catch::Contains("unset TENON_TIER"));
  }
}

} // namespace tenon::cpu
