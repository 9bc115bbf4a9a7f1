#include "host/loading/facts.hpp"

#include "host/loading/elf.hpp"
#include "registry/base/error.hpp"
#include "registry/base/schema.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

namespace tenon {
namespace {

constexpr std::size_t kFactsLimitBytes = 1 << 20;
constexpr std::string_view kRemedy = "build the plugin with tenon_add_plugin(), which checks plugin.json";

// The author's part, the same as sdk/cmake/TenonFacts.cmake checks when it builds; then the build's part.
constexpr std::string_view kSchema = R"json({
  "type": "object", "additionalProperties": false,
  "required": ["schema", "name", "version", "vendor", "license", "summary", "architectures", "platform", "abi",
               "source"],
  "properties": {
    "schema": {"const": 1},
    "name": {"$ref": "#/definitions/name"},
    "version": {"type": "string", "minLength": 5},
    "vendor": {"type": "string", "pattern": "^[a-z][a-z0-9_-]*$"},
    "license": {"type": "string", "minLength": 1},
    "summary": {"type": "string"},
    "homepage": {"type": "string"},
    "ext": {"type": "object"},
    "architectures": {"type": "array", "minItems": 1, "maxItems": 256, "items": {"$ref": "#/definitions/architecture"}},
    "platform": {
      "type": "object", "additionalProperties": false,
      "required": ["compiler", "stdlib", "libtorch", "cuda", "cpu"],
      "properties": {"compiler": {"type": "string"}, "stdlib": {"type": "string"}, "libtorch": {"type": "string"},
                     "cuda": {"type": "string"}, "cpu": {"type": "string"}}
    },
    "abi": {
      "type": "object", "additionalProperties": false, "required": ["tier", "built", "needs"],
      "properties": {"tier": {"enum": ["tenon.native/1", "tenon.portable/1"]},
                     "built": {"$ref": "#/definitions/abi"}, "needs": {"$ref": "#/definitions/abi"}}
    },
    "source": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
  },
  "definitions": {
    "name": {"type": "string", "maxLength": 64, "pattern": "^[a-z][a-z0-9_-]*\\.[a-z][a-z0-9_-]*$"},
    "abi": {"type": "string", "pattern": "^[0-9]{1,5}\\.[0-9]{1,5}$"},
    "texts": {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 256, "uniqueItems": true},
    "architecture": {
      "type": "object", "additionalProperties": false,
      "required": ["name", "config", "context", "devices", "precisions"],
      "properties": {
        "name": {"$ref": "#/definitions/name"},
        "summary": {"type": "string"},
        "config": {"type": "object"},
        "context": {"oneOf": [
          {"enum": ["token", "causal", "recurrent"]},
          {"type": "object", "additionalProperties": false, "required": ["window"],
           "properties": {"window": {"type": "integer", "minimum": 1, "maximum": 1048576}}}]},
        "uses": {"type": "array", "items": {"enum": ["base.output"]}, "uniqueItems": true},
        "imports": {"const": "layers"},
        "learns": {"enum": ["gradient", "pass"]},
        "widths": {"oneOf": [
          {"const": "any"},
          {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 256},
          {"type": "object", "additionalProperties": false, "required": ["multiple_of"],
           "properties": {"multiple_of": {"type": "integer", "minimum": 1}}}]},
        "devices": {"$ref": "#/definitions/texts"},
        "precisions": {"type": "array", "items": {"enum": ["float32", "bfloat16"]}, "minItems": 1, "uniqueItems": true},
        "operators": {"$ref": "#/definitions/texts"},
        "cpu_features": {"$ref": "#/definitions/texts"},
        "memory": {"type": "object", "additionalProperties": false,
                   "properties": {"working_bytes_per_row": {"type": "integer", "minimum": 0}}},
        "ext": {"type": "object"}
      }
    }
  }
})json";

const Schema& facts_schema() {
  static const Schema schema(parse_json(kSchema, "facts schema"), "facts schema");
  return schema;
}

std::vector<std::string> texts(const JsonReader& parent, std::string_view key) {
  std::vector<std::string> out;
  if (!parent.has(key)) return out;
  const JsonReader list = parent.at(key);
  for (std::size_t i = 0; i < list.size(); ++i) out.push_back(list.at(i).string());
  return out;
}

AbiVersion abi_of(const JsonReader& reader) {
  const std::string text = reader.string();
  AbiVersion out;
  const auto dot = text.find('.');
  std::from_chars(text.data(), text.data() + dot, out.major);
  std::from_chars(text.data() + dot + 1, text.data() + text.size(), out.minor);
  return out;
}

Widths widths_of(const JsonReader& architecture) {
  Widths out;
  if (!architecture.has("widths")) return out;
  const JsonReader widths = architecture.at("widths");
  if (widths.value().is_array()) {
    for (std::size_t i = 0; i < widths.size(); ++i) out.only.push_back(widths.at(i).integer());
  } else if (widths.value().is_object()) {
    out.multiple_of = widths.at("multiple_of").integer();
  }
  return out;
}

ArchitectureFacts architecture_of(const JsonReader& reader) {
  ArchitectureFacts out;
  out.name = reader.at("name").string();
  out.summary = reader.string("summary", "");
  out.config = reader.at("config").object();
  const JsonReader context = reader.at("context");
  if (context.value().is_object()) {
    out.context = {ExpertContext::Kind::window, context.at("window").integer()};
  } else {
    out.context = ExpertContext::parse(context.string());
  }
  out.uses = texts(reader, "uses");
  out.imports_layers = reader.has("imports");
  out.learns_in_a_pass = reader.string("learns", "gradient") == "pass";
  out.widths = widths_of(reader);
  out.devices = texts(reader, "devices");
  out.precisions = texts(reader, "precisions");
  out.operators = texts(reader, "operators");
  out.cpu_features = texts(reader, "cpu_features");
  if (reader.has("memory")) out.working_bytes_per_row = reader.at("memory").integer("working_bytes_per_row", 0);
  return out;
}

// What a schema cannot say.
void check_sense(const Facts& facts, const JsonReader& reader) {
  const std::string prefix = facts.vendor + ".";
  if (facts.name.compare(0, prefix.size(), prefix) != 0) {
    reader.at("name").fail(
        fmt::format("found \"{}\", need a name that begins with the vendor: \"{}...\"", facts.name, prefix));
  }
  for (std::size_t i = 0; i < facts.architectures.size(); ++i) {
    const ArchitectureFacts& one = facts.architectures[i];
    const JsonReader place = reader.at("architectures").at(i);
    if (one.name.compare(0, prefix.size(), prefix) != 0) {
      place.at("name").fail(fmt::format("found \"{}\", need a name that begins with \"{}\"", one.name, prefix));
    }
    if (facts.architecture(one.name) != &one) place.at("name").fail(fmt::format("found \"{}\" twice", one.name));
    [[maybe_unused]] const Schema schema(one.config, one.name + " config"); // throws where it is none
    if (one.learns_in_a_pass && !one.uses_base_output())
      place.at("learns").fail(
          "found \"pass\" without \"uses\": [\"base.output\"], need both: what is learnt corrects the base");
    if (one.devices.empty()) place.at("devices").fail("found no device, need at least \"cpu\"");
  }
  if (facts.abi_needs > facts.abi_built || facts.abi_needs.major != facts.abi_built.major) {
    reader.at("abi").fail(fmt::format("found needs {} and built {}, need the first not above the second",
                                      facts.abi_needs.text(), facts.abi_built.text()));
  }
}

} // namespace

std::string Platform::text() const {
  return fmt::format("{} {} libtorch-{} cuda-{} {}", compiler, stdlib, libtorch, cuda, cpu);
}

std::string AbiVersion::text() const { return fmt::format("{}.{}", major, minor); }

ExpertContext ExpertContext::parse(std::string_view text) {
  if (text == "token") return {Kind::token, 1};
  if (text == "causal") return {Kind::causal, 0};
  if (text == "recurrent") return {Kind::recurrent, 0};
  if (text.starts_with("window(") && text.ends_with(")")) {
    std::int64_t window = 0;
    const char* const last = text.data() + text.size() - 1;
    const auto [end, error] = std::from_chars(text.data() + 7, last, window);
    if (error == std::errc() && end == last && window > 0) return {Kind::window, window};
  }
  throw Error(Code::integrity, "facts",
              fmt::format("found the context \"{}\", need token, window(n), causal or recurrent", text),
              std::string(kRemedy));
}

std::string ExpertContext::text() const {
  switch (kind) {
    case Kind::token: return "token";
    case Kind::window: return fmt::format("window({})", window);
    case Kind::causal: return "causal";
    case Kind::recurrent: return "recurrent";
  }
  return "";
}

bool Widths::allow(std::int64_t width) const {
  if (width <= 0 || width % multiple_of != 0) return false;
  return only.empty() || std::find(only.begin(), only.end(), width) != only.end();
}

std::string Widths::text() const {
  if (only.empty()) return multiple_of == 1 ? "any" : fmt::format("multiples of {}", multiple_of);
  return fmt::format("{}", fmt::join(only, " or "));
}

bool ArchitectureFacts::uses_base_output() const {
  return std::find(uses.begin(), uses.end(), "base.output") != uses.end();
}

json::object ArchitectureFacts::complete(const json::object& given) const {
  const Schema schema(config, name + " config");
  const json::value full = schema.with_defaults(given);
  const std::vector<std::string> problems = schema.problems(full);
  if (!problems.empty()) {
    throw Error(Code::integrity, name, fmt::format("config: {}", fmt::join(problems, "; ")),
                fmt::format("tenon show PLUGIN says what {} takes, for the plugin that has it", name));
  }
  return full.as_object();
}

Facts Facts::parse(std::string_view text, const std::string& where) {
  if (text.size() > kFactsLimitBytes) {
    throw Error(Code::integrity, where,
                fmt::format("found {} bytes of facts, need at most {}", text.size(), kFactsLimitBytes),
                std::string(kRemedy));
  }
  const json::value value = parse_json(text, where);
  if (const auto problems = facts_schema().problems(value); !problems.empty()) {
    throw Error(Code::integrity, where, fmt::format("facts: {}", fmt::join(problems, "; ")), std::string(kRemedy));
  }
  const JsonReader reader(value, where);
  Facts out;
  out.name = reader.at("name").string();
  out.vendor = reader.at("vendor").string();
  out.license = reader.at("license").string();
  out.summary = reader.at("summary").string();
  const auto version = Version::try_parse(reader.at("version").string());
  if (!version) reader.at("version").fail("found \"" + reader.at("version").string() + "\", need a version like 1.2.3");
  out.version = *version;
  const JsonReader list = reader.at("architectures");
  for (std::size_t i = 0; i < list.size(); ++i) out.architectures.push_back(architecture_of(list.at(i)));
  const JsonReader platform = reader.at("platform");
  out.platform = {platform.at("compiler").string(), platform.at("stdlib").string(), platform.at("libtorch").string(),
                  platform.at("cuda").string(), platform.at("cpu").string()};
  out.tier = reader.at("abi").at("tier").string();
  out.abi_built = abi_of(reader.at("abi").at("built"));
  out.abi_needs = abi_of(reader.at("abi").at("needs"));
  out.source = reader.at("source").string();
  out.json = value.as_object();
  check_sense(out, reader);
  return out;
}

const ArchitectureFacts* Facts::architecture(std::string_view wanted) const {
  const auto found = std::find_if(architectures.begin(), architectures.end(),
                                  [&](const ArchitectureFacts& one) { return one.name == wanted; });
  return found == architectures.end() ? nullptr : &*found;
}

std::string facts_text(std::span<const std::byte> library, const std::string& where) {
  const auto text = ElfFile::parse(library, where).note("Tenon", 1);
  if (!text) {
    throw Error(Code::integrity, where, "found no facts in this library, need the note that tenon_add_plugin() embeds",
                std::string(kRemedy));
  }
  return std::string(*text);
}

Facts read_facts(std::span<const std::byte> library, const std::string& where) {
  return Facts::parse(facts_text(library, where), where);
}

} // namespace tenon
