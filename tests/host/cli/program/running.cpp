// run, chat and eval as a user calls them, on a random model: what they say, where they say it, and how they end.
#include <catch2/catch.hpp>

#include "registry/base/files.hpp"
#include "tests/host/cli/program/program.hpp"

using namespace tenon;
using Catch::Matchers::Contains;

namespace {

// The program with this on standard input.
Finished with_input(const std::string& input, const std::string& words) {
  return run_program(
      {"/bin/sh", "-c", "printf '" + input + "' | \"$PROGRAM\" " + words},
      {{"PROGRAM", TENON_PROGRAM}, {"TENON_HOME", world_with_model().home().string()}, {"NO_COLOR", "1"}});
}

} // namespace

TEST_CASE("run streams its text on stdout alone, and the same command writes the same text") {
  const World& world = world_with_model();
  const std::vector<std::string> words = {"run", "toy",    "Once upon", "--max-tokens", "12", "--temperature",
                                          "1",   "--seed", "4"};
  const Finished one = world.call(words), two = world.call(words);
  INFO(one.err);
  CHECK(one.status == 0);
  CHECK_FALSE(one.out.empty());
  CHECK(one.out == two.out);
  CHECK_THAT(one.err, Contains("tokens/s"));
  const json::object told = json_of(world.call(
      {"run", "toy", "Once upon", "--max-tokens", "12", "--temperature", "1", "--seed", "4", "--json", "--quiet"}));
  CHECK(std::string(told.at("text").as_string()) + "\n" == one.out);
  CHECK(told.at("prompt_tokens") == 9); // bytes
}

TEST_CASE("run reads its prompt from standard input") {
  const Finished given = world_with_model().call({"run", "toy", "abc", "--max-tokens", "6"});
  const Finished piped = with_input("abc", "run toy - --max-tokens 6");
  INFO(piped.err);
  CHECK(piped.status == 0);
  CHECK(piped.out == given.out);
}

TEST_CASE("run refuses what cannot be run, each with its own exit status") {
  const World& world = world_with_model();
  CHECK(world.call({"run", "nobody", "abc"}).status == 3);
  CHECK_THAT(world.call({"run", "nobody", "abc"}).err, Contains("toy"));
  CHECK(world.call({"run", "toy", ""}).status == 2);
  CHECK(world.call({"run", "toy", "abc", "--temperature", "-1"}).status == 2);
  CHECK(world.call({"run", "toy", "abc", "--top-p", "0"}).status == 2);
  const Finished full = world.call({"run", "toy", "abcdefgh", "--context", "5"});
  CHECK(full.status == 2);
  CHECK_THAT(full.err, Contains("8") && Contains("5"));
}

TEST_CASE("run --explain names every expert with its share, and says how much work was skipped") {
  const Finished told =
      world_with_composition().call({"run", "bot", "prose number", "--max-tokens", "10", "--explain"});
  INFO(told.err);
  CHECK(told.status == 0);
  CHECK_THAT(told.out, Contains("toy-base") && Contains("legal") && Contains("share") && Contains("work skipped"));
  CHECK_THAT(told.err, Contains("skipped"));
}

TEST_CASE("a composition edited away from its lock is said, and refused with --locked") {
  const World& world = world_with_composition();
  CHECK(world.call({"run", "bot", "abc", "--max-tokens", "2", "--locked"}).status == 0);
  const fs::path path = world.home() / "compositions" / "bot" / "composition.json";
  const std::string before = read_file(path);
  std::string after = before;
  const std::size_t at = after.find("\"temperature\": 1");
  REQUIRE(at != std::string::npos);
  after.replace(at, 16, "\"temperature\": 2");
  write_file(path, after);
  const Finished said = world.call({"run", "bot", "abc", "--max-tokens", "2"});
  CHECK(said.status == 0);
  CHECK_THAT(said.err, Contains("routing"));
  const Finished refused = world.call({"run", "bot", "abc", "--max-tokens", "2", "--locked"});
  CHECK(refused.status == 4);
  CHECK_THAT(refused.err, Contains("routing") && Contains("remedy:"));
  write_file(path, before);
}

TEST_CASE("chat refuses a model without a template, with the families there are, and talks in a named one") {
  const Finished refused = with_input("Hello\\n", "chat toy");
  CHECK(refused.status == 4);
  CHECK_THAT(refused.err, Contains("chatml") && Contains("llama3") && Contains("--template"));
  CHECK(with_input("Hello\\n", "chat toy --template vicuna").status == 2);
  const json::object told = json_of(
      with_input("Hello\\nWhy?\\n", "chat toy --template chatml --system Brief. --max-tokens 5 --json --quiet"));
  const json::array& messages = told.at("messages").as_array();
  REQUIRE(messages.size() == 5);
  CHECK(messages[0].at("role") == "system");
  CHECK(messages[3].at("content") == "Why?");
}

TEST_CASE("eval tells perplexity with its interval for every arm, per corpus and pooled") {
  const World& world = world_with_composition();
  const json::object told =
      json_of(world.call({"eval", "bot", "--data", "numbers=" + (world.text() / "numbers").string() + ":general",
                          "--data", "prose=held-out:" + (world.scratch.path() / "legal").string() + ":legal",
                          "--sequence-length", "32", "--blocks", "4", "--json", "--quiet"}));
  CHECK(told.at("corpora").as_array().size() == 2);
  for (const char* arm : {"base", "alone:legal", "composed", "uniform", "random", "without:legal"}) {
    INFO(arm);
    const json::value& score = told.at("pooled").at(arm);
    CHECK(score.at("perplexity_95").as_array()[0].as_double() <= score.at("perplexity").as_double());
    CHECK(score.at("perplexity_95").as_array()[1].as_double() >= score.at("perplexity").as_double());
  }
  CHECK(told.at("corpora").as_array()[1].at("loads").as_object().size() == 2);
}

TEST_CASE("expert import wants text or --no-row, and says what is wrong with an adapter") {
  const World& world = world_with_model();
  const std::string adapter = (world.scratch.path() / "adapter").string(),
                    folder = (world.scratch.path() / "imported").string();
  const std::vector<std::string> words = {"expert", "import", "--peft", adapter, "--model", "toy", "--out", folder};
  const auto with = [&](const std::string& more) {
    std::vector<std::string> all = words;
    all.push_back(more);
    return world.call(all);
  };
  const Finished bare = world.call(words);
  CHECK(bare.status == 2);
  CHECK_THAT(bare.err, Contains("--data") && Contains("--no-row"));
  CHECK(with("--no-row").status == 3); // no such folder
  write_file(fs::path(adapter) / "adapter_config.json",
             R"({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "use_dora": true})");
  write_file(fs::path(adapter) / "adapter_model.safetensors", "damaged");
  const Finished dora = with("--no-row");
  CHECK(dora.status == 4);
  CHECK_THAT(dora.err, Contains("use_dora"));
  write_file(fs::path(adapter) / "adapter_config.json", R"({"peft_type": "LORA", "r": 4, "lora_alpha": 8})");
  CHECK(with("--no-row").status == 5);
  std::vector<std::string> trained = words;
  trained.insert(trained.end(), {"--no-row", "--set", "train.steps=3"});
  const Finished useless = world.call(trained);
  CHECK(useless.status == 2);
  CHECK_THAT(useless.err, Contains("found train") && Contains("remedy:"));
  CHECK_FALSE(fs::exists(folder));
}

TEST_CASE("eval scores dialogues on their answers, and refuses lines that are none") {
  const World& world = world_with_model();
  const fs::path chats = world.scratch.path() / "chats.jsonl";
  std::string lines;
  for (int i = 0; i < 20; ++i)
    lines += R"({"messages": [{"role": "user", "content": "say )" + std::to_string(i) +
             R"("}, {"role": "assistant", "content": "ok"}]})"
             "\n";
  write_file(chats, lines);
  const std::vector<std::string> words = {
      "eval", "toy",     "--data", "talks=" + chats.string(), "--format", "chat", "--sequence-length",
      "64",   "--quiet", "--json"};
  CHECK(world.call(words).status == 4); // the model has no template
  CHECK(world.call({"eval", "toy", "--data", "x=" + world.text().string(), "--template", "chatml"}).status == 2);
  std::vector<std::string> named = words;
  named.insert(named.end(), {"--template", "chatml"});
  CHECK(json_of(world.call(named)).at("corpora").as_array()[0].at("tokens") == 20 * 3); // "ok" and its end
  write_file(chats, lines + "{\"messages\": 3}\n");
  const Finished refused = world.call(named);
  CHECK(refused.status == 2);
  CHECK_THAT(refused.err, Contains("chats.jsonl:21"));
}

TEST_CASE("eval --check fails for an expert that was hardly trained, and its tables still come") {
  const World& world = world_with_composition();
  const Finished checked =
      world.call({"eval", "bot", "--data", "prose=held-out:" + (world.scratch.path() / "legal").string() + ":legal",
                  "--sequence-length", "32", "--blocks", "4", "--check"});
  INFO(checked.out << checked.err);
  CHECK(checked.status == 1);
  CHECK_THAT(checked.out, Contains("FAILED") && Contains("gain"));
}

TEST_CASE("eval compares with experts outside the composition, asks questions, and writes a report with everything") {
  const World& world = world_with_composition();
  const std::string folder = (world.scratch.path() / "legal").string(),
                    report = (world.scratch.path() / "pages" / "bot.html").string(),
                    quiz = (world.scratch.path() / "quiz.jsonl").string();
  write_file(quiz, "{\"question\": \"What?\", \"choices\": [\"prose\", \"numbers\"], \"answer\": 0}\n");
  const json::object told = json_of(world.call(
      {"eval", "bot", "--data", "prose=held-out:" + folder + ":legal", "--choices", quiz, "--versus", "rival=legal",
       "--report", report, "--runs", folder, "--sequence-length", "32", "--blocks", "4", "--json", "--quiet"}));
  CHECK(told.at("claims").at("rival") == told.at("claims").at("legal"));
  const json::object& rival = told.at("experts").as_array().at(2).as_object();
  CHECK(rival.at("form") == "on the base"); // low rank shares the base's weights
  CHECK(rival.at("composed") == false);
  CHECK(rival.at("training_tokens") == 2 * 32); // two steps of one block
  CHECK(rival.at("state_bytes").as_int64() > 0);
  CHECK(told.at("choices").as_array().at(0).at("arms").as_object().size() == 4);
  CHECK(told.at("corpora").as_array().at(0).at("passages").as_array().size() == 1);
  CHECK(told.at("runs").as_array().at(0).at("steps").as_array().size() == 2);
  const std::string page = read_file(report);
  for (const char* id : {"gains", "claims", "routing", "choices", "passages", "training", "lineage"})
    CHECK_THAT(page, Contains(std::string("<section id=\"") + id + "\""));
  for (const json::value& slot : told.at("lock").at("slots").as_array()) // every digest of the lock
    CHECK_THAT(page, Contains(std::string(slot.at("entry").as_string())) &&
                         Contains(std::string(slot.at("plugin").at("library").as_string())));
}

TEST_CASE("eval refuses questions, comparisons, runs and reports that cannot be had, before it measures") {
  const World& world = world_with_composition();
  const std::string data = "x=" + (world.text() / "numbers").string(),
                    bad = (world.scratch.path() / "bad.jsonl").string();
  write_file(bad, "{\"question\": \"What?\", \"choices\": [\"one\"], \"answer\": 0}\n");
  const Finished refused = world.call({"eval", "bot", "--choices", bad});
  CHECK(refused.status == 2);
  CHECK_THAT(refused.err, Contains("bad.jsonl:1") && Contains("choices"));
  CHECK(world.call({"eval", "bot"}).status == 2);
  CHECK(world.call({"eval", "bot", "--data", data, "--versus", "legal"}).status == 2);
  CHECK(world.call({"eval", "bot", "--data", data, "--versus", "legal=legal"}).status == 2);
  CHECK(world.call({"eval", "bot", "--data", data, "--versus", "x=nobody"}).status == 3);
  CHECK(world.call({"eval", "bot", "--data", data, "--runs", world.text().string()}).status == 3);
  CHECK(world.call({"eval", "bot", "--data", data, "--report", "/proc/no/report.html"}).status == 3);
}

TEST_CASE("eval refuses corpora it cannot score, each with its own exit status") {
  const World& world = world_with_model();
  CHECK(world.call({"eval", "toy", "--data", "nowhere"}).status == 2);
  CHECK(world.call({"eval", "toy", "--data", "x=/no/such/file"}).status == 3);
  CHECK(world.call({"eval", "toy", "--data", "x=" + world.text().string() + ":medical"}).status == 2);
  CHECK(world.call({"eval", "toy", "--data", "x=held-out:" + world.text().string()}).status == 3);
}
