// A file of requests, JSONL: one object a line.
//   {"id": "a", "prompt": "Once upon", "max_tokens": 32, "seed": 7, "temperature": 0.8, "experts": ["legal"]}
// Either "prompt" (a text to continue) or "messages" ([{"role", "content"}, ...], answered in the model's template).
// Optional: "id" (else the line's number), "max_tokens", "temperature", "top_k", "top_p", "seed", "stop" (a string or a
// list), "experts" (names: the others take no part). Any other field is refused: a misspelt one would change nothing
// silently. Thread: a pure function.
#pragma once

#include "host/formats/chat_template.hpp"
#include "host/formats/json_lines.hpp"

#include <optional>

namespace tenon {

struct RequestLine {
  std::size_t line = 0;
  std::string id;
  std::string prompt;
  std::vector<ChatMessage> messages; // empty: the prompt is to be continued
  std::optional<std::int64_t> max_tokens, top_k, seed;
  std::optional<double> temperature, top_p;
  std::optional<std::vector<std::string>> stops, experts;
};

// What is wrong with a line, for who goes on with the next. id: as above; "" where it cannot be told, or is another's.
using BadRequest = std::function<void(std::size_t line, const std::string& id, const Error& error)>;

// Errors: usage, naming file and line; or to `bad`.
std::vector<RequestLine> read_requests(std::string_view text, const std::string& file, const BadRequest& bad = {});

} // namespace tenon
