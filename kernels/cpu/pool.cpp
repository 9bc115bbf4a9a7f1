#include "kernels/cpu/pool.hpp"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>
#include <system_error>

namespace tenon::cpu {
namespace {

constexpr auto kSpin = std::chrono::microseconds(100);
thread_local bool inside_region = false;
thread_local int number = 0; // of a worker; 0: whoever calls

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// False once kSpin has passed and it is still not so.
template <class Condition>
bool spin_until(const Condition& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; ++i) {
      if (condition()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return condition();
}

// What a task refers to stands beside it on the stack of whoever called: asked for at once, it comes in the time of one
// cache line from that processor, where reading it comes one line after the other.
void fetch_around(const void* context) {
  constexpr int before = 2, lines = 12;
  const char* at = static_cast<const char*>(context) - before * 64;
  for (int i = 0; i < lines; ++i) __builtin_prefetch(at + i * 64);
}

} // namespace

Pool::Pool(int threads) : workers_(static_cast<std::size_t>(std::max(threads, 1) - 1)) {
  int next = 0;
  try {
    for (Worker& worker : workers_) {
      worker.thread = std::thread([this, &worker, own = next + 1] {
        number = own;
        serve(worker);
      });
      ++next;
    }
  } catch (const std::system_error& error) {
    stop();
    throw std::runtime_error("found " + std::to_string(threads) + " threads asked for, this system starts " +
                             std::to_string(next + 1) + " (" + error.code().message() +
                             "); set TENON_THREADS to fewer");
  }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
  for (Worker& worker : workers_) {
    worker.state = kStopping;
    worker.state.notify_one();
  }
  for (Worker& worker : workers_)
    if (worker.thread.joinable()) worker.thread.join();
}

int Pool::thread() { return number; }
bool Pool::inside() { return inside_region; }

void Pool::run(std::int64_t count, Call call, const void* context) {
  if (count <= 0) return;
  if (count == 1 || workers_.empty() || inside_region || in_use_.test_and_set(std::memory_order_acquire)) {
    for (std::int64_t i = 0; i < count; ++i) call(context, i);
    return;
  }
  inside_region = true;
  const std::int64_t helpers = std::min<std::int64_t>(threads() - 1, count - 1);
  Failure failure;
  const Region region{call, context, count, &failure};
  next_.store(helpers + 1, std::memory_order_relaxed);
  for (std::int64_t i = 0; i < helpers; ++i) {
    Worker& worker = workers_[static_cast<std::size_t>(i)];
    worker.region = region;
    worker.state.store(kOffered, std::memory_order_release);
    if (worker.asleep.load(std::memory_order_relaxed)) worker.state.notify_one();
  }
  work_off(region, 0);
  for (std::int64_t i = 0; i < helpers; ++i)
    if (workers_[static_cast<std::size_t>(i)].change(kOffered, kIdle)) region.task(i + 1);
  for (std::int64_t i = 0; i < helpers; ++i) {
    const auto done = [&] {
      return workers_[static_cast<std::size_t>(i)].state.load(std::memory_order_acquire) == kIdle;
    };
    while (!spin_until(done)) std::this_thread::yield();
  }
  inside_region = false;
  in_use_.clear(std::memory_order_release);
  if (failure.what) std::rethrow_exception(failure.what);
}

void Pool::Region::task(std::int64_t index) const noexcept {
  try {
    call(context, index);
  } catch (...) {
    if (!failure->taken.test_and_set()) failure->what = std::current_exception();
  }
}

void Pool::work_off(const Region& region, std::int64_t first) {
  region.task(first);
  if (region.count <= threads()) return;
  for (std::int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < region.count;) region.task(i);
}

void Pool::serve(Worker& worker) {
  inside_region = true;
  while (true) {
    if (spin_until([&] { return worker.change(kOffered, kTaken); })) {
      fetch_around(worker.region.context);
      work_off(worker.region, number);
      worker.state.store(kIdle, std::memory_order_release);
    } else if (worker.state == kStopping) {
      return;
    } else {
      // Whoever offers meanwhile may see too late that this one sleeps: then the caller does that region's task itself.
      worker.asleep.store(true, std::memory_order_seq_cst);
      worker.state.wait(kIdle);
      worker.asleep.store(false, std::memory_order_relaxed);
    }
  }
}

} // namespace tenon::cpu
