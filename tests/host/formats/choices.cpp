#include "host/formats/choices.hpp"

#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "tests/support/mutate_json.hpp"
#include "tests/support/scratch.hpp"

#include <catch2/catch.hpp>

namespace tenon {
namespace {

const std::string kAsked = R"({"question": "What falls?", "choices": ["rain", "sand"], "answer": 1, "source": "me"})";
const std::string kJoined = R"({"context": "The capital is", "choices": [" Paris", " Rome", ""], "answer": 0})";

TEST_CASE("a question is asked and its choices follow after a space; a context stands as it is") {
  const auto questions =
      parse_choices(kAsked + "\n\n" + R"({"context": "Pa", "choices": ["ris", "x"], "answer": 0})", "q");
  REQUIRE(questions.size() == 2);
  CHECK(questions[0].context == "Question: What falls?\nAnswer:");
  CHECK(questions[0].choices == std::vector<std::string>{" rain", " sand"});
  CHECK(questions[0].choice_bytes == std::vector<std::size_t>{4, 4});
  CHECK(questions[0].answer == 1);
  CHECK(questions[1].context == "Pa");
  CHECK(questions[1].choices == std::vector<std::string>{"ris", "x"});
}

TEST_CASE("a malformed line is refused with its file and number, and what was found") {
  const std::pair<std::string, std::string> bad[] = {
      {"{", "JSON"},
      {"[]", "object"},
      {R"({"choices": ["a", "b"], "answer": 0})", "neither"},
      {R"({"question": "a", "context": "b", "choices": ["a", "b"], "answer": 0})", "both"},
      {R"({"question": "", "choices": ["a", "b"], "answer": 0})", "question"},
      {R"({"question": "a", "choices": ["a"], "answer": 0})", "1 choices"},
      {R"({"question": "a", "choices": ["a", 3], "answer": 0})", "choices/1"},
      {R"({"question": "a", "choices": "ab", "answer": 0})", "choices"},
      {R"({"question": "a", "choices": ["a", "b"], "answer": 2})", "found 2, need 0 to 1"},
      {R"({"question": "a", "choices": ["a", "b"], "answer": -1})", "found -1"},
      {R"({"question": "a", "choices": ["a", "b"], "answer": "a"})", "answer"},
      {R"({"question": "a", "choices": ["a", "b"]})", "answer"},
      {kJoined, "empty choice"}};
  for (const auto& [line, words] : bad) {
    INFO(line);
    try {
      (void)parse_choices(kAsked + "\n" + line + "\n", "quiz.jsonl");
      FAIL("it was read");
    } catch (const Error& error) {
      CHECK(error.code == Code::usage);
      CHECK_THAT(error.what(), Catch::Contains("quiz.jsonl:2") && Catch::Contains(words));
    }
  }
}

TEST_CASE("a file of choices without a question in it is refused") {
  const Scratch scratch;
  write_file(scratch.path() / "quiz.jsonl", "\n  \n");
  CHECK_THROWS_AS(read_choices(scratch.path() / "quiz.jsonl"), Error);
  write_file(scratch.path() / "quiz.jsonl", kAsked + "\n");
  CHECK(read_choices(scratch.path() / "quiz.jsonl").name == "quiz");
}

TEST_CASE("damaged choices are read or refused") {
  Mutator mutator(11);
  int read = 0, refused = 0;
  for (int i = 0; i < 4000; ++i) {
    try {
      for (const ChoiceQuestion& question :
           parse_choices(i % 2 ? mutator.mutate(kAsked) : mutate_json(mutator, kAsked), "fuzz"))
        CHECK(question.answer < question.choices.size());
      ++read;
    } catch (const Error& error) {
      CHECK(error.code == Code::usage);
      ++refused;
    }
  }
  CHECK(read > 200);
  CHECK(refused > 1000);
}

} // namespace
} // namespace tenon
