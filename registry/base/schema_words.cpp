#include "registry/base/schema_words.hpp"

#include <fmt/format.h>

#include <boost/json/serialize.hpp>
#include <cctype>
#include <charconv>
#include <utility>

namespace tenon {
namespace {

const json::value* member(const json::value* value, std::string_view key) {
  const json::object* object = value ? value->if_object() : nullptr;
  return object ? object->if_contains(key) : nullptr;
}

const json::value* element(const json::value* value, std::string_view index) {
  const json::array* array = value ? value->if_array() : nullptr;
  std::size_t at = 0;
  const auto [end, error] = std::from_chars(index.data(), index.data() + index.size(), at);
  return array && error == std::errc() && at < array->size() ? &(*array)[at] : nullptr;
}

// A local "$ref" followed; a schema that refers elsewhere was refused when it was compiled.
const json::value* resolved(const json::value* schema, const json::value& root) {
  for (int step = 0; step < 64; ++step) {
    const json::value* reference = member(schema, "$ref");
    if (!reference || !reference->is_string() || !reference->get_string().starts_with('#')) return schema;
    json::error_code ignored;
    schema = root.find_pointer(json::string_view(reference->get_string()).substr(1), ignored);
  }
  return schema;
}

std::string shown(const json::value& value) {
  constexpr std::size_t kMost = 60;
  std::string text = json::serialize(value);
  return text.size() > kMost ? text.substr(0, kMost) + "..." : text;
}

// "a, b or c"
std::string listed(const json::array& values) {
  std::string text;
  for (std::size_t i = 0; i < values.size(); ++i)
    text += (i == 0 ? "" : i + 1 == values.size() ? " or " : ", ") + json::serialize(values[i]);
  return text;
}

std::string fields_of(const json::value* schema) {
  const json::value* properties = member(schema, "properties");
  std::string text;
  if (properties && properties->is_object())
    for (const auto& property : properties->get_object())
      text += (text.empty() ? "" : ", ") + std::string(property.key());
  return text;
}

std::string quoted_in(std::string_view rule) {
  const std::size_t first = rule.find('\''), last = rule.rfind('\'');
  // The name of a property that is not allowed stands last, after the names of two constraints.
  const std::size_t start = last == std::string_view::npos || last == first ? first : rule.rfind('\'', last - 1);
  return std::string(rule.substr(start + 1, last - start - 1));
}

std::string lower_first(std::string_view rule) {
  std::string text(rule);
  if (!text.empty()) text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  if (text.ends_with('.')) text.pop_back();
  return text;
}

// Keywords, and the validator's words for them; the longer of two that begin alike first.
constexpr std::pair<const char*, std::string_view> kBounds[] = {{"minimum", "greater than or equal to"},
                                                                {"maximum", "less than or equal to"},
                                                                {"exclusiveMinimum", "greater than"},
                                                                {"exclusiveMaximum", "less than"}};

std::string reason(const json::value* schema, const json::value* found, std::string_view rule) {
  if (rule.starts_with("Object contains a property")) {
    const std::string fields = fields_of(schema);
    return fmt::format("found the field \"{}\", need {}", quoted_in(rule),
                       fields.empty() ? "none" : "one of " + fields);
  }
  if (rule.starts_with("Missing required property")) return fmt::format("the field \"{}\" is missing", quoted_in(rule));
  const std::string left = found ? "found " + shown(*found) + ", need " : "need ";
  if (const json::value* type = member(schema, "type"); type && rule.starts_with("Value type not permitted"))
    return left + (type->is_array() ? listed(type->get_array()) : std::string(type->get_string()));
  if (const json::value* choices = member(schema, "enum");
      choices && rule.starts_with("Failed to match against any enum"))
    return left + listed(choices->get_array());
  if (rule.starts_with("Expected number"))
    for (const auto& [keyword, words] : kBounds)
      if (const json::value* bound = member(schema, keyword); bound && rule.find(words) != std::string_view::npos)
        return left + std::string(words) + " " + json::serialize(*bound);
  return found ? "found " + shown(*found) + ": " + lower_first(rule) : lower_first(rule);
}

} // namespace

std::string in_words(const json::value& schema, const json::value& value, std::span<const std::string> path,
                     std::string_view rule) {
  const json::value *inner = resolved(&schema, schema), *found = &value;
  std::string place;
  for (const std::string& key : path) {
    place += "/" + key;
    const bool is_index = found && found->is_array();
    found = is_index ? element(found, key) : member(found, key);
    const json::value* items = member(inner, "items");
    inner = resolved(is_index ? (items && items->is_array() ? element(items, key) : items)
                              : member(member(inner, "properties"), key),
                     schema);
  }
  return (place.empty() ? "/" : place) + ": " + reason(inner, found, rule);
}

} // namespace tenon
