// Runs a program as a user would: its own process, both streams kept, its exit status or signal.
#pragma once

#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/scratch.hpp"

namespace tenon {

struct Finished {
  int status = 0; // exit status; 128 + signal where a signal ended it
  std::string out, err;
};

// dropped: root, too, is held to the permissions of files.
enum class Privileges { kept, dropped };

// A running program; its streams go to files in a folder of its own.
class Process {
 public:
  // words[0] is the program. environment adds to the inherited one; an empty value removes the name.
  explicit Process(const std::vector<std::string>& words, const std::map<std::string, std::string>& environment = {},
                   Privileges privileges = Privileges::kept) {
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    const std::string out = path("out"), err = path("err");
    pid_ = fork();
    if (pid_ < 0) throw std::runtime_error("fork failed");
    if (pid_ == 0) {
      for (const auto& [name, value] : environment) {
        value.empty() ? unsetenv(name.c_str()) : setenv(name.c_str(), value.c_str(), 1);
      }
      if (privileges == Privileges::dropped) drop_privileges();
      redirect("/dev/null", O_RDONLY, STDIN_FILENO);
      redirect(out, O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO);
      redirect(err, O_WRONLY | O_CREAT | O_TRUNC, STDERR_FILENO);
      execv(arguments[0], arguments.data());
      _exit(126);
    }
  }
  Process(const Process&) = delete;
  ~Process() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }

  void signal(int number) const { kill(pid_, number); }
  // What it has said on stderr until now.
  std::string said() const { return read("err"); }

  Finished wait() {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = 0;
    return {WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status), read("out"), read("err")};
  }

 private:
  // After this even root's program is told "permission denied", as anybody's would be.
  static void drop_privileges() {
    if (geteuid() != 0) return;
    for (const int power : {CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER}) {
      if (prctl(PR_CAPBSET_DROP, power, 0, 0, 0) != 0) _exit(124);
    }
  }
  static void redirect(const std::string& path, int flags, int to) {
    const int fd = open(path.c_str(), flags, 0600);
    if (fd < 0 || dup2(fd, to) < 0) _exit(125);
  }
  std::string path(const char* name) const { return (scratch_.path() / name).string(); }
  std::string read(const char* name) const {
    std::ostringstream text;
    text << std::ifstream(path(name)).rdbuf();
    return text.str();
  }

  Scratch scratch_;
  pid_t pid_ = 0;
};

inline Finished run_program(const std::vector<std::string>& words,
                            const std::map<std::string, std::string>& environment = {},
                            Privileges privileges = Privileges::kept) {
  return Process(words, environment, privileges).wait();
}

} // namespace tenon
