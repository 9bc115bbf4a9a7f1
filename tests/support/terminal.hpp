// Runs a program on a terminal of its own, as if somebody sat there: what they type, and everything that is shown.
#pragma once

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace tenon {

class Terminal {
 public:
  // words[0] is the program; environment adds to the inherited one. It has 80 columns.
  Terminal(const std::vector<std::string>& words, const std::map<std::string, std::string>& environment) {
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    winsize size = {24, 80, 0, 0};
    pid_ = forkpty(&master_, nullptr, nullptr, &size);
    if (pid_ < 0) throw std::runtime_error("forkpty failed");
    if (pid_ > 0) return;
    for (const auto& [name, value] : environment) setenv(name.c_str(), value.c_str(), 1);
    execv(arguments[0], arguments.data());
    _exit(126);
  }
  Terminal(const Terminal&) = delete;
  ~Terminal() {
    if (pid_ > 0) kill(pid_, SIGKILL), waitpid(pid_, nullptr, 0);
    close(master_);
  }

  void type(const std::string& text) {
    if (write(master_, text.data(), text.size()) != static_cast<ssize_t>(text.size()))
      throw std::runtime_error("cannot type");
  }
  // Reads on until this text has been shown after what was awaited before.
  void await(const std::string& text) {
    std::size_t at = 0;
    while ((at = shown_.find(text, seen_)) == std::string::npos)
      if (!read_more()) throw std::runtime_error("it ended without \"" + text + "\": " + shown_);
    seen_ = at + text.size();
  }
  // Its exit status; 128 + signal where one ended it.
  int wait() {
    while (read_more()) {
    }
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  const std::string& shown() const { return shown_; }

 private:
  // Someone who waits for ever fails, rather than hangs.
  bool read_more() {
    constexpr int kPatience_ms = 120'000;
    pollfd of = {master_, POLLIN, 0};
    if (::poll(&of, 1, kPatience_ms) <= 0) throw std::runtime_error("nothing more is shown: " + shown_);
    char bytes[4096];
    const ssize_t count = ::read(master_, bytes, sizeof bytes); // EIO: nobody has the other side any more
    if (count > 0) shown_.append(bytes, static_cast<std::size_t>(count));
    return count > 0;
  }

  int master_ = -1;
  pid_t pid_ = 0;
  std::string shown_;
  std::size_t seen_ = 0;
};

} // namespace tenon
