#include "host/cli/input_lines.hpp"

#include "host/cli/interrupt.hpp"
#include "registry/base/error.hpp"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace tenon {

std::optional<std::string> InputLines::line(bool waits) {
  for (std::size_t seen = 0;;) {
    if (const std::size_t end = read_.find('\n', seen); end != std::string::npos) {
      std::string line = read_.substr(0, end);
      read_.erase(0, end + 1);
      return line;
    }
    seen = read_.size();
    if (closed_) break;
    if (!wait_for_input(descriptor_, waits)) return std::nullopt;
    read_more();
  }
  if (read_.empty()) return std::nullopt;
  return std::exchange(read_, "");
}

std::string InputLines::rest() {
  while (!closed_ && wait_for_input(descriptor_, true)) read_more();
  return std::exchange(read_, "");
}

void InputLines::read_more() {
  char bytes[std::size_t{1} << 16];
  const ssize_t count = ::read(descriptor_, bytes, sizeof bytes);
  if (count < 0 && errno != EINTR && errno != EAGAIN)
    throw Error(Code::environment, "input", std::string("cannot read it: ") + std::strerror(errno),
                "give the command an input that can be read");
  if (count > 0) read_.append(bytes, static_cast<std::size_t>(count));
  closed_ = count == 0;
}

} // namespace tenon
