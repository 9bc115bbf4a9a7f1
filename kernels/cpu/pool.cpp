#include "kernels/cpu/pool.hpp"

#include <chrono>

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

} // namespace

Pool::Pool(int threads) {
  for (int i = 1; i < threads; ++i)
    workers_.emplace_back([this, i] {
      number = i;
      serve();
    });
}

Pool::~Pool() {
  stopping_ = true;
  region_.fetch_add(1);
  region_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

int Pool::thread() { return number; }

void Pool::run(std::int64_t count, Call call, const void* context) {
  if (count <= 0) return;
  std::unique_lock<std::mutex> alone(in_use_, std::defer_lock);
  if (count == 1 || workers_.empty() || inside_region || !alone.try_lock()) {
    for (std::int64_t i = 0; i < count; ++i) call(context, i);
    return;
  }
  call_ = call, context_ = context, count_ = count;
  finished_.store(0, std::memory_order_relaxed);
  const std::uint32_t region = region_.load(std::memory_order_relaxed) + 1;
  ticket_.store(std::uint64_t{region} << 32 | static_cast<std::uint64_t>(count), std::memory_order_release);
  region_.store(region, std::memory_order_release);
  region_.notify_all();
  work_off();
  const auto done = [&] { return finished_.load(std::memory_order_acquire) == count; };
  while (!spin_until(done)) std::this_thread::yield();
}

// Tasks are counted down together with the region's number, so that a late worker can never take one of another region.
bool Pool::take(std::int64_t& index) {
  std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while ((ticket & 0xffffffffu) != 0) {
    if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire))
      continue;
    index = count_ - static_cast<std::int64_t>(ticket & 0xffffffffu);
    return true;
  }
  return false;
}

void Pool::work_off() {
  inside_region = true;
  for (std::int64_t index = 0; take(index);) {
    call_(context_, index);
    finished_.fetch_add(1, std::memory_order_release);
  }
  inside_region = false;
}

void Pool::serve() {
  std::uint32_t seen = 0;
  while (true) {
    if (!spin_until([&] { return region_.load(std::memory_order_acquire) != seen; })) region_.wait(seen);
    seen = region_.load(std::memory_order_acquire);
    if (stopping_) return;
    work_off();
  }
}

} // namespace tenon::cpu
