#include "kernels/threads.hpp"

#include <catch2/catch.hpp>

#include <ATen/Parallel.h>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

using namespace tenon;

namespace {

struct Threads { // LibTorch's, for one test
  explicit Threads(int count) : before(at::get_num_threads()) { at::set_num_threads(count); }
  ~Threads() { at::set_num_threads(before); }
  int before;
};

std::size_t threads_of(std::int64_t count, std::int64_t grain) {
  std::mutex mutex;
  std::set<std::thread::id> seen;
  parallel_for(0, count, grain, [&](std::int64_t, std::int64_t) {
    const std::scoped_lock lock(mutex);
    seen.insert(std::this_thread::get_id());
  });
  return seen.size();
}

} // namespace

TEST_CASE("work beside LibTorch's operators is shared out among its threads, if there is enough of it") {
  const Threads three(3);
  CHECK(threads_of(3, 1) == 3);
  CHECK(threads_of(300, 100) == 3);
  CHECK(threads_of(300, 300) == 1);
  CHECK(threads_of(199, 100) == 1);
  CHECK(threads_of(200, 100) == 2);
  CHECK(threads_of(0, 1) == 0);
  const Threads one(1);
  CHECK(threads_of(300, 1) == 1);
}

TEST_CASE("no part of shared work is smaller than was asked for") {
  const Threads three(3);
  for (const std::int64_t count : {100, 101, 250, 301, 399}) {
    std::mutex mutex;
    std::int64_t least = count;
    parallel_for(7, 7 + count, 100, [&](std::int64_t begin, std::int64_t end) {
      const std::scoped_lock lock(mutex);
      least = std::min(least, end - begin);
    });
    CAPTURE(count);
    CHECK(least >= 100);
  }
}

TEST_CASE("shared work covers every index once, and what a part throws reaches the caller") {
  const Threads three(3);
  std::vector<int> seen(1000);
  parallel_for(0, 1000, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
  });
  CHECK(seen == std::vector<int>(1000, 1));
  CHECK_THROWS_WITH(parallel_for(0, 3, 1,
                                 [](std::int64_t begin, std::int64_t) {
                                   if (begin == 2) throw std::runtime_error("the third part");
                                 }),
                    "the third part");
}
