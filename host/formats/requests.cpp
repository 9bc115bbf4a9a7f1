#include "host/formats/requests.hpp"

#include "host/formats/dialogue.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace tenon {
namespace {

const char* const kFields[] = {"id",    "prompt", "messages", "max_tokens", "temperature",
                               "top_k", "top_p",  "seed",     "stop",       "experts"};

std::optional<std::int64_t> whole(const JsonReader& line, const char* key, std::int64_t least) {
  if (!line.has(key)) return std::nullopt;
  const std::int64_t found = line.at(key).integer();
  if (found < least) line.at(key).fail(fmt::format("found {}, need {} or more", found, least));
  return found;
}

std::optional<double> number(const JsonReader& line, const char* key) {
  if (!line.has(key)) return std::nullopt;
  return line.at(key).number();
}

// A list of strings; single: or one string.
std::optional<std::vector<std::string>> strings(const JsonReader& line, const char* key, bool single) {
  if (!line.has(key)) return std::nullopt;
  const JsonReader found = line.at(key);
  if (single && found.value().is_string()) return std::vector<std::string>{found.string()};
  std::vector<std::string> out;
  for (std::size_t i = 0; i < found.array().size(); ++i) out.push_back(found.at(i).string());
  return out;
}

std::string id_of(const JsonReader& line, std::size_t number) {
  if (!line.has("id")) return std::to_string(number);
  const JsonReader id = line.at("id");
  return id.value().is_int64() ? std::to_string(id.integer()) : id.string();
}

RequestLine read_request_line(const JsonReader& line, std::size_t number_of_line, const std::string& where) {
  for (const auto& member : line.object()) {
    const std::string_view key(member.key().data(), member.key().size());
    if (std::find(std::begin(kFields), std::end(kFields), key) == std::end(kFields))
      line.fail(fmt::format("found the field \"{}\", which no request has", key.substr(0, 40)));
  }
  RequestLine out;
  out.line = number_of_line;
  out.id = id_of(line, number_of_line);
  if (line.has("prompt") == line.has("messages")) line.fail("need either \"prompt\" or \"messages\"");
  if (line.has("prompt")) out.prompt = line.at("prompt").string();
  if (line.has("messages")) {
    out.messages = read_dialogue(line.at("messages").value(), where);
    if (out.messages.empty()) line.at("messages").fail("found no message, need at least one");
  }
  out.max_tokens = whole(line, "max_tokens", 1);
  out.top_k = whole(line, "top_k", 0);
  out.seed = whole(line, "seed", 0);
  out.temperature = number(line, "temperature");
  out.top_p = number(line, "top_p");
  out.stops = strings(line, "stop", true);
  out.experts = strings(line, "experts", false);
  return out;
}

} // namespace

std::vector<RequestLine> read_requests(std::string_view text, const std::string& file, const BadJsonLine& bad) {
  std::vector<RequestLine> out;
  std::set<std::string> ids;
  const auto read = [&](const JsonReader& line, std::size_t number) {
    RequestLine request = read_request_line(line, number, fmt::format("{}:{}", file, number));
    if (!ids.insert(request.id).second)
      line.fail(fmt::format("found the id \"{}\" a second time", request.id.substr(0, 40)));
    out.push_back(std::move(request));
  };
  read_json_lines(text, file, "run", R"(a line is {"id": "a", "prompt": "Once upon", "max_tokens": 32})", read, bad);
  return out;
}

} // namespace tenon
