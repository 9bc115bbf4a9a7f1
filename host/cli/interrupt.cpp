#include "host/cli/interrupt.hpp"

#include "registry/base/error.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>

namespace tenon {
namespace {

std::atomic<bool> asked{false};
std::atomic<bool> polled{false};  // somebody looks at the flag, so waiting for them is worth it
std::atomic<bool> waiting{false}; // no step is under way
int wake[2] = {-1, -1};           // a pipe: any thread may take the signal, and one waits for input

constexpr int kExitInterrupted = 130;

void say(std::string_view text) {
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
}

// Only async-signal-safe calls in here. A terminal that closes may say so twice, and nobody pressed anything.
void on_signal(int number) {
  const int kept = errno;
  if (!polled.load(std::memory_order_relaxed) || (asked.exchange(true) && number != SIGHUP)) _exit(kExitInterrupted);
  [[maybe_unused]] const auto written = ::write(wake[1], "!", 1);
  say(waiting.load(std::memory_order_relaxed) ? "\n"
                                              : "\nstopping after this step; press Ctrl-C again to stop at once\n");
  errno = kept;
}

struct Waiting {
  Waiting() { waiting.store(true, std::memory_order_relaxed); }
  ~Waiting() { waiting.store(false, std::memory_order_relaxed); }
};

} // namespace

void install_interrupt_handler() {
  if (wake[0] < 0 && ::pipe2(wake, O_CLOEXEC | O_NONBLOCK) != 0) wake[0] = wake[1] = -1;
  struct sigaction action = {}, before = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGHUP, nullptr, &before);
  if (before.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr); // nohup
}

bool interrupted() noexcept {
  if (!polled.load(std::memory_order_relaxed)) polled.store(true, std::memory_order_relaxed);
  return asked.load(std::memory_order_relaxed);
}

bool wait_for_input(int descriptor, bool waits) {
  const Waiting here;
  for (;;) {
    if (interrupted()) return false;
    pollfd of[] = {{descriptor, POLLIN, 0}, {wake[0], POLLIN, 0}}; // a negative one is left out
    if (::poll(of, 2, waits ? -1 : 0) < 0 && errno != EINTR)
      throw Error(Code::environment, "input", std::string("cannot wait for it: ") + std::strerror(errno), "");
    if (interrupted()) return false;
    if (of[0].revents != 0) return true;
    if (!waits) return false;
  }
}

} // namespace tenon
