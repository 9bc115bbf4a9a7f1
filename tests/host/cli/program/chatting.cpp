// chat as somebody at a terminal uses it: however it ends, what was said is kept.
#include "registry/base/files.hpp"
#include "tests/host/cli/program/program.hpp"
#include "tests/support/terminal.hpp"

using namespace tenon;
using Catch::Matchers::Contains;

namespace {

std::map<std::string, std::string> environment(const World& world) {
  return {{"PROGRAM", TENON_PROGRAM}, {"TENON_HOME", world.home().string()}, {"NO_COLOR", "1"}};
}

// A conversation whose lines are piped.
Finished talk(const World& world, const std::string& lines, const std::string& more) {
  return run_program(
      {"/bin/sh", "-c",
       "printf '" + lines + "' | \"$PROGRAM\" chat toy --template plain --greedy --max-tokens 4 " + more},
      environment(world));
}

std::string saved_in(const World& world, const char* name) { return (world.scratch.path() / name).string(); }

// What the saved conversation holds, before "Go on" and its answer.
json::array kept(const World& world, const std::string& file) {
  json::array all = json_of(talk(world, "Go on\\n", "--json --quiet --resume " + file)).at("messages").as_array();
  REQUIRE(all.size() >= 2);
  all.resize(all.size() - 2);
  return all;
}

} // namespace

TEST_CASE("Ctrl-C at the prompt ends a chat at once with 130, and the conversation is saved") {
  const World& world = world_with_model();
  const std::string file = saved_in(world, "at-prompt");
  Terminal terminal({TENON_PROGRAM, "chat", "toy", "--template", "plain", "--max-tokens", "4", "--save", file},
                    environment(world));
  terminal.await("> ");
  terminal.type("Hello\n");
  terminal.await("Hello\r\n"); // its echo
  terminal.await("> ");
  terminal.type("\x03");
  CHECK(terminal.wait() == 130);
  CHECK_THAT(terminal.shown(), Contains("saved"));
  const json::array messages = kept(world, file);
  REQUIRE(messages.size() == 2);
  CHECK(messages[0].at("content") == "Hello");
}

TEST_CASE("a chat whose output finds no room, or no reader, saves what was said before") {
  const World& world = world_with_model();
  const std::string first = saved_in(world, "first"), full = saved_in(world, "full"),
                    closed = saved_in(world, "closed");
  REQUIRE(talk(world, "Hello\\n", "--save " + first).status == 0);
  const Finished no_room = talk(world, "Why?\\n", "--resume " + first + " --save " + full + " > /dev/full");
  CHECK(no_room.status == 1);
  CHECK_THAT(no_room.err, Contains("No space left") && Contains("saved"));
  CHECK(kept(world, full).size() == 2); // the message that got no answer is no part of it
  const Finished no_reader =
      run_program({"/bin/sh", "-c",
                   "mkfifo \"$PIPE\" && exec 3<>\"$PIPE\" 4>\"$PIPE\" 3<&- && printf 'Why?\\n' | \"$PROGRAM\" chat toy "
                   "--template plain --resume \"$FIRST\" --save \"$CLOSED\" >&4"},
                  [&] {
                    auto names = environment(world);
                    names.insert({{"PIPE", saved_in(world, "pipe")}, {"FIRST", first}, {"CLOSED", closed}});
                    return names;
                  }());
  CHECK(no_reader.status == 141);
  CHECK_THAT(no_reader.err, !Contains("error"));
  CHECK(kept(world, closed).size() == 2);
}

TEST_CASE("a message that the context cannot hold is refused by itself, and the chat goes on with every turn") {
  const World& world = world_with_model();
  const std::string file = saved_in(world, "long"), text(200, 'x');
  const Finished told = talk(world, "Hello\\n" + text + "\\nWhy?\\n", "--context 100 --save " + file);
  INFO(told.err);
  CHECK(told.status == 0);
  CHECK_THAT(told.err, Contains("the context holds 100") && Contains("--context"));
  CHECK_THAT(told.err, !Contains("forgotten"));
  const json::array messages = kept(world, file);
  REQUIRE(messages.size() == 4);
  CHECK(messages[0].at("content") == "Hello");
  CHECK(messages[2].at("content") == "Why?");
}

TEST_CASE("chat refuses to resume what tenon run saved, and says how to go on from it") {
  const World& world = world_with_model();
  const std::string file = saved_in(world, "by-run");
  REQUIRE(world.call({"run", "toy", "abc", "--max-tokens", "2", "--save-session", file}).status == 0);
  const Finished refused = talk(world, "Hello\\n", "--resume " + file);
  CHECK(refused.status == 4);
  CHECK_THAT(refused.err, Contains("need a conversation") && Contains("tenon run toy --session " + file));
}

TEST_CASE("chat takes lines that were typed elsewhere: with carriage returns, and in other bytes than UTF-8") {
  const World& world = world_with_model();
  const std::string file = saved_in(world, "latin");
  REQUIRE(talk(world, "caf\\351\\r\\n/exit\\r\\nmore\\n", "--save " + file).status == 0);
  const json::array messages = kept(world, file);
  REQUIRE(messages.size() == 2);
  CHECK(messages[0].at("content") == "caf\ufffd");
}

TEST_CASE("a chat in which nothing was said leaves the file of an earlier one as it is") {
  const World& world = world_with_model();
  const std::string file = saved_in(world, "earlier");
  REQUIRE(talk(world, "Hello\\n", "--save " + file).status == 0);
  const std::string before = read_file(file);
  CHECK(talk(world, "/exit\\n", "--save " + file).status == 0);
  CHECK(read_file(file) == before);
}

TEST_CASE("where a session is to be saved is looked at before anything is loaded, and links are written through") {
  const World& world = world_with_model();
  const std::string folder = saved_in(world, "places");
  REQUIRE(run_program({"/bin/sh", "-c",
                       "mkdir \"$F\" && mkfifo \"$F/pipe\" && echo dear > \"$F/letter\" && ln -s real \"$F/link\""},
                      {{"F", folder}})
              .status == 0);
  const auto run = [&](const std::string& to) {
    return world.call({"run", "toy", "abc", "--max-tokens", "2", "--save-session", to});
  };
  for (const auto& [to, problem] : {std::pair{"/pipe", "no regular file"},
                                    {"/letter", "no session"},
                                    {"/nobody/x", "there is no folder"},
                                    {"", "no regular file"}}) {
    CAPTURE(to);
    const Finished refused = run(folder + to);
    CHECK((refused.status != 0 && refused.out.empty()));
    CHECK_THAT(refused.err, Contains(problem) && Contains("remedy"));
  }
  CHECK(read_file(folder + "/letter") == "dear\n");
  REQUIRE(run(folder + "/link").status == 0);
  CHECK(fs::is_symlink(folder + "/link"));
  CHECK(world.call({"run", "toy", "--session", folder + "/real", "--max-tokens", "2"}).status == 0);
}

TEST_CASE("without standard streams input is at its end, and what cannot be written is an error") {
  const World& world = world_with_model();
  const auto with = [&](const std::string& line) { return run_program({"/bin/sh", "-c", line}, environment(world)); };
  CHECK(with("\"$PROGRAM\" chat toy --template plain <&-").status == 0);
  CHECK(with("\"$PROGRAM\" list >&- <&-").status == 1);
}
