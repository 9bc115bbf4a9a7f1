#include "host/cli/interrupt.hpp"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <string_view>

namespace tenon {
namespace {

std::atomic<bool> asked{false};
std::atomic<bool> polled{false}; // somebody looks at the flag, so waiting for them is worth it

constexpr int kExitInterrupted = 130;

void say(std::string_view text) {
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size());
}

// Only async-signal-safe calls in here.
void on_signal(int) {
  if (!polled.load(std::memory_order_relaxed) || asked.exchange(true)) _exit(kExitInterrupted);
  say("\nstopping after this step; press Ctrl-C again to stop at once\n");
}

} // namespace

void install_interrupt_handler() {
  struct sigaction action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() noexcept {
  if (!polled.load(std::memory_order_relaxed)) polled.store(true, std::memory_order_relaxed);
  return asked.load(std::memory_order_relaxed);
}

} // namespace tenon
