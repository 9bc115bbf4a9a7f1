#include "host/cli/output.hpp"

#include <signal.h>
#include <unistd.h>

#include <boost/json/parse.hpp>
#include <catch2/catch.hpp>

#include "host/cli/progress.hpp"
#include "tests/support/scratch.hpp"

using namespace tenon;

namespace {

// An Output whose streams are files, as behind a pipe.
struct Captured {
  Captured() : results(std::tmpfile()), messages(std::tmpfile()) {}
  ~Captured() { std::fclose(results), std::fclose(messages); }

  static std::string text(std::FILE* file) {
    std::fflush(file);
    std::rewind(file);
    std::string all;
    for (int c; (c = std::fgetc(file)) != EOF;) all += static_cast<char>(c);
    return all;
  }

  std::FILE *results, *messages;
};

const Error kRefusal{Code::incompatible, "TN-P2 platform", "built for 2.10.0, host has 2.11.0", "rebuild it"};

} // namespace

TEST_CASE("an error says who speaks, what was found, and what to do") {
  CHECK(error_text(kRefusal, false, false) ==
        "error: [TN-P2 platform] built for 2.10.0, host has 2.11.0\nremedy: rebuild it\n");
  const Error bare{Code::usage, "cli", "no", ""};
  CHECK(error_text(bare, false, false) == "error: [cli] no\n");
}

TEST_CASE("an error in JSON holds code, unit, message and remedy on one line") {
  const std::string text = error_text(kRefusal, true, true);
  CHECK(text.find('\n') == text.size() - 1);
  const auto value = boost::json::parse(text).at("error");
  CHECK(value.at("code") == "incompatible");
  CHECK(value.at("unit") == "TN-P2 platform");
  CHECK(value.at("message") == "built for 2.10.0, host has 2.11.0");
  CHECK(value.at("remedy") == "rebuild it");
}

TEST_CASE("a table aligns what is seen, also beyond ASCII, and leaves no blanks at line ends") {
  const Table table{{"name", "tokens"}, {{"légal", "7"}, {"hr", "1204"}}, {1}};
  CHECK(table_text(table, false) == "name   tokens\nlégal       7\nhr       1204\n");
  CHECK(table_text(table, true) == "légal\t7\nhr\t1204\n");
}

TEST_CASE("results and messages go to their own streams, without colours into a file") {
  Captured files;
  Flags flags;
  Output out(flags, files.results, files.messages);
  out.line("result");
  out.line(out.paint(Style::bad, "red"));
  out.note("note");
  out.warn("care");
  out.next("tenon list");
  out.error(kRefusal);
  CHECK(Captured::text(files.results) == "result\nred\n");
  CHECK(Captured::text(files.messages) ==
        "note\nwarning: care\nnext: tenon list\n" + error_text(kRefusal, false, false));
}

TEST_CASE("quiet silences notes and progress, not warnings and errors") {
  Captured files;
  Flags flags;
  Output out(flags, files.results, files.messages);
  flags.quiet = true;
  out.note("note");
  out.next("tenon list");
  Progress progress(out, "training", 10, "steps");
  progress.update(5);
  progress.finish();
  out.warn("care");
  CHECK(Captured::text(files.messages) == "warning: care\n");
}

TEST_CASE("a question nobody can answer is answered with no") {
  Captured files;
  Flags flags;
  Output out(flags, files.results, files.messages);
  CHECK_FALSE(out.confirm("Delete it?"));
}

TEST_CASE("progress tells share, rate, time left and detail") {
  ProgressState state{"training legal", "tokens", 500, 2000, 5, 0, "loss 3.21"};
  CHECK(progress_line(state, 0) == "training legal  25%  500/2000 tokens  100 tokens/s  0:15 left  loss 3.21");
  state.done = 2000, state.seconds = 3723;
  CHECK(progress_line(state, 0) == "training legal 100%  2000/2000 tokens  0.54 tokens/s  in 1:02:03  loss 3.21");
}

TEST_CASE("resumed progress takes its rate from this run alone") {
  const ProgressState state{"training", "steps", 110, 200, 10, 100, ""};
  CHECK(progress_line(state, 0) == "training  55%  110/200 steps  1.00 steps/s  1:30 left");
}

TEST_CASE("progress of unknown length has no share, and the bar never outgrows the terminal") {
  CHECK(progress_line({"reading", "files", 7, 0, 0, 0, ""}, 80) == "reading 7 files");
  const ProgressState state{"training", "steps", 50, 100, 10, 0, "a detail that is rather long, longer than the bar"};
  for (const std::size_t width : {20, 40, 79, 119, 200}) CHECK(progress_line(state, width).size() <= width);
  CHECK(progress_line(state, 200).find("[====================>                   ]") != std::string::npos);
}

TEST_CASE("progress into a file ends in one plain line") {
  Captured files;
  Flags flags;
  Output out(flags, files.results, files.messages);
  Progress progress(out, "reading", 3, "files");
  for (int i = 1; i <= 3; ++i) progress.update(i);
  progress.finish();
  const std::string text = Captured::text(files.messages);
  CHECK(text.starts_with("reading 100%  3/3 files"));
  CHECK(text.find('\r') == std::string::npos);
  CHECK(std::count(text.begin(), text.end(), '\n') == 1);
}

TEST_CASE("work on the way to a result leaves its last line in a log, once") {
  Captured files;
  Flags flags;
  Output out(flags, files.results, files.messages);
  Progress progress(out, "preparing", 3, "MB");
  progress.update(3);
  progress.close();
  progress.close();
  const std::string text = Captured::text(files.messages);
  CHECK(text.starts_with("preparing 100%  3/3 MB"));
  CHECK(std::count(text.begin(), text.end(), '\n') == 1);
}

TEST_CASE("results that find no room are the environment's fault, at once or when they leave the buffer") {
  std::FILE* full = std::fopen("/dev/full", "w");
  std::FILE* messages = std::tmpfile();
  REQUIRE(full);
  Flags flags;
  Output out(flags, full, messages);
  try {
    out.stream("a");
    FAIL("the disk is full");
  } catch (const Error& error) {
    CHECK(error.code == Code::environment);
    CHECK_THAT(error.message, Catch::Contains("No space left"));
    CHECK_FALSE(error.remedy.empty());
  }
  std::fclose(full);
  full = std::fopen("/dev/full", "w");
  out = Output(flags, full, messages);
  out.line("in the buffer");
  CHECK_THROWS_AS(out.flush(), Error);
  std::fclose(full);
  full = std::fopen("/dev/full", "w");
  out = Output(flags, full, messages);
  CHECK_THROWS_AS(out.json(json::string(std::size_t{1} << 20, 'x')), Error);
  std::fclose(full), std::fclose(messages);
}

TEST_CASE("results that nobody reads any more end quietly, and messages that nobody reads change nothing") {
  int gone[2];
  REQUIRE(pipe(gone) == 0);
  close(gone[0]);
  const auto before = signal(SIGPIPE, SIG_IGN);
  std::FILE* closed = fdopen(gone[1], "w");
  Flags flags;
  Output out(flags, closed, closed);
  CHECK_THROWS_AS(out.stream("a"), OutputClosed);
  CHECK_NOTHROW(out.note("a"));
  CHECK_NOTHROW(out.warn(std::string(std::size_t{1} << 20, 'x')));
  std::fclose(closed);
  signal(SIGPIPE, before);
}
