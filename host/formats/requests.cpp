#include "host/formats/requests.hpp"

#include "host/formats/dialogue.hpp"

#include <fmt/format.h>

#include <algorithm>

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
  if (!id.value().is_int64() && !id.value().is_string()) id.fail("found another kind, need a text or a whole number");
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

const char* const kLine = R"(a line is {"id": "a", "prompt": "Once upon", "max_tokens": 32})";

} // namespace

// Every id once: a line without one has its number.
void RequestReader::claim(const std::string& id, Owner wants, const std::string& where) {
  const auto [found, fresh] = ids_.insert({id, wants});
  if (fresh) return;
  const Owner& has = found->second;
  if (has.given && wants.given)
    throw Error(
        Code::usage, "run",
        fmt::format("{}: found the id \"{}\" a second time, first in line {}", where, id.substr(0, 40), has.line),
        "give every line an id of its own");
  throw Error(Code::usage, "run",
              fmt::format("{}: found the id \"{}\", which line {} has by its number, since it gives none", where, id,
                          has.given ? wants.line : has.line),
              "give every line an id, or none");
}

RequestLine RequestReader::take(const JsonReader& line, std::size_t number) {
  number_ = number, id_.clear();
  const std::string where = fmt::format("{}:{}", file_, number), id = id_of(line, number);
  claim(id, {number, line.has("id")}, where);
  id_ = id;
  RequestLine request = read_request_line(line, number, where);
  request.id = id;
  return request;
}

std::optional<RequestLine> RequestReader::next(std::string_view line) {
  std::optional<RequestLine> out;
  id_.clear();
  read_json_line(line, file_, ++number_, "run", kLine,
                 [&](const JsonReader& found, std::size_t number) { out = take(found, number); });
  return out;
}

std::vector<RequestLine> read_requests(std::string_view text, const std::string& file, const BadRequest& bad) {
  std::vector<RequestLine> out;
  RequestReader reader(file);
  const auto read = [&](const JsonReader& line, std::size_t number) { out.push_back(reader.take(line, number)); };
  const BadJsonLine refused = [&](std::size_t number, const Error& error) {
    bad(number, number == reader.number() ? reader.id() : "", error);
  };
  read_json_lines(text, file, "run", kLine, read, bad ? refused : BadJsonLine());
  return out;
}

} // namespace tenon
