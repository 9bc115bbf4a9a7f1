// Strict JSON: duplicate keys, trailing text, invalid UTF-8 and depth over 64 are refused, with the place.
// Built on Boost.JSON's basic_parser, because its ordinary parser silently keeps the last duplicate.
#pragma once

#include <boost/json/fwd.hpp>
#include <boost/json/value.hpp>
#include <filesystem>
#include <string>
#include <string_view>

namespace tenon {

namespace json = boost::json;

// where: what is being read, for messages ("expert.json"). Errors: integrity, with line and column.
json::value parse_json(std::string_view text, std::string_view where);
json::value read_json(const std::filesystem::path& path, std::size_t limit_bytes = std::size_t{64} << 20);

// Keys in insertion order, two-space indent, one trailing newline: what a person opens.
std::string pretty_json(const json::value& value);
// Keys sorted, no white space: what is hashed.
std::string canonical_json(const json::value& value);

// What helps with JSON that is not as it should be, where nobody knows better.
inline constexpr const char* kMendFile = "correct it there, or take a sound copy of the file";

// Reads typed fields and says which one is wrong: "[expert.json] /config/rank: found \"x\", need an integer".
// Borrowed: the value must outlive the reader.
class JsonReader {
 public:
  JsonReader(const json::value& value, std::string where);

  bool has(std::string_view key) const;
  // A member that must exist; object() and at() descend. Errors: integrity, naming file and path.
  JsonReader at(std::string_view key) const;
  JsonReader at(std::size_t index) const;
  std::size_t size() const; // of an array or object

  std::string string() const;
  std::int64_t integer() const;
  double number() const;
  bool boolean() const;
  const json::value& value() const { return *value_; }
  const json::object& object() const;
  const json::array& array() const;

  // The member, or the fallback where it is absent (a wrong type is still an error).
  std::string string(std::string_view key, std::string_view fallback) const;
  std::int64_t integer(std::string_view key, std::int64_t fallback) const;
  double number(std::string_view key, double fallback) const;
  bool boolean(std::string_view key, bool fallback) const;

  // "[where] path: message"; code integrity.
  [[noreturn]] void fail(const std::string& message, const std::string& remedy = kMendFile) const;

 private:
  JsonReader(const json::value& value, std::string where, std::string path);
  const json::value* value_;
  std::string where_, path_;
};

} // namespace tenon
