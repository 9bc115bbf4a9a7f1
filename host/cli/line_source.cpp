#include "host/cli/line_source.hpp"

#include "registry/base/error.hpp"

#include <poll.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

namespace tenon {

constexpr int kMoment_ms = 200; // short enough for whoever looks for Ctrl-C between two

std::optional<std::string> LineSource::next(bool wait) {
  for (;;) {
    if (const std::size_t end = text_.find('\n'); end != std::string::npos) return take(end);
    if (closed_) return text_.empty() ? std::nullopt : std::optional(take(text_.size()));
    pollfd asked{descriptor_, POLLIN, 0};
    if (::poll(&asked, 1, wait ? kMoment_ms : 0) <= 0) return std::nullopt;
    read_more();
  }
}

std::string LineSource::take(std::size_t length) {
  std::string line = text_.substr(0, length);
  text_.erase(0, std::min(length + 1, text_.size()));
  return line;
}

void LineSource::read_more() {
  std::vector<char> some(std::size_t{1} << 16);
  const ssize_t count = ::read(descriptor_, some.data(), some.size());
  if (count < 0 && errno != EINTR && errno != EAGAIN)
    throw Error(Code::environment, "run", name_ + " cannot be read: " + std::strerror(errno));
  if (count > 0) text_.append(some.data(), static_cast<std::size_t>(count));
  closed_ = count == 0;
}

} // namespace tenon
