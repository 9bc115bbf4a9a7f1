#include "host/cli/fields.hpp"

#include <fmt/format.h>
#include <boost/json.hpp>

namespace tenon {
namespace {

std::string text_of(const json::value& value) {
  if (value.is_string()) return std::string(value.get_string());
  return value.is_double() ? fmt::format("{}", value.get_double()) : json::serialize(value);
}

const json::value* find(const json::object& schema, std::string_view name) { return schema.if_contains(name); }

std::string range_of(const json::object& schema) {
  const json::value *least = find(schema, "minimum"), *above = find(schema, "exclusiveMinimum"),
                    *most = find(schema, "maximum"), *below = find(schema, "exclusiveMaximum");
  if (least && most) return fmt::format("{} to {}", text_of(*least), text_of(*most));
  std::vector<std::string> bounds;
  if (least) bounds.push_back("from " + text_of(*least));
  if (above) bounds.push_back("above " + text_of(*above));
  if (most) bounds.push_back("to " + text_of(*most));
  if (below) bounds.push_back("below " + text_of(*below));
  return joined(bounds, ", ");
}

// What it takes, in a few words.
std::string kind_of(const json::object& schema) {
  if (const json::value* choices = find(schema, "enum")) {
    std::vector<std::string> words;
    for (const json::value& choice : choices->as_array()) words.push_back(text_of(choice));
    return joined(words, " | ");
  }
  const json::value* type = find(schema, "type");
  if (!type || !type->is_string()) return "";
  const std::string_view name = type->get_string();
  if (name == "array") return "list";
  if (name == "string") return "text";
  const std::string range = range_of(schema);
  if (range.empty()) return std::string(name);
  return (name == "integer" ? "" : "number ") + range;
}

void append(Table& table, const json::object& schema, const std::string& prefix) {
  const json::value* properties = find(schema, "properties");
  if (!properties) return;
  for (const auto& [key, value] : properties->as_object()) {
    const json::object& field = value.as_object();
    const std::string name = prefix + std::string(key);
    if (find(field, "properties")) {
      append(table, field, name + ".");
      continue;
    }
    const json::value *standard = find(field, "default"), *description = find(field, "description");
    table.rows.push_back(
        {name, kind_of(field), standard ? text_of(*standard) : "", description ? text_of(*description) : ""});
  }
}

} // namespace

Table fields_table(const json::object& schema) {
  Table table{{"field", "takes", "default", ""}, {}, {}};
  append(table, schema, "");
  return table;
}

} // namespace tenon
