// A file of requests, JSONL: one object a line.
//   {"id": "a", "prompt": "Once upon", "max_tokens": 32, "seed": 7, "temperature": 0.8, "experts": ["legal"]}
// Either "prompt" (a text to continue) or "messages" ([{"role", "content"}, ...], answered in the model's template).
// Optional: "id" (else the line's number), "max_tokens", "temperature", "top_k", "top_p", "seed", "stop" (a string or a
// list), "experts" (names: the others take no part). Any other field is refused: a misspelt one would change nothing
// silently. Thread: a pure function; a reader: one.
#pragma once

#include "host/formats/chat_template.hpp"
#include "host/formats/json_lines.hpp"

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

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

// Line by line, for whom they arrive one after the other.
class RequestReader {
 public:
  explicit RequestReader(std::string file) : file_(std::move(file)) {}

  // The next line; nothing where it is blank. Errors (both): usage, naming file and line.
  std::optional<RequestLine> next(std::string_view line);
  RequestLine take(const JsonReader& line, std::size_t number);

  std::size_t number() const { return number_; } // of the last line
  const std::string& id() const { return id_; }  // its own; "" where it cannot be told, or is another's

 private:
  struct Owner { // which line has an id, and whether it says so
    std::size_t line;
    bool given;
  };
  void claim(const std::string& id, Owner wants, const std::string& where);

  std::string file_, id_;
  std::map<std::string, Owner> ids_;
  std::size_t number_ = 0;
};

// What is wrong with a line, for who goes on with the next. id: as RequestReader's.
using BadRequest = std::function<void(std::size_t line, const std::string& id, const Error& error)>;

// Errors: usage, naming file and line; or to `bad`.
std::vector<RequestLine> read_requests(std::string_view text, const std::string& file, const BadRequest& bad = {});

} // namespace tenon
