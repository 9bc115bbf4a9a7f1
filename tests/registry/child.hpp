// Runs a piece of a test in a process of its own: to kill it, to take its privileges, to run several at once.
#pragma once

#include "registry/base/error.hpp"

#include <csignal>
#include <cstdio>
#include <functional>

#include <sys/wait.h>
#include <unistd.h>

namespace tenon::fixtures {

inline constexpr int kKilled = 1000;

// The work's own status, 100 + the code of an Error it threw, 99 for anything else thrown.
inline pid_t start_child(const std::function<int()>& work) {
  std::fflush(nullptr);
  const pid_t pid = ::fork();
  if (pid != 0) return pid;
  int status = 99;
  try {
    status = work();
  } catch (const Error& error) {
    status = 100 + static_cast<int>(error.code);
  } catch (...) {
  }
  ::_exit(status);
}

inline int wait_for(pid_t pid) {
  int status = 0;
  if (::waitpid(pid, &status, 0) != pid) return -1;
  if (WIFSIGNALED(status)) return kKilled + WTERMSIG(status);
  return WEXITSTATUS(status);
}

inline int in_child(const std::function<int()>& work) { return wait_for(start_child(work)); }

inline int status_of(Code code) { return 100 + static_cast<int>(code); }

} // namespace tenon::fixtures
