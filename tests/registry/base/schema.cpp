#include "registry/base/schema.hpp"

#include "registry/base/error.hpp"
#include "tests/support/mutate_json.hpp"

#include <catch2/catch.hpp>

namespace tenon {
namespace {

json::value schema_value() {
  return parse_json(R"({
    "type": "object", "additionalProperties": false, "required": ["rank"],
    "definitions": {"drop": {"type": "number", "default": 0.5}},
    "properties": {
      "rank": {"type": "integer", "minimum": 1},
      "drop": {"$ref": "#/definitions/drop"},
      "inner": {"type": "object", "default": {}, "properties": {"width": {"type": "integer", "default": 64}}},
      "names": {"type": "array", "items": {"enum": ["q", "k"]}}
    }})",
                    "schema");
}

} // namespace

TEST_CASE("a conforming value has no problems") {
  const Schema schema(schema_value(), "acme.mlp");
  CHECK(schema.problems(parse_json(R"({"rank":4,"names":["q"]})", "")).empty());
}

TEST_CASE("each problem names its field") {
  const Schema schema(schema_value(), "acme.mlp");
  const auto text = [&](const char* value) {
    std::string all;
    for (const std::string& line : schema.problems(parse_json(value, ""))) all += line + "\n";
    return all;
  };
  CHECK_THAT(text(R"({"rank":0})"), Catch::Contains("/rank: ") && !Catch::Contains("associated"));
  CHECK_THAT(text(R"({"rank":1.5})"), Catch::Contains("/rank: "));
  CHECK_THAT(text(R"({})"), Catch::Contains("rank"));
  CHECK_THAT(text(R"({"rank":1,"rnak":2})"), Catch::Contains("rnak"));
  CHECK_THAT(text(R"({"rank":1,"names":["q","v"]})"), Catch::Contains("/names/1: "));
  CHECK_FALSE(text(R"([])").empty());
}

TEST_CASE("each problem says what was found and what is needed") {
  const Schema schema(schema_value(), "acme.mlp");
  const auto text = [&](const char* value) { return schema.problems(parse_json(value, "")).at(0); };
  CHECK(text(R"({"rank":0})") == "/rank: found 0, need greater than or equal to 1");
  CHECK(text(R"({"rank":"four"})") == "/rank: found \"four\", need integer");
  CHECK(text(R"({})") == "/: the field \"rank\" is missing");
  CHECK(text(R"({"rank":1,"rnak":2})") == "/: found the field \"rnak\", need one of rank, drop, inner, names");
  CHECK(text(R"({"rank":1,"names":["q","v"]})") == "/names/1: found \"v\", need \"q\" or \"k\"");
  CHECK(text(R"({"rank":1,"drop":true})") == "/drop: found true, need number");
}

TEST_CASE("defaults are filled in, nested and referred ones too, and never overwrite") {
  const Schema schema(schema_value(), "acme.mlp");
  const auto filled = schema.with_defaults(parse_json(R"({"rank":4})", ""));
  CHECK(canonical_json(filled) == R"({"drop":0.5,"inner":{"width":64},"rank":4})");
  const auto kept = schema.with_defaults(parse_json(R"({"rank":4,"drop":0.1,"inner":{"width":8}})", ""));
  CHECK(canonical_json(kept) == R"({"drop":0.1,"inner":{"width":8},"rank":4})");
}

TEST_CASE("what is no schema is refused") {
  CHECK_THROWS_AS(Schema(parse_json("[]", ""), "s"), Error);
  CHECK_THROWS_AS(Schema(parse_json(R"({"type":"nonsense"})", ""), "s"), Error);
  CHECK_THROWS_AS(Schema(parse_json(R"({"$ref":"http://example.org/x"})", ""), "s"), Error);
  CHECK_THROWS_AS(Schema(parse_json(R"({"properties":{"a":{"minimum":"x"}}})", ""), "s"), Error);
}

TEST_CASE("a schema that refers to itself does not run away") {
  const Schema schema(
      parse_json(R"({"type":"object","properties":{"next":{"$ref":"#","default":{}}},"default":{}})", ""), "s");
  CHECK_NOTHROW(schema.with_defaults(parse_json("{}", "")));
}

TEST_CASE("references in a circle are refused") {
  CHECK_THROWS_AS(Schema(parse_json(R"({"$ref":"#"})", ""), "s"), Error);
  CHECK_THROWS_AS(Schema(parse_json(R"({"$ref":"#/d/a","d":{"a":{"$ref":"#/d/b"},"b":{"$ref":"#/d/a"}}})", ""), "s"),
                  Error);
  CHECK_THROWS_AS(Schema(parse_json(R"({"properties":{"a":{"allOf":[{"$ref":"#/nowhere"}]}}})", ""), "s"), Error);
}

TEST_CASE("a schema that applies itself in place is refused, one that recurs with the value is used") {
  for (const char* text :
       {R"({"allOf":[{"$ref":"#"}]})", R"({"properties":{"a":{"not":{"anyOf":[{"$ref":"#/properties/a"}]}}}})",
        R"({"if":{"$ref":"#"},"then":{}})", R"({"dependencies":{"a":{"$ref":"#"}}})"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(Schema(parse_json(text, ""), "s"), Error);
  }
  const Schema tree(
      parse_json(R"({"type":"object","properties":{"child":{"$ref":"#"}},"additionalProperties":false})", ""), "s");
  CHECK(tree.problems(parse_json(R"({"child":{"child":{}}})", "")).empty());
  CHECK_FALSE(tree.problems(parse_json(R"({"child":{"child":{"x":1}}})", "")).empty());
}

TEST_CASE("a pattern is not tried on a text long enough to exhaust the stack") {
  const Schema schema(parse_json(R"({"properties":{"name":{"type":"string","pattern":"^(a|b)*$"}}})", ""), "s");
  CHECK(schema.problems(json::object{{"name", "abab"}}).empty());
  CHECK_FALSE(schema.problems(json::object{{"name", "abac"}}).empty());
  CHECK_FALSE(schema.problems(json::object{{"name", std::string(1000000, 'a')}}).empty());
  CHECK_THROWS_AS(Schema(json::object{{"pattern", std::string(100000, '(')}}, "s"), Error);
}

TEST_CASE("a damaged schema is used or refused") {
  const std::string valid = R"({"type":"object","required":["rank"],"definitions":{"d":{"type":"number","default":0.5}},
    "properties":{"rank":{"type":"integer","minimum":1,"multipleOf":2},"drop":{"$ref":"#/definitions/d"},
    "list":{"type":"array","items":[{"enum":["q","k"]}],"uniqueItems":true,"maxItems":3},
    "either":{"oneOf":[{"type":"string","pattern":"^[a-z]+$"},{"not":{"type":"string"}}]}},
    "additionalProperties":{"$ref":"#"}})";
  const auto value = parse_json(R"({"rank":4,"drop":0.1,"list":["q"],"either":"x","more":{"rank":2}})", "");
  REQUIRE(Schema(parse_json(valid, ""), "s").problems(value) == std::vector<std::string>{});
  Mutator mutator(2);
  int used = 0, refused = 0;
  for (int i = 0; i < 3000; ++i) {
    try {
      const Schema schema(parse_json(i % 2 ? mutator.mutate(valid) : mutate_json(mutator, valid), "fuzz"), "fuzz");
      schema.problems(value);
      schema.with_defaults(value);
      ++used;
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(used > 200);
  CHECK(refused > 500);
}

} // namespace tenon
