// Lines of a file descriptor as they arrive, for whoever has other work until they do. Thread: one.
#pragma once

#include <optional>
#include <string>

namespace tenon {

class LineSource {
 public:
  // Borrows the descriptor. name stands for it in messages.
  LineSource(int descriptor, std::string name) : descriptor_(descriptor), name_(std::move(name)) {}

  // The next line without its end, if one has arrived; the last needs no end. wait: a moment, where none has.
  // Errors: environment.
  std::optional<std::string> next(bool wait);
  bool ended() const { return closed_ && text_.empty(); } // nothing more will come

 private:
  std::string take(std::size_t length);
  void read_more();

  int descriptor_;
  std::string name_, text_;
  bool closed_ = false;
};

} // namespace tenon
