#include "host/cli/interrupt.hpp"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>

#include "host/cli/input_lines.hpp"
#include "registry/base/error.hpp"

using namespace tenon;

namespace {

// The exit status of a child that runs body after the handler is in place. hang_up: what it inherits for that signal.
template <class Body>
int status_of_child(const Body& body, void (*hang_up)(int) = SIG_DFL) {
  const pid_t child = fork();
  if (child == 0) {
    close(STDERR_FILENO);
    signal(SIGHUP, hang_up);
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

TEST_CASE("Ctrl-C ends a wait for input, whether it comes before or meanwhile") {
  int input[2]; // nothing is ever written to it
  REQUIRE(pipe(input) == 0);
  CHECK(status_of_child([&] {
          interrupted();
          raise(SIGINT);
          _exit(wait_for_input(input[0]) ? 1 : 42);
        }) == 42);
  CHECK(status_of_child([&] {
          interrupted();
          const pid_t asker = getpid();
          if (fork() == 0) _exit(kill(asker, SIGINT));
          _exit(InputLines(input[0]).next() ? 1 : 42);
        }) == 42);
  close(input[0]), close(input[1]);
}

TEST_CASE("a terminal that closes asks to stop, and saying so twice changes nothing") {
  CHECK(status_of_child([] {
          interrupted();
          raise(SIGHUP);
          raise(SIGHUP);
          _exit(interrupted() ? 42 : 2);
        }) == 42);
}

TEST_CASE("under nohup a terminal that closes asks for nothing") {
  CHECK(status_of_child(
            [] {
              interrupted();
              raise(SIGHUP);
              _exit(interrupted() ? 2 : 42);
            },
            SIG_IGN) == 42);
}

TEST_CASE("whoever has other work takes the lines that have arrived, and waits for none") {
  int input[2];
  REQUIRE(pipe(input) == 0);
  InputLines lines(input[0]);
  CHECK_FALSE(lines.arrived());
  REQUIRE(write(input[1], "one\ntw", 6) == 6);
  CHECK(lines.arrived() == "one");
  CHECK_FALSE(lines.arrived());
  CHECK_FALSE(lines.ended());
  REQUIRE(write(input[1], "o", 1) == 1);
  close(input[1]);
  CHECK(lines.arrived() == "two");
  CHECK(lines.ended());
  close(input[0]);
}

TEST_CASE("lines of an input come one by one, the last with or without its end") {
  int input[2];
  REQUIRE(pipe(input) == 0);
  const std::string text = "one\n\n" + std::string(10000, 'x') + "\nlast";
  REQUIRE(write(input[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  close(input[1]);
  InputLines lines(input[0]);
  CHECK(lines.next() == "one");
  CHECK(lines.next() == "");
  CHECK(lines.next() == std::string(10000, 'x'));
  CHECK(lines.next() == "last");
  CHECK_FALSE(lines.next());
  close(input[0]);
  CHECK_THROWS_AS(InputLines(input[0]).next(), Error);
}
