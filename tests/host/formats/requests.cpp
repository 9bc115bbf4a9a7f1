#include "host/formats/requests.hpp"

#include "tests/support/mutate_json.hpp"

#include <catch2/catch.hpp>

using Catch::Contains;

namespace tenon {

TEST_CASE("a file of requests is read with what each line says, and blank lines are left out") {
  const auto lines = read_requests(
      "{\"prompt\": \"Once\"}\n\n{\"id\": 7, \"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], "
      "\"max_tokens\": 3, \"temperature\": 0.5, \"top_k\": 4, \"top_p\": 0.9, \"seed\": 1, \"stop\": \"x\", "
      "\"experts\": [\"legal\"]}\n",
      "r.jsonl");
  REQUIRE(lines.size() == 2);
  CHECK((lines[0].id == "1" && lines[0].line == 1 && lines[0].prompt == "Once" && lines[0].messages.empty()));
  CHECK_FALSE((lines[0].max_tokens || lines[0].temperature || lines[0].stops || lines[0].experts));
  CHECK((lines[1].id == "7" && lines[1].line == 3));
  CHECK(lines[1].messages == std::vector<ChatMessage>{{"user", "Hi"}});
  CHECK((lines[1].max_tokens == 3 && lines[1].temperature == 0.5 && lines[1].top_k == 4 && lines[1].top_p == 0.9));
  CHECK((lines[1].seed == 1 && lines[1].stops == std::vector<std::string>{"x"}));
  CHECK((lines[1].experts == std::vector<std::string>{"legal"}));
}

TEST_CASE("a line that is no request is refused with its number and what is wrong") {
  const std::pair<const char*, const char*> wrong[] = {
      {R"({"prompt": "a", "prompt": "b"})", "prompt"},
      {R"({"prompt": "a", "max_token": 3})", "\"max_token\", which no request has"},
      {R"({"prompt": "a", "messages": []})", "either \"prompt\" or \"messages\""},
      {R"({"id": "a"})", "either \"prompt\" or \"messages\""},
      {R"({"messages": []})", "at least one"},
      {R"({"messages": [{"role": "judge", "content": "x"}]})", "judge"},
      {R"({"prompt": 3})", "need a string"},
      {R"({"prompt": "a", "max_tokens": 0})", "need 1 or more"},
      {R"({"prompt": "a", "seed": -1})", "need 0 or more"},
      {R"({"prompt": "a", "stop": [1]})", "need a string"},
      {R"({"prompt": "a", "id": "first"})", "a second time"},
      {R"([1])", "object"},
      {R"({"prompt": )", "r.jsonl:2"}};
  for (const auto& [line, message] : wrong) {
    CAPTURE(line);
    const std::string text = std::string("{\"id\": \"first\", \"prompt\": \"x\"}\n") + line;
    CHECK_THROWS_WITH(read_requests(text, "r.jsonl"), Contains(message) && Contains("r.jsonl:2"));
    std::size_t bad = 0;
    CHECK(read_requests(text, "r.jsonl", [&](std::size_t number, const std::string&, const Error&) {
            bad = number;
          }).size() == 1);
    CHECK(bad == 2);
  }
}

TEST_CASE("an id that a line has by its number, or another gave before, is refused, and which line has it is said") {
  const auto refused = [](const std::string& text) {
    try {
      (void)read_requests(text, "r.jsonl");
    } catch (const Error& error) {
      CHECK(error.code == Code::usage);
      CHECK_FALSE(error.remedy.empty());
      return error.message;
    }
    return std::string();
  };
  const std::string plain = "{\"prompt\": \"a\"}\n";
  CHECK(refused("{\"id\": \"2\", \"prompt\": \"a\"}\n" + plain) ==
        "r.jsonl:2: found the id \"2\", which line 2 has by its number, since it gives none");
  CHECK(refused(plain + "{\"id\": 1, \"prompt\": \"a\"}\n") ==
        "r.jsonl:2: found the id \"1\", which line 1 has by its number, since it gives none");
  CHECK(refused("{\"id\": \"a\", \"prompt\": \"a\"}\n\n{\"id\": \"a\", \"prompt\": \"b\"}\n") ==
        "r.jsonl:3: found the id \"a\" a second time, first in line 1");
}

TEST_CASE("a refused line is told with its own id, never with another's") {
  const std::string text =
      "{\"id\": \"a\", \"prompt\": \"x\"}\n{\"id\": \"b\", \"promt\": \"x\"}\n{\"id\": \"a\", \"prompt\": \"x\"}\n{\n"
      "{\"promt\": \"x\"}\n{\"id\": \"b\", \"prompt\": \"x\"}\n";
  std::vector<std::pair<std::size_t, std::string>> bad;
  const auto lines = read_requests(
      text, "r.jsonl", [&](std::size_t line, const std::string& id, const Error&) { bad.emplace_back(line, id); });
  CHECK(lines.size() == 1);
  CHECK(bad == std::vector<std::pair<std::size_t, std::string>>{{2, "b"}, {3, ""}, {4, ""}, {5, "5"}, {6, ""}});
}

TEST_CASE("damaged requests are read or refused, never anything else") {
  const std::string valid =
      R"({"id": "a", "messages": [{"role": "user", "content": "q"}], "max_tokens": 3, "stop": ["x"], "experts": ["e"],)"
      R"( "temperature": 0.5, "top_k": 1, "top_p": 0.5, "seed": 3})";
  Mutator mutator(31);
  int read = 0, refused = 0;
  for (int i = 0; i < 4000; ++i) {
    try {
      const auto lines = read_requests(i % 2 ? mutator.mutate(valid) : mutate_json(mutator, valid), "fuzz");
      for (const RequestLine& line : lines) CHECK((!line.max_tokens || *line.max_tokens > 0));
      ++read;
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(read > 100);
  CHECK(refused > 1000);
}

} // namespace tenon
