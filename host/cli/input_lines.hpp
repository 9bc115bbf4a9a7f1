// The lines of an input that somebody may be typing, or sending while others are worked on: Ctrl-C ends the wait for
// the next one. Thread: one.
#pragma once

#include <optional>
#include <string>

namespace tenon {

class InputLines {
 public:
  explicit InputLines(int descriptor) : descriptor_(descriptor) {}

  // The next line without its end; nothing at the end of the input, and after Ctrl-C (interrupted() tells).
  // Errors (all): environment, where it cannot be read.
  std::optional<std::string> next() { return line(true); }
  // The same without waiting: nothing where none has arrived yet, either.
  std::optional<std::string> arrived() { return line(false); }
  // All that comes until the input ends, or Ctrl-C does.
  std::string rest();
  bool ended() const { return closed_ && read_.empty(); } // nothing more will come

 private:
  std::optional<std::string> line(bool waits);
  void read_more();

  int descriptor_;
  std::string read_; // and not yet given
  bool closed_ = false;
};

} // namespace tenon
