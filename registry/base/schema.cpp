#include "registry/base/schema.hpp"

#include "registry/base/error.hpp"
#include "registry/base/schema_words.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <exception>
#include <stdexcept>
#include <unordered_set>

#define VALIJSON_USE_EXCEPTIONS 1 // without it, a bad schema ends the process
#include <valijson/adapters/boost_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validator.hpp>

namespace tenon {
namespace {

constexpr int max_default_depth = 64; // a schema may refer to itself

// Follows a local "$ref" ("#/definitions/layer"); other references were refused when the schema was compiled.
const json::object* resolve(const json::value& schema, const json::value& root) {
  const json::object* object = schema.if_object();
  for (int step = 0; object && step < max_default_depth; ++step) {
    const json::value* reference = object->if_contains("$ref");
    if (!reference || !reference->is_string()) return object;
    const json::string& text = reference->get_string();
    if (text.empty() || text[0] != '#') return nullptr;
    json::error_code ignored;
    const json::value* target = root.find_pointer(json::string_view(text).substr(1), ignored);
    object = target ? target->if_object() : nullptr;
  }
  return nullptr;
}

void fill_defaults(json::value& value, const json::value& schema, const json::value& root, int depth) {
  const json::object* rules = resolve(schema, root);
  if (!rules || !value.is_object() || depth > max_default_depth) return;
  const json::value* properties = rules->if_contains("properties");
  if (!properties || !properties->is_object()) return;
  for (const auto& [key, property] : properties->get_object()) {
    json::object& object = value.get_object();
    if (!object.contains(key)) {
      const json::object* property_rules = resolve(property, root);
      const json::value* fallback = property_rules ? property_rules->if_contains("default") : nullptr;
      if (!fallback) continue;
      object.emplace(key, *fallback);
    }
    fill_defaults(object.at(key), property, root, depth + 1);
  }
}

// valijson matches patterns with std::regex, which recurses once a character: long texts would exhaust the stack.
constexpr std::size_t max_pattern_bytes = 1000, max_matched_bytes = 4096;

bool has_long_text(const json::value& value, std::size_t most) {
  if (value.is_string()) return value.get_string().size() > most;
  if (value.is_array()) {
    return std::ranges::any_of(value.get_array(), [&](const json::value& v) { return has_long_text(v, most); });
  }
  return value.is_object() && std::ranges::any_of(value.get_object(), [&](const auto& member) {
           return member.key().size() > most || has_long_text(member.value(), most);
         });
}

// Whether a regular expression could run: one is written down, or a format that valijson checks with one.
bool uses_patterns(const json::value& schema) {
  if (schema.is_array()) return std::ranges::any_of(schema.get_array(), uses_patterns);
  return schema.is_object() && std::ranges::any_of(schema.get_object(), [](const auto& member) {
           const auto key = member.key();
           return key == "pattern" || key == "patternProperties" || key == "format" || uses_patterns(member.value());
         });
}

// Refuses schemas that valijson would follow for ever: those that apply to a value, in place, a schema that again
// applies themselves. One that recurs only through "properties" or "items" ends with the value, and is fine.
class CircleFinder {
 public:
  explicit CircleFinder(const json::value& root) : root_(root) {}

  void check_all(const json::value& value) {
    if (value.is_array()) {
      for (const json::value& element : value.get_array()) check_all(element);
    } else if (value.is_object()) {
      follow(value, 0);
      for (const auto& member : value.get_object()) check_all(member.value());
    }
  }

 private:
  void follow(const json::value& schema, int depth) {
    if (!schema.is_object() || sound_.contains(&schema)) return;
    if (depth > max_default_depth) throw std::runtime_error("its references run in a circle or too deep");
    const json::object& object = schema.get_object();
    if (const json::value* reference = object.if_contains("$ref")) follow(target(*reference), depth + 1);
    for (const char* key : {"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependencies"}) {
      const json::value* inner = object.if_contains(key);
      if (!inner) continue;
      follow(*inner, depth + 1);
      if (inner->is_array()) {
        for (const json::value& element : inner->get_array()) follow(element, depth + 1);
      } else if (std::string_view(key) == "dependencies" && inner->is_object()) {
        for (const auto& member : inner->get_object()) follow(member.value(), depth + 1);
      }
    }
    sound_.insert(&schema);
  }

  const json::value& target(const json::value& reference) const {
    const json::string* text = reference.if_string();
    json::error_code ignored;
    const json::value* found = text && text->starts_with('#') ? root_.find_pointer(text->subview(1), ignored) : nullptr;
    if (!found)
      throw std::runtime_error("the reference " + json::serialize(reference) + " leads nowhere in this schema");
    return *found;
  }

  const json::value& root_;
  std::unordered_set<const json::value*> sound_;
};

// valijson's "<root>", "[layers]", "[0]" as "layers", "0".
std::vector<std::string> path_of(const valijson::ValidationResults::Error& error) {
  std::vector<std::string> path;
  for (std::size_t i = 1; i < error.context.size(); ++i) {
    const std::string& part = error.context[i];
    const bool bracketed = part.size() >= 2 && part.front() == '[' && part.back() == ']';
    path.push_back(bracketed ? part.substr(1, part.size() - 2) : part);
  }
  return path;
}

// valijson says of every enclosing value that something inside it failed; the innermost line says what.
bool is_echo(std::string_view description) {
  return description.starts_with("Failed to validate against schema associated with property name") ||
         description.starts_with("Failed to validate item #");
}

} // namespace

struct Schema::Compiled {
  json::value source;
  std::string where;
  bool uses_patterns;
  valijson::Schema schema;
};

Schema::Schema(const json::value& schema, std::string where) : compiled_(std::make_unique<Compiled>()) {
  compiled_->source = schema;
  compiled_->where = std::move(where);
  try {
    if (!schema.is_object()) throw std::runtime_error("need an object");
    CircleFinder(schema).check_all(schema);
    compiled_->uses_patterns = uses_patterns(schema);
    if (compiled_->uses_patterns && has_long_text(schema, max_pattern_bytes)) {
      throw std::runtime_error(fmt::format("with patterns, texts may have at most {} bytes", max_pattern_bytes));
    }
    valijson::SchemaParser parser;
    parser.populateSchema(valijson::adapters::BoostJsonAdapter(compiled_->source), compiled_->schema);
  } catch (const std::exception& problem) {
    throw Error(Code::integrity, compiled_->where, fmt::format("is no valid JSON Schema: {}", problem.what()));
  }
}

Schema::~Schema() = default;
Schema::Schema(Schema&&) noexcept = default;

std::vector<std::string> Schema::problems(const json::value& value) const {
  valijson::Validator validator(valijson::Validator::kStrongTypes);
  valijson::ValidationResults results;
  std::vector<std::string> lines;
  if (compiled_->uses_patterns && has_long_text(value, max_matched_bytes)) {
    return {
        fmt::format("/: found a text of more than {} bytes, too long to be matched with a pattern", max_matched_bytes)};
  }
  try {
    if (validator.validate(compiled_->schema, valijson::adapters::BoostJsonAdapter(value), &results)) return lines;
  } catch (const std::exception& problem) {
    lines.push_back(fmt::format("/: cannot be checked against {}: {}", compiled_->where, problem.what()));
  }
  for (valijson::ValidationResults::Error error; results.popError(error);) {
    if (!is_echo(error.description))
      lines.push_back(in_words(compiled_->source, value, path_of(error), error.description));
  }
  if (lines.empty()) lines.push_back("/: does not conform to " + compiled_->where);
  return lines;
}

json::value Schema::with_defaults(const json::value& value) const {
  json::value filled = value;
  fill_defaults(filled, compiled_->source, compiled_->source, 0);
  return filled;
}

} // namespace tenon
