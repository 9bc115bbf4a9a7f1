// Multiple-choice questions: JSONL, one question a line.
//
//   {"question": "What falls from clouds?", "choices": ["rain", "sand"], "answer": 0}
//   {"context": "The capital of France is", "choices": [" Paris", " Rome"], "answer": 0}
//
// answer: the index of the right choice, from 0. A line has either a question or a context. A question is asked as
// "Question: ...\nAnswer:" and each choice follows after a space; a context and a choice are joined as they stand.
// 2 to 64 choices, none empty. Other fields are left alone. A choice's number of bytes is what its likelihood is
// normalised by, without that added space.
// Thread: values; any thread.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

struct ChoiceQuestion {
  std::string context;                   // never empty
  std::vector<std::string> choices;      // as they follow the context
  std::vector<std::size_t> choice_bytes; // of the choices as they were given
  std::size_t answer = 0;
};

struct ChoiceSet {
  std::string name;   // of the file, without its folder and ending
  std::string digest; // "sha256:..." of the file
  std::vector<ChoiceQuestion> questions;
};

// Untrusted text. Errors: usage, naming file and line: found and needed.
std::vector<ChoiceQuestion> parse_choices(std::string_view text, const std::string& file);
// Errors: as of parse_choices; usage (no question in it), not_found, environment, integrity (over 64 MiB).
ChoiceSet read_choices(const std::filesystem::path& path);

} // namespace tenon
