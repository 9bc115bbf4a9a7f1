#include "registry/base/schema.hpp"

#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <exception>
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

// valijson's "<root>[layers][0]" as the "/layers/0" that JsonReader writes.
std::string path_of(const valijson::ValidationResults::Error& error) {
  std::string path;
  for (std::size_t i = 1; i < error.context.size(); ++i) {
    const std::string& part = error.context[i];
    const bool bracketed = part.size() >= 2 && part.front() == '[' && part.back() == ']';
    path += "/" + (bracketed ? part.substr(1, part.size() - 2) : part);
  }
  return path.empty() ? "/" : path;
}

} // namespace

struct Schema::Compiled {
  json::value source;
  std::string where;
  valijson::Schema schema;
};

Schema::Schema(const json::value& schema, std::string where) : compiled_(std::make_unique<Compiled>()) {
  compiled_->source = schema;
  compiled_->where = std::move(where);
  try {
    if (!schema.is_object()) throw std::runtime_error("need an object");
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
  try {
    if (validator.validate(compiled_->schema, valijson::adapters::BoostJsonAdapter(value), &results)) return lines;
  } catch (const std::exception& problem) {
    lines.push_back(fmt::format("/: cannot be checked against {}: {}", compiled_->where, problem.what()));
  }
  for (valijson::ValidationResults::Error error; results.popError(error);) {
    lines.push_back(path_of(error) + ": " + error.description);
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
