// What the program says: results on stdout, everything else on stderr. Colours only where somebody looks at them.
//
// A result that does not arrive ends the command: line, stream, table, json and flush throw Error{environment}, or
// OutputClosed where the reader went away. Messages that do not arrive are nobody's loss.
//
// With --json a command prints one JSON value on stdout instead of its text, and errors are JSON on stderr.
// Thread: one thread at a time; Progress and the token stream share it.
#pragma once

#include "registry/base/error.hpp"
#include "registry/base/json.hpp"

#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

// The flags every command understands, wherever they stand on the line.
struct Flags {
  bool json = false;  // one JSON value on stdout
  bool plain = false; // tables as tab-separated lines, no bars: for scripts
  bool quiet = false; // no notes and no progress; errors and results remain
  bool no_color = false;
  bool no_input = false; // never ask; fail instead
};

enum class Style { plain, bold, dim, good, bad, warn };

// Rows of cells under a header. Numbers look best at the right: name those columns.
struct Table {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
  std::vector<std::size_t> right_columns = {};
};

// The table as text, columns aligned by what is seen (UTF-8 aware); as tab-separated lines when plain.
std::string table_text(const Table& table, bool plain);

// "error: [unit] message" and a "remedy:" line; or {"error":{code,unit,message,remedy}} on one line.
std::string error_text(const Error& error, bool json, bool color);

// "a, b, c".
std::string joined(const std::vector<std::string>& parts, std::string_view between);

// Who read the results wants no more of them: no error, and nothing is said. The status is that of a broken pipe.
struct OutputClosed : std::exception {
  static constexpr int kExit = 141;
  const char* what() const noexcept override { return "the results are no longer read"; }
};

class Output {
 public:
  // Borrows flags (they change while the line is parsed) and both streams.
  explicit Output(const Flags& flags, std::FILE* results = stdout, std::FILE* messages = stderr);

  // Results.
  void line(std::string_view text);   // with a newline
  void stream(std::string_view text); // as it is, flushed: tokens as they come
  void table(const Table& table);
  void json(const json::value& value);
  void flush(); // what was given so far has arrived

  // Messages. note is silenced by --quiet; warn is not.
  void note(std::string_view text);
  void warn(std::string_view text);
  void next(std::string_view command); // what to run next
  void error(const Error& error);

  // Text in colour if the result stream shows colours, else the text itself.
  std::string paint(Style style, std::string_view text) const;
  // One of a dozen well-told-apart colours, for experts and the like; 0 is the terminal's own.
  std::string paint_index(std::size_t index, std::string_view text) const;

  bool colors() const;         // for stdout
  bool messages_color() const; // for stderr
  bool messages_on_terminal() const;
  const Flags& flags() const { return *flags_; }
  std::FILE* messages() const { return messages_; }

  // Asks on the terminal; no terminal, or --no-input, means no.
  bool confirm(std::string_view question);

 private:
  void write(std::string_view text);

  const Flags* flags_;
  std::FILE *results_, *messages_;
  bool results_tty_, messages_tty_, environment_allows_color_;
};

} // namespace tenon
