// run --batch and saved sessions as a user calls them, on a random model.
#include "host/formats/safetensors.hpp"
#include "registry/base/files.hpp"
#include "tests/host/cli/program/program.hpp"

using namespace tenon;
using Catch::Matchers::Contains;

namespace {

// A file of these lines.
std::string lines_file(const World& world, const std::string& name, const std::string& lines) {
  const fs::path path = world.scratch.path() / name;
  write_file(path, lines);
  return path.string();
}

std::map<std::string, json::object> answers(const Finished& finished) {
  std::map<std::string, json::object> out;
  std::istringstream lines(finished.out);
  for (std::string line; std::getline(lines, line);) {
    json::object answer = parse_json(line, "stdout").as_object();
    const json::value& id = answer.at("id");
    out[id.is_string() ? std::string(id.as_string()) : "?"] = answer;
  }
  return out;
}

} // namespace

TEST_CASE("run --batch answers every line as run does, with shares of the experts and speed") {
  const World& world = world_with_composition();
  const std::string file = lines_file(world, "good.jsonl",
                                      "{\"id\": \"a\", \"prompt\": \"prose number\", \"max_tokens\": 8}\n"
                                      "{\"id\": \"b\", \"prompt\": \"numbers\", \"temperature\": 1, \"seed\": 3}\n"
                                      "{\"id\": \"c\", \"prompt\": \"numbers\", \"experts\": []}\n");
  const Finished finished =
      world.call({"run", "bot", "--batch", file, "--max-tokens", "5", "--compute", "bf16", "--max-sequences", "2"});
  INFO(finished.err);
  REQUIRE(finished.status == 0);
  const auto found = answers(finished);
  REQUIRE(found.size() == 3);
  const auto alone = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {"run", "bot"});
    words.insert(words.end(), {"--compute", "bf16", "--json"});
    return json_of(world.call(words));
  };
  CHECK(found.at("a").at("tokens") == alone({"prose number", "--max-tokens", "8"}).at("tokens"));
  CHECK(found.at("b").at("text") ==
        alone({"numbers", "--max-tokens", "5", "--temperature", "1", "--seed", "3"}).at("text"));
  CHECK(found.at("c").at("shares").at("legal").at("tokens") == 0);
  CHECK(found.at("a").at("finish") == "max-tokens");
  CHECK(found.at("a").at("masked") == json::array()); // nobody was at fault
  CHECK(found.at("a").at("speed").as_object().contains("tokens_per_second"));
  CHECK_THAT(finished.err, Contains("3 requests") && Contains("tokens/s"));
}

TEST_CASE("run --batch refuses a bad line by its number before anything runs, or answers it with --keep-going") {
  const World& world = world_with_model();
  const std::string file = lines_file(world, "bad.jsonl",
                                      "{\"id\": \"a\", \"prompt\": \"abc\"}\n{\"id\": \"b\", \"promt\": \"abc\"}\n"
                                      "{\"id\": \"c\", \"prompt\": \"abc\", \"experts\": [\"nobody\"]}\n");
  const Finished refused = world.call({"run", "toy", "--batch", file, "--max-tokens", "3"});
  CHECK(refused.status == 2);
  CHECK(refused.out.empty());
  CHECK_THAT(refused.err, Contains("bad.jsonl:2") && Contains("promt"));
  const Finished going = world.call({"run", "toy", "--batch", file, "--max-tokens", "3", "--keep-going"});
  CHECK(going.status == 2);
  const auto found = answers(going);
  CHECK(found.at("a").at("tokens").as_array().size() == 3);
  CHECK_THAT(std::string(found.at("c").at("error").at("message").as_string()),
             Contains("bad.jsonl:3: found the expert"));
  CHECK(found.at("b").at("line") == 2);
}

TEST_CASE("run --batch - answers a line that arrives before the next is written, and ends at a bad one") {
  const World& world = world_with_model();
  const auto shell = [&](const std::string& script) {
    return run_program({"/bin/bash", "-c",
                        "cd \"$(mktemp -d -p \"$FOLDER\")\" && mkfifo asked answered; trap '' PIPE\n"
                        "timeout 100 \"$PROGRAM\" run toy --batch - --max-tokens 3 <asked >answered &\n"
                        "exec 3>asked 4<answered\n" +
                            script + "\nexec 3>&-; cat <&4; wait $!"},
                       {{"PROGRAM", TENON_PROGRAM},
                        {"TENON_HOME", world.home().string()},
                        {"FOLDER", world.scratch.path().string()},
                        {"NO_COLOR", "1"}});
  };
  const std::string ask_and_read = R"(echo '{"id": "a", "prompt": "abc"}' >&3; read -r one <&4; echo "$one")";
  const Finished good = shell(ask_and_read + R"(; printf '{"id": "b", "prompt": "abcd"}' >&3)");
  INFO(good.err);
  CHECK(good.status == 0);
  CHECK(answers(good).size() == 2);
  const Finished bad = shell(ask_and_read + R"(; printf '{"promt": "abc"}\n{"id": "c", "prompt": "abc"}\n' >&3)");
  CHECK(bad.status == 2);
  const auto found = answers(bad);
  CHECK(found.size() == 2);
  CHECK(found.at("a").at("tokens").as_array().size() == 3);
  CHECK(found.at("2").at("line") == 2);
}

TEST_CASE("run --batch refuses a budget that cannot hold a request, and says which would") {
  const World& world = world_with_model();
  const std::string file = lines_file(world, "one.jsonl", "{\"prompt\": \"abc\"}\n");
  const Finished refused = world.call({"run", "toy", "--batch", file, "--budget", "1k"});
  CHECK(refused.status == 2);
  CHECK_THAT(refused.err, Contains("one.jsonl:1") && Contains("--budget"));
  CHECK(world.call({"run", "toy", "--batch", file, "--budget", "100M", "--max-tokens", "2"}).status == 0);
  CHECK(world.call({"run", "toy", "--batch", file, "--budget", "0.5G", "--max-tokens", "2"}).status == 0);
  for (const char* wrong : {"-1", "10000000000000000000", "1.5X", "much"}) {
    const Finished unknown = world.call({"run", "toy", "--batch", file, "--budget", wrong});
    INFO(unknown.err);
    CHECK(unknown.status == 2);
    CHECK_THAT(unknown.err, Contains("--budget") && Contains(wrong) && Contains("512M or 1.5G"));
  }
  CHECK(world.call({"run", "toy", "abc", "--batch", file}).status == 2);
  CHECK(world.call({"run", "toy", "--batch", file + ".none"}).status == 3);
}

TEST_CASE("a context beyond the positions that a model has learned is cut to them with a word, and all are answered") {
  World world;
  const fs::path source = fs::path(TENON_TEST_DATA) / "goldens/families/gpt2";
  const Finished made = world.call({"model", "import", source.string(), "--name", "learned", "--cut", "1:2",
                                    "--calibration", world.text().string()});
  INFO(made.err);
  REQUIRE(made.status == 0);
  const std::string file = lines_file(world, "long.jsonl",
                                      "{\"id\": \"a\", \"prompt\": \"abc\", \"max_tokens\": 2}\n"
                                      "{\"id\": \"b\", \"prompt\": \"abcd\", \"max_tokens\": 400}\n"
                                      "{\"id\": \"c\", \"prompt\": \"abcde\", \"max_tokens\": 3}\n");
  const Finished finished = world.call({"run", "learned", "--batch", file, "--context", "1000", "--keep-going"});
  INFO(finished.err);
  CHECK(finished.status == 0);
  CHECK_THAT(finished.err, Contains("--context 1000") && Contains("64 positions"));
  const auto found = answers(finished);
  REQUIRE(found.size() == 3);
  CHECK(found.at("a").at("finish") == "max-tokens");
  CHECK(found.at("b").at("finish") == "context");
  CHECK(found.at("b").at("prompt_tokens").as_int64() +
            static_cast<std::int64_t>(found.at("b").at("tokens").as_array().size()) ==
        64);
  CHECK(found.at("c").at("finish") == "max-tokens");
}

TEST_CASE("a session that was saved goes on where it ended, and only in its own composition") {
  const World& world = world_with_composition();
  const std::string saved = (world.scratch.path() / "saved").string();
  const json::object whole =
      json_of(world.call({"run", "bot", "prose", "--max-tokens", "12", "--compute", "bf16", "--json"}));
  const Finished first =
      world.call({"run", "bot", "prose", "--max-tokens", "5", "--compute", "bf16", "--save-session", saved});
  CHECK_THAT(first.err, Contains("saved 10 tokens"));
  const json::object rest =
      json_of(world.call({"run", "bot", "--session", saved, "--max-tokens", "7", "--compute", "bf16", "--json"}));
  json::array all = whole.at("tokens").as_array();
  CHECK(rest.at("tokens").as_array() == json::array(all.begin() + 5, all.end()));
  const Finished other = world.call({"run", "bot", "--session", saved, "--max-tokens", "7"}); // in float32
  CHECK(other.status == 4);
  CHECK_THAT(other.err, Contains("--compute") && Contains("compute: \"bf16\" then, \"float32\" now"));
  const Finished keys =
      world.call({"run", "bot", "--session", saved, "--compute", "bf16"}, {{"TENON_KEYS", "float32"}});
  CHECK(keys.status == 4);
  CHECK_THAT(keys.err, Contains("TENON_KEYS") && Contains("keys: \"bf16\" then, \"float32\" now"));
  CHECK_THAT(world.call({"run", "toy", "--session", saved, "--compute", "bf16"}).err,
             Contains("experts: ") && Contains("legal") && Contains("then"));
}

TEST_CASE("a session whose keys and values are kept in int8 is saved so, and goes on with the same bits") {
  World world;
  REQUIRE(
      world.call({"model", "new", "wide", "--cut", "2:4", "--head-dim", "32", "--calibration", world.text().string()})
          .status == 0);
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> words = {"run", "wide", "--compute", "bf16", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    return json_of(world.call(words, {{"TENON_KEYS", "int8"}})).at("tokens").as_array();
  };
  const std::string saved = (world.scratch.path() / "saved").string();
  const json::array whole = run({"prose", "--max-tokens", "12"});
  run({"prose", "--max-tokens", "5", "--save-session", saved});
  CHECK(SafetensorsFile(saved).at("trunk/0").dtype == Dtype::I8);
  CHECK(run({"--session", saved, "--max-tokens", "7"}) == json::array(whole.begin() + 5, whole.end()));
}

TEST_CASE("a conversation that was saved goes on with what was said") {
  const World& world = world_with_model();
  const std::string saved = (world.scratch.path() / "talk").string();
  const auto talk = [&](const std::string& said, const std::string& more) {
    return run_program(
        {"/bin/sh", "-c",
         "printf '" + said + "\\n' | \"$PROGRAM\" chat toy --template plain --max-tokens 4 --json " + more},
        {{"PROGRAM", TENON_PROGRAM}, {"TENON_HOME", world.home().string()}, {"NO_COLOR", "1"}});
  };
  const json::object first = json_of(talk("Hello", "--save " + saved));
  CHECK(first.at("messages").as_array().size() == 2);
  const json::object second = json_of(talk("Why?", "--resume " + saved));
  REQUIRE(second.at("messages").as_array().size() == 4);
  CHECK(second.at("messages").as_array()[0] == first.at("messages").as_array()[0]);
  CHECK(talk("Why?", "--resume " + saved + ".none").status == 3);
}
