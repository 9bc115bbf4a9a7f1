// What a long piece of training work tells its caller, and asks. Each may be empty. Thread: the trainer's own.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace tenon {

struct TrainingHooks {
  // A stage begins: `total` units of work, `first` of them done earlier. Ended by the next begin, or end.
  std::function<void(const std::string& what, std::int64_t total, const std::string& unit, std::int64_t first)> begin;
  std::function<void(std::int64_t done, const std::string& detail)> update;
  std::function<void()> end;
  std::function<void(const std::string& line)> note;
  std::function<bool()> stop; // the user wants it to end

  void say_begin(const std::string& what, std::int64_t total, const std::string& unit, std::int64_t first = 0) const {
    if (begin) begin(what, total, unit, first);
  }
  void say_update(std::int64_t done, const std::string& detail = "") const {
    if (update) update(done, detail);
  }
  void say_end() const {
    if (end) end();
  }
  void say(const std::string& line) const {
    if (note) note(line);
  }
  bool stopped() const { return stop && stop(); }
};

} // namespace tenon
