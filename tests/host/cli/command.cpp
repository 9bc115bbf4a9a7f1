#include "host/cli/command.hpp"

#include <catch2/catch.hpp>

#include "host/cli/completion.hpp"
#include "host/cli/suggest.hpp"

using namespace tenon;

namespace {

// A program of two commands, its output caught.
struct Program {
  Program() : results(std::tmpfile()), messages(std::tmpfile()) {
    context.out = Output(context.flags, results, messages);
    set_up_root(app, context);
    CLI::App* run = app.add_subcommand("run", "Run a composition");
    run->add_option("name", name)->required();
    run->add_option("--top-k", top_k);
    examples(*run, {"tenon run bot"});
    run->callback([this] {
      ++runs;
      if (failure) failure();
    });
    noun(app, "model", "Models")->add_subcommand("import", "Import a model")->callback([this] { ++imports; });
  }
  ~Program() { std::fclose(results), std::fclose(messages); }

  int call(std::vector<const char*> words) {
    words.insert(words.begin(), "tenon");
    return run_command(app, context, static_cast<int>(words.size()), words.data());
  }
  static std::string text(std::FILE* file) {
    std::rewind(file);
    std::string all;
    for (int c; (c = std::fgetc(file)) != EOF;) all += static_cast<char>(c);
    return all;
  }
  std::string out() const { return text(results); }
  std::string err() const { return text(messages); }

  std::FILE *results, *messages;
  Context context;
  CLI::App app{"A test"};
  std::string name;
  int top_k = 0, runs = 0, imports = 0;
  std::function<void()> failure;
};

} // namespace

TEST_CASE("flags may stand before and after the command") {
  for (const auto& words : std::vector<std::vector<const char*>>{{"--json", "run", "bot", "--top-k", "2"},
                                                                 {"run", "bot", "--top-k", "2", "--json"},
                                                                 {"run", "--json", "--top-k=2", "bot"}}) {
    Program program;
    CHECK(program.call(words) == 0);
    CHECK(program.runs == 1);
    CHECK(program.name == "bot");
    CHECK(program.top_k == 2);
    CHECK(program.context.flags.json);
  }
}

TEST_CASE("an argument that is also a command's name stays an argument") {
  Program program;
  CHECK(program.call({"run", "model"}) == 0);
  CHECK(program.name == "model");
  CHECK(program.imports == 0);
}

TEST_CASE("the home flag beats the environment, and moves the registry with it") {
  Program program;
  CHECK(program.call({"run", "bot", "--home", "/elsewhere"}) == 0);
  CHECK(program.context.home.root() == "/elsewhere");
  CHECK(program.context.registry() == "/elsewhere/registry");
  Program other;
  CHECK(other.call({"run", "bot", "--registry", "/team"}) == 0);
  CHECK(other.context.registry() == "/team");
}

TEST_CASE("no command, and a noun without its verb, print help and succeed") {
  Program bare;
  CHECK(bare.call({}) == 0);
  CHECK(bare.out().find("Usage: tenon") != std::string::npos);
  Program with_noun;
  CHECK(with_noun.call({"model"}) == 0);
  CHECK(with_noun.out().find("Usage: tenon model") != std::string::npos);
  CHECK(with_noun.out().find("import") != std::string::npos);
  CHECK(with_noun.imports == 0);
  Program help;
  CHECK(help.call({"run", "--help"}) == 0);
  CHECK(help.out().find("Usage: tenon run") != std::string::npos);
  CHECK(help.out().find("Examples:\n  tenon run bot") != std::string::npos);
}

TEST_CASE("a mistyped command or option exits 2 and says what was meant") {
  const std::vector<std::pair<std::vector<const char*>, const char*>> mistakes = {
      {{"rnu", "bot"}, "did you mean: tenon run"},
      {{"run", "bot", "--topk", "2"}, "did you mean: --top-k"},
      {{"run", "bot", "--jsn"}, "did you mean: --json"},
      {{"model", "imprt"}, "did you mean: tenon model import"},
      {{"zzzzzz"}, "see: tenon --help"},
  };
  for (const auto& [words, remedy] : mistakes) {
    Program program;
    CHECK(program.call(words) == 2);
    CHECK(program.err().find(remedy) != std::string::npos);
    CHECK(program.out().empty());
    CHECK(program.runs + program.imports == 0);
  }
}

TEST_CASE("a value of the wrong kind, a missing and a surplus argument exit 2 and point to the help") {
  for (const auto& words :
       std::vector<std::vector<const char*>>{{"run", "bot", "--top-k", "many"}, {"run"}, {"run", "a", "b"}}) {
    Program program;
    CHECK(program.call(words) == 2);
    CHECK(program.err().find("see: tenon run --help") != std::string::npos);
  }
}

TEST_CASE("every code of an error has its exit status") {
  const std::vector<std::pair<Code, int>> expected = {
      {Code::usage, 2},  {Code::not_found, 3},   {Code::incompatible, 4}, {Code::integrity, 5},    {Code::numeric, 6},
      {Code::plugin, 7}, {Code::environment, 1}, {Code::bug, 1},          {Code::interrupted, 130}};
  for (const auto& [code, status] : expected) {
    Program program;
    program.failure = [code = code] { throw Error(code, "unit", "found a, need b", "do c"); };
    CHECK(program.call({"run", "bot"}) == status);
    CHECK(program.err() == "error: [unit] found a, need b\nremedy: do c\n");
  }
}

TEST_CASE("whatever else is thrown becomes a message, too") {
  Program memory;
  memory.failure = [] { throw std::bad_alloc(); };
  CHECK(memory.call({"run", "bot"}) == 1);
  CHECK(memory.err().starts_with("error: [memory]"));
  Program surprise;
  surprise.failure = [] { throw std::logic_error("oops"); };
  CHECK(surprise.call({"run", "bot", "--json"}) == 1);
  CHECK(surprise.err().starts_with("{\"error\":{\"code\":\"bug\""));
}

TEST_CASE("usage errors are JSON where JSON was asked for, wherever the mistake stands") {
  Program program;
  CHECK(program.call({"run", "--bogus", "--json"}) == 2);
  CHECK(program.err().starts_with("{\"error\":{\"code\":\"usage\""));
}

TEST_CASE("edit distance counts a swap as one, and far words suggest nothing") {
  CHECK(edit_distance("run", "rnu") == 1);
  CHECK(edit_distance("compose", "compse") == 1);
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(nearest("publsh", {"publish", "plugin"}) == "publish");
  CHECK(nearest("comp", {"compose", "chat"}) == "compose");
  CHECK(nearest("xyz", {"run", "chat"}).empty());
  CHECK(nearest(std::string(5000, 'a'), {"run"}).empty());
}

TEST_CASE("completion names every command and option, for each shell, and refuses unknown shells") {
  Program program;
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string script = completion_script(program.app, shell);
    for (const char* word : {"run", "model", "import", "top-k", "json"}) {
      INFO(shell << " " << word);
      CHECK(script.find(word) != std::string::npos);
    }
  }
  CHECK_THROWS_AS(completion_script(program.app, "tcsh"), Error);
}
