#include "host/cli/progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

namespace tenon {
namespace {

constexpr double kRedrawSeconds = 0.1;
constexpr double kPlainLineSeconds = 5;
constexpr std::size_t kSmallestBar = 10, kLargestBar = 40;

std::size_t terminal_columns() {
  winsize size = {};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return 80;
}

std::string rate_text(double per_second, const std::string& unit) {
  if (per_second >= 100 || per_second == 0) return fmt::format("{:.0f} {}/s", per_second, unit);
  return fmt::format("{:.{}f} {}/s", per_second, per_second >= 10 ? 1 : 2, unit);
}

std::string facts_text(const ProgressState& state) {
  std::string text;
  if (state.total > 0) {
    text = fmt::format("{:3.0f}%  {}/{} {}", 100.0 * state.done / state.total, state.done, state.total, state.unit);
  } else {
    text = fmt::format("{} {}", state.done, state.unit);
  }
  const auto here = state.done - state.first;
  if (state.seconds > 0 && here > 0) {
    const double rate = here / state.seconds;
    text += "  " + rate_text(rate, state.unit);
    const bool more = state.total > state.done;
    if (more) text += "  " + duration_text((state.total - state.done) / rate) + " left";
    if (state.total > 0 && !more) text += "  in " + duration_text(state.seconds);
  }
  if (!state.detail.empty()) text += "  " + state.detail;
  return text;
}

} // namespace

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e8) return "?";
  const auto whole = static_cast<std::int64_t>(std::llround(seconds));
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

std::string progress_line(const ProgressState& state, std::size_t width_columns) {
  const std::string facts = facts_text(state);
  const std::size_t used = state.what.size() + facts.size() + 4; // the brackets and two blanks
  std::string bar;
  if (state.total > 0 && width_columns >= used + kSmallestBar) {
    const std::size_t width = std::min(width_columns - used, kLargestBar);
    const double share = std::clamp(static_cast<double>(state.done) / state.total, 0.0, 1.0);
    const auto full = static_cast<std::size_t>(share * width);
    bar = "[" + std::string(full, '=') + (full < width ? ">" : "") +
          std::string(full < width ? width - full - 1 : 0, ' ') + "] ";
  }
  std::string line = state.what + " " + bar + facts;
  if (width_columns > 0 && line.size() > width_columns) line.resize(width_columns);
  return line;
}

Progress::Progress(Output& out, std::string what, std::int64_t total, std::string unit, std::int64_t first)
    : out_(&out), start_(Clock::now()), drawn_(start_), terminal_(out.messages_on_terminal() && !out.flags().plain) {
  state_.what = std::move(what);
  state_.unit = std::move(unit);
  state_.total = total;
  state_.done = state_.first = first;
}

void Progress::close() {
  if (finished_ || terminal_) return;
  draw(true);
  finished_ = true;
}

Progress::~Progress() {
  if (!finished_ && anything_drawn_ && terminal_) std::fputs("\r\033[K", out_->messages());
}

void Progress::update(std::int64_t done, std::string_view detail) {
  state_.done = done;
  if (!detail.empty()) state_.detail = detail;
  const std::chrono::duration<double> since = Clock::now() - drawn_;
  if (since.count() >= (terminal_ ? kRedrawSeconds : kPlainLineSeconds)) draw(false);
}

void Progress::finish(std::string_view detail) {
  if (finished_) return;
  if (!detail.empty()) state_.detail = detail;
  draw(true);
  finished_ = true;
}

void Progress::draw(bool last) {
  if (out_->flags().quiet) return;
  drawn_ = Clock::now();
  anything_drawn_ = true;
  state_.seconds = std::chrono::duration<double>(drawn_ - start_).count();
  const std::string text =
      terminal_ ? fmt::format("\r{}\033[K{}", progress_line(state_, terminal_columns() - 1), last ? "\n" : "")
                : progress_line(state_, 0) + "\n";
  std::fputs(text.c_str(), out_->messages()); // what does not arrive is nobody's loss
  std::fflush(out_->messages());
}

} // namespace tenon
