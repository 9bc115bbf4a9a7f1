#include "host/cli/output.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/json/serialize.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <iostream>

namespace tenon {
namespace {

const char* sequence(Style style) {
  switch (style) {
    case Style::plain: return "";
    case Style::bold: return "\033[1m";
    case Style::dim: return "\033[2m";
    case Style::good: return "\033[32m";
    case Style::bad: return "\033[1;31m";
    case Style::warn: return "\033[33m";
  }
  return "";
}

constexpr const char* kReset = "\033[0m";

std::string painted(bool color, std::string_view start, std::string_view text) {
  if (!color || start.empty() || text.empty()) return std::string(text);
  return fmt::format("{}{}{}", start, text, kReset);
}

bool environment_allows_color() {
  const char* no_color = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  return !(no_color && *no_color) && !(terminal && std::string_view(terminal) == "dumb");
}

// What a terminal shows: code points, near enough for names and numbers.
std::size_t seen_width(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char byte) { return (byte & 0xC0) != 0x80; });
}

void append_row(std::string& text, const std::vector<std::string>& cells, const std::vector<std::size_t>& widths,
                const std::vector<std::size_t>& right_columns) {
  std::string row;
  for (std::size_t i = 0; i < cells.size() && i < widths.size(); ++i) {
    const std::string space(widths[i] - seen_width(cells[i]), ' ');
    const bool right = std::find(right_columns.begin(), right_columns.end(), i) != right_columns.end();
    if (i > 0) row += "  ";
    row += right ? space + cells[i] : cells[i] + space;
  }
  row.erase(row.find_last_not_of(' ') + 1);
  text += row + "\n";
}

void say(std::FILE* messages, std::string_view text) { (void)std::fwrite(text.data(), 1, text.size(), messages); }

[[noreturn]] void not_written() {
  const int why = errno;
  if (why == EPIPE) throw OutputClosed();
  throw Error(Code::environment, "output", std::string("the results cannot be written: ") + std::strerror(why),
              "make room there, or write them elsewhere; what was written is not whole");
}

} // namespace

std::string table_text(const Table& table, bool plain) {
  std::string text;
  if (plain) {
    for (const auto& row : table.rows) text += joined(row, "\t") + "\n";
    return text;
  }
  std::vector<std::size_t> widths(table.header.size(), 0);
  const auto widen = [&](const std::vector<std::string>& cells) {
    for (std::size_t i = 0; i < cells.size() && i < widths.size(); ++i) {
      widths[i] = std::max(widths[i], seen_width(cells[i]));
    }
  };
  widen(table.header);
  for (const auto& row : table.rows) widen(row);
  append_row(text, table.header, widths, table.right_columns);
  for (const auto& row : table.rows) append_row(text, row, widths, table.right_columns);
  return text;
}

std::string joined(const std::vector<std::string>& parts, std::string_view between) {
  std::string text;
  for (const std::string& part : parts) {
    if (&part != &parts.front()) text += between;
    text += part;
  }
  return text;
}

std::string error_text(const Error& error, bool json, bool color) {
  if (json) {
    const json::object fields = {
        {"code", code_name(error.code)}, {"unit", error.unit}, {"message", error.message}, {"remedy", error.remedy}};
    return json::serialize(json::object{{"error", fields}}) + "\n";
  }
  std::string text = painted(color, sequence(Style::bad), "error:");
  text += error.unit.empty() ? " " : " [" + error.unit + "] ";
  text += error.message + "\n";
  if (!error.remedy.empty()) text += painted(color, sequence(Style::bold), "remedy:") + " " + error.remedy + "\n";
  return text;
}

Output::Output(const Flags& flags, std::FILE* results, std::FILE* messages)
    : flags_(&flags),
      results_(results),
      messages_(messages),
      results_tty_(isatty(fileno(results)) != 0),
      messages_tty_(isatty(fileno(messages)) != 0),
      environment_allows_color_(environment_allows_color()) {}

void Output::write(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), results_) != text.size()) not_written();
}

void Output::flush() {
  if (std::fflush(results_) != 0) not_written();
}

void Output::line(std::string_view text) { write(std::string(text) + "\n"); }

void Output::stream(std::string_view text) {
  write(text);
  flush();
}

void Output::table(const Table& table) {
  std::string text = table_text(table, flags_->plain);
  if (const auto end = text.find('\n'); colors() && !flags_->plain && end != std::string::npos) {
    text = paint(Style::bold, text.substr(0, end)) + text.substr(end);
  }
  write(text);
}

void Output::json(const json::value& value) { write(pretty_json(value)); }

void Output::note(std::string_view text) {
  if (!flags_->quiet) say(messages_, fmt::format("{}\n", text));
}

void Output::warn(std::string_view text) {
  say(messages_, fmt::format("{} {}\n", painted(messages_color(), sequence(Style::warn), "warning:"), text));
}

void Output::next(std::string_view command) {
  note(fmt::format("{} {}", painted(messages_color(), sequence(Style::dim), "next:"), command));
}

void Output::error(const Error& error) {
  std::fflush(results_);
  say(messages_, error_text(error, flags_->json, messages_color()));
}

std::string Output::paint(Style style, std::string_view text) const { return painted(colors(), sequence(style), text); }

std::string Output::paint_index(std::size_t index, std::string_view text) const {
  constexpr std::array<const char*, 12> kColors = {
      "",         "\033[36m",       "\033[33m",       "\033[35m",       "\033[32m",       "\033[34m",
      "\033[31m", "\033[38;5;208m", "\033[38;5;141m", "\033[38;5;107m", "\033[38;5;173m", "\033[38;5;67m"};
  // After the first round the default colour is left out: it means slot 0 alone.
  const std::size_t color = index == 0 ? 0 : 1 + (index - 1) % (kColors.size() - 1);
  return painted(colors(), kColors[color], text);
}

bool Output::colors() const { return results_tty_ && environment_allows_color_ && !flags_->no_color && !flags_->json; }
bool Output::messages_color() const { return messages_tty_ && environment_allows_color_ && !flags_->no_color; }
bool Output::messages_on_terminal() const { return messages_tty_; }

bool Output::confirm(std::string_view question) {
  if (flags_->no_input || !messages_tty_ || isatty(STDIN_FILENO) == 0) return false;
  say(messages_, fmt::format("{} [y/N] ", question));
  std::string answer;
  std::getline(std::cin, answer);
  return answer == "y" || answer == "Y" || answer == "yes";
}

} // namespace tenon
