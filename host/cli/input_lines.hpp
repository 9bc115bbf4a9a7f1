// The lines of an input that somebody may be typing: Ctrl-C ends the wait for the next one.
// Thread: one.
#pragma once

#include <optional>
#include <string>

namespace tenon {

class InputLines {
 public:
  explicit InputLines(int descriptor) : descriptor_(descriptor) {}

  // The next line without its end; nothing at the end of the input, and after Ctrl-C (interrupted() tells).
  // Errors: environment, where it cannot be read.
  std::optional<std::string> next();

 private:
  int descriptor_;
  std::string read_; // and not yet given
  bool ended_ = false;
};

} // namespace tenon
