// Which of two ways to the same result is faster here and now, found out while both are used: it depends on whether
// processors share a cache, on how fast memory is, and on who else is at work, and changes within minutes.
//
// Every kAgain-th call takes the way that was slower, so that it is noticed when that is no longer so. A shorter time
// counts at once, a longer one, which may be an accident, by a quarter.
// Thread: any; nothing waits.
#pragma once

#include <atomic>
#include <cstdint>

namespace tenon::cpu {

class FasterWay {
 public:
  static constexpr std::uint32_t kAgain = 64;

  // 0 or 1. Whoever asks takes that way, and tells how long it took.
  int choose() {
    const double first = taken_[0].load(std::memory_order_relaxed), second = taken_[1].load(std::memory_order_relaxed);
    if (first == 0 || second == 0) return first == 0 ? 0 : 1;
    const int faster = second < first ? 1 : 0;
    return calls_.fetch_add(1, std::memory_order_relaxed) % kAgain == kAgain - 1 ? 1 - faster : faster;
  }
  void took(int way, double time) {
    const double before = taken_[way].load(std::memory_order_relaxed);
    taken_[way].store(before == 0 || time < before ? time : before + (time - before) / 4, std::memory_order_relaxed);
  }

 private:
  std::atomic<double> taken_[2] = {0, 0}; // lately; 0: not yet
  std::atomic<std::uint32_t> calls_ = 0;
};

} // namespace tenon::cpu
