// Which of two ways to the same result is faster here and now, found out while both are used: it depends on whether
// processors share a cache, on how fast memory is, and on who else is at work, and changes within minutes.
//
// Calls go in periods of 32 trials: those of the first trial go the first way, those of the next the second, and all
// others the one that was faster. A trial's first half only settles: caches still hold what the other way left in them.
// Of its second half the shortest time counts, since a longer one may be an accident. Long calls need but few a trial,
// yet each kind that comes in turn. Thread: any; nothing waits.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>

namespace tenon::cpu {

class FasterWay {
 public:
  static constexpr std::uint32_t kTrial = 16, kLongTrial = 12, kTrials = 32; // calls, calls, trials a period

  // Whoever asks takes way 0 or 1, and tells how long it took.
  struct Choice {
    int way;
    bool counts;
  };
  Choice choose(std::uint32_t calls_a_trial = kTrial) {
    const std::uint32_t call = calls_.fetch_add(1, std::memory_order_relaxed) % (kTrials * calls_a_trial),
                        trial = call / calls_a_trial, in_trial = call % calls_a_trial;
    if (trial > 1) return {shortest(1) < shortest(0) ? 1 : 0, false};
    if (in_trial == 0) shortest_[trial].store(kNever, std::memory_order_relaxed);
    return {static_cast<int>(trial), in_trial >= calls_a_trial / 2};
  }
  void took(const Choice& choice, double time) {
    if (choice.counts && time < shortest(choice.way)) shortest_[choice.way].store(time, std::memory_order_relaxed);
  }

 private:
  static constexpr double kNever = std::numeric_limits<double>::infinity();
  double shortest(int way) const { return shortest_[way].load(std::memory_order_relaxed); }

  std::atomic<double> shortest_[2] = {kNever, kNever}; // of the last trials
  std::atomic<std::uint32_t> calls_ = 0;
};

} // namespace tenon::cpu
