// A pool of threads for short parallel regions: one flat space of tasks, handed out by an atomic counter.
//
// The caller works too. Between regions workers spin for at most 100 us, then sleep, so that a sequence of regions
// costs well under a microsecond each while an idle pool costs nothing. One region at a time: whoever calls while
// another thread's region runs does all of its own tasks alone, and a region inside a task likewise. Thread: any.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace tenon::cpu {

class Pool {
 public:
  // threads: the caller included; at least 1.
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  // In a task, or in one that it calls for: which of the pool's threads runs it, 0 to threads() - 1. For memory that a
  // caller brings for each.
  static int thread();

  // task(index) for every index in [0, count), started in ascending order; returns when all are done.
  // Requires: task throws nothing; count < 2^31.
  template <class Task>
  void run(std::int64_t count, const Task& task) {
    static_assert(std::is_invocable_v<const Task&, std::int64_t>);
    const auto call = [](const void* context, std::int64_t index) { (*static_cast<const Task*>(context))(index); };
    run(count, call, &task);
  }

 private:
  using Call = void (*)(const void* context, std::int64_t index);
  void run(std::int64_t count, Call call, const void* context);
  bool take(std::int64_t& index);
  void work_off();
  void serve();

  // The region under way. A task can be taken only while its region runs, so whoever holds one may read these.
  Call call_ = nullptr;
  const void* context_ = nullptr;
  std::int64_t count_ = 0;

  alignas(64) std::atomic<std::uint64_t> ticket_{0}; // region << 32 | tasks left
  alignas(64) std::atomic<std::int64_t> finished_{0};
  alignas(64) std::atomic<std::uint32_t> region_{0};
  std::atomic<bool> stopping_{false};
  std::mutex in_use_;
  std::vector<std::thread> workers_;
};

} // namespace tenon::cpu
