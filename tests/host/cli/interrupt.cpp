#include "host/cli/interrupt.hpp"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

using namespace tenon;

namespace {

// The exit status of a child that runs body after the handler is in place.
template <class Body>
int status_of_child(const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    close(STDERR_FILENO);
    install_interrupt_handler();
    body();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

} // namespace

TEST_CASE("Ctrl-C ends a command that does not poll at once, with 130") {
  CHECK(status_of_child([] { raise(SIGINT); }) == 130);
}

TEST_CASE("the first Ctrl-C asks a polling command to stop, and it may finish its work") {
  CHECK(status_of_child([] {
          if (interrupted()) _exit(1);
          raise(SIGINT);
          _exit(interrupted() ? 42 : 2);
        }) == 42);
}

TEST_CASE("the second Ctrl-C ends a polling command at once") {
  CHECK(status_of_child([] {
          interrupted();
          raise(SIGINT);
          raise(SIGINT);
        }) == 130);
}
