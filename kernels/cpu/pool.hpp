// A pool of threads for short parallel regions: one flat space of tasks.
//
// The caller works too. It offers every worker one task, in a cache line of that worker's own, begins with task 0, and
// takes back what a worker has not begun by the time all else is done: nobody waits for a worker that sleeps. Tasks
// beyond one a thread are handed out by an atomic counter. Between regions workers spin for at most 100 us, then sleep,
// so that a sequence of regions costs well under a microsecond each while an idle pool costs nothing. One region at a
// time: whoever calls while another thread's region runs does all of its own tasks alone, and a region inside a task
// likewise. Thread: any.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <type_traits>
#include <vector>

namespace tenon::cpu {

class Pool {
 public:
  // threads: the caller included; at least 1. Throws std::runtime_error, with the remedy, where the system starts
  // fewer.
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  // In a task, or in one that it calls for: which of the pool's threads runs it, 0 to threads() - 1. For memory that a
  // caller brings for each.
  static int thread();
  // Whether whoever asks is in a task of a region that all threads share: regions within it are its own alone.
  static bool inside();

  // task(index) for every index in [0, count); returns when all are done. Task i of the first threads() is thread i's,
  // or the caller's.
  // What the first task to throw throws, this does, once all are done.
  template <class Task>
  void run(std::int64_t count, const Task& task) {
    static_assert(std::is_invocable_v<const Task&, std::int64_t>);
    const auto call = [](const void* context, std::int64_t index) { (*static_cast<const Task*>(context))(index); };
    run(count, call, &task);
  }

 private:
  using Call = void (*)(const void* context, std::int64_t index);
  struct Failure { // what the first task to throw threw
    std::atomic_flag taken;
    std::exception_ptr what;
  };
  struct Region {
    Call call = nullptr;
    const void* context = nullptr;
    std::int64_t count = 0;
    Failure* failure = nullptr;

    void task(std::int64_t index) const noexcept;
  };
  enum State : std::uint32_t { kIdle, kOffered, kTaken, kStopping };
  // What a worker is offered, in one line: looking whether there is something brings all of it.
  struct alignas(64) Worker {
    std::atomic<std::uint32_t> state{kIdle};
    Region region;
    alignas(64) std::atomic<bool> asleep{false}; // or about to be: only then is waking worth a call of the system
    std::thread thread;

    bool change(std::uint32_t from, State to) {
      return state.compare_exchange_strong(from, to, std::memory_order_acq_rel, std::memory_order_acquire);
    }
  };
  void run(std::int64_t count, Call call, const void* context);
  void work_off(const Region& region, std::int64_t first);
  void serve(Worker& worker);
  void stop();

  alignas(64) std::atomic<std::int64_t> next_{0}; // of the tasks beyond one a thread
  alignas(64) std::atomic_flag in_use_;
  alignas(64) std::vector<Worker> workers_;
};

} // namespace tenon::cpu
