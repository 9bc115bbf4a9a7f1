#include "registry/base/error.hpp"
#include "registry/base/json.hpp"

#include <fmt/format.h>

#include <boost/json/serialize.hpp>

namespace tenon {
namespace {

// A value as a message shows it: whole when short, otherwise its beginning.
std::string shown(const json::value& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "an array";
  std::string text = json::serialize(value);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

[[noreturn]] void wrong_type(const JsonReader& reader, const char* needed) {
  reader.fail(fmt::format("found {}, need {}", shown(reader.value()), needed));
}

} // namespace

JsonReader::JsonReader(const json::value& value, std::string where) : value_(&value), where_(std::move(where)) {}

JsonReader::JsonReader(const json::value& value, std::string where, std::string path)
    : value_(&value), where_(std::move(where)), path_(std::move(path)) {}

void JsonReader::fail(const std::string& message, const std::string& remedy) const {
  throw Error(Code::integrity, where_, (path_.empty() ? "/" : path_) + ": " + message, remedy);
}

bool JsonReader::has(std::string_view key) const { return object().contains(key); }

JsonReader JsonReader::at(std::string_view key) const {
  const json::value* member = object().if_contains(key);
  if (!member) fail(fmt::format("the field \"{}\" is missing", key));
  return JsonReader(*member, where_, fmt::format("{}/{}", path_, key));
}

JsonReader JsonReader::at(std::size_t index) const {
  if (index >= array().size()) fail(fmt::format("found {} elements, need element {}", array().size(), index));
  return JsonReader(array()[index], where_, fmt::format("{}/{}", path_, index));
}

std::size_t JsonReader::size() const { return value_->is_array() ? array().size() : object().size(); }

std::string JsonReader::string() const {
  if (!value_->is_string()) wrong_type(*this, "a string");
  const json::string& text = value_->get_string();
  return std::string(text.data(), text.size());
}

std::int64_t JsonReader::integer() const {
  if (!value_->is_int64()) wrong_type(*this, "an integer"); // larger ones were parsed as uint64 or double
  return value_->get_int64();
}

double JsonReader::number() const {
  if (!value_->is_number()) wrong_type(*this, "a number");
  return value_->to_number<double>();
}

bool JsonReader::boolean() const {
  if (!value_->is_bool()) wrong_type(*this, "true or false");
  return value_->get_bool();
}

const json::object& JsonReader::object() const {
  if (!value_->is_object()) wrong_type(*this, "an object");
  return value_->get_object();
}

const json::array& JsonReader::array() const {
  if (!value_->is_array()) wrong_type(*this, "an array");
  return value_->get_array();
}

std::string JsonReader::string(std::string_view key, std::string_view fallback) const {
  return has(key) ? at(key).string() : std::string(fallback);
}

std::int64_t JsonReader::integer(std::string_view key, std::int64_t fallback) const {
  return has(key) ? at(key).integer() : fallback;
}

double JsonReader::number(std::string_view key, double fallback) const {
  return has(key) ? at(key).number() : fallback;
}

bool JsonReader::boolean(std::string_view key, bool fallback) const { return has(key) ? at(key).boolean() : fallback; }

} // namespace tenon
