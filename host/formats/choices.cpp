#include "host/formats/choices.hpp"

#include "host/formats/json_lines.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "registry/base/sha256.hpp"

#include <fmt/format.h>

namespace tenon {
namespace {

constexpr std::size_t kFewest = 2, kMost = 64;
const char* const kUnit = "choices";
const char* const kLine =
    R"(need one question a line: {"question": "...", "choices": ["...", "..."], "answer": 0}, or "context" for "question")";

void read_choices_of(const JsonReader& line, const std::string& before, ChoiceQuestion& out) {
  const JsonReader choices = line.at("choices");
  choices.array();
  if (choices.size() < kFewest || choices.size() > kMost)
    choices.fail(fmt::format("found {} choices, need {} to {}", choices.size(), kFewest, kMost));
  for (std::size_t i = 0; i < choices.size(); ++i) {
    const std::string choice = choices.at(i).string();
    if (choice.empty()) choices.at(i).fail("found an empty choice");
    out.choice_bytes.push_back(choice.size());
    out.choices.push_back(before + choice);
  }
}

ChoiceQuestion read_question(const JsonReader& line) {
  line.object();
  if (line.has("question") == line.has("context"))
    line.fail(line.has("question") ? "found both a question and a context, need one of them"
                                   : "found neither a question nor a context");
  ChoiceQuestion out;
  const bool asked = line.has("question");
  const std::string text = line.at(asked ? "question" : "context").string();
  if (text.empty()) line.at(asked ? "question" : "context").fail("found nothing there, need some text");
  out.context = asked ? "Question: " + text + "\nAnswer:" : text;
  read_choices_of(line, asked ? " " : "", out);
  const std::int64_t answer = line.at("answer").integer();
  if (answer < 0 || answer >= static_cast<std::int64_t>(out.choices.size()))
    line.at("answer").fail(fmt::format("found {}, need 0 to {}", answer, out.choices.size() - 1));
  out.answer = static_cast<std::size_t>(answer);
  return out;
}

} // namespace

std::vector<ChoiceQuestion> parse_choices(std::string_view text, const std::string& file) {
  std::vector<ChoiceQuestion> questions;
  read_json_lines(text, file, kUnit, kLine,
                  [&](const JsonReader& line, std::size_t) { questions.push_back(read_question(line)); });
  return questions;
}

ChoiceSet read_choices(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  ChoiceSet out{path.stem().string(), "sha256:" + sha256(text), parse_choices(text, path.string())};
  if (out.questions.empty()) throw Error(Code::usage, kUnit, path.string() + ": found no question", kLine);
  return out;
}

} // namespace tenon
