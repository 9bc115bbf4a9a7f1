// How far a long piece of work is: one redrawn bar on a terminal, plain lines every few seconds otherwise, nothing with
// --quiet. Always on stderr. update() is cheap: it draws at most ten times a second.
#pragma once

#include "host/cli/output.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace tenon {

struct ProgressState {
  std::string what; // "training legal"
  std::string unit; // "tokens"
  std::int64_t done = 0;
  std::int64_t total = 0; // 0: unknown
  double seconds = 0;     // since the start
  std::int64_t first = 0; // where this run began, when it resumes
  std::string detail;     // "loss 3.21"
};

// "training legal [=====>    ] 52%  1024/1969 tokens  218 tokens/s  4:20 left  loss 3.21"; the bar only if
// width_columns leaves room for it, and never longer than width_columns (0: no bar, any length).
std::string progress_line(const ProgressState& state, std::size_t width_columns);
// "0:07", "4:20", "1:02:33".
std::string duration_text(double seconds);

class Progress {
 public:
  // total 0 if unknown; first > 0 when earlier work is resumed, so that the rate is of this run.
  Progress(Output& out, std::string what, std::int64_t total, std::string unit, std::int64_t first = 0);
  Progress(const Progress&) = delete;
  ~Progress(); // leaves the terminal on a fresh line

  void update(std::int64_t done, std::string_view detail = "");
  // Draws the last state for good, ends the line. Calling it is optional; without it the bar is wiped.
  void finish(std::string_view detail = "");
  // As finish, for work that is only on the way to a result: a log keeps its last line, a terminal nothing.
  void close();

 private:
  using Clock = std::chrono::steady_clock;
  void draw(bool last);

  Output* out_;
  ProgressState state_;
  Clock::time_point start_, drawn_;
  bool terminal_, finished_ = false, anything_drawn_ = false;
};

} // namespace tenon
