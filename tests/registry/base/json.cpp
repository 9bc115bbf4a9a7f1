#include "registry/base/json.hpp"

#include "registry/base/error.hpp"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <limits>

namespace tenon {
namespace {

std::string refusal(std::string_view text) {
  try {
    parse_json(text, "test.json");
  } catch (const Error& error) {
    CHECK(error.code == Code::integrity);
    return error.what();
  }
  return "accepted";
}

} // namespace

TEST_CASE("json refuses a duplicate key and says where") {
  CHECK_THAT(refusal("{\"a\":1,\n \"b\":2,\n \"a\":3}"),
             Catch::Contains("line 3") && Catch::Contains("\"a\" is given twice"));
  CHECK_THAT(refusal(R"({"x":{"k":1,"k":2}})"), Catch::Contains("\"k\""));
  CHECK_THAT(refusal(R"({"ab":1,"\u0061b":2})"), Catch::Contains("twice")); // the same key, written otherwise
}

TEST_CASE("json accepts one key in several objects") {
  CHECK(parse_json(R"([{"a":1},{"a":{"a":2}}])", "").as_array().size() == 2);
}

TEST_CASE("json refuses what is no JSON, with the place") {
  for (const char* text : {"", "{", "[1,]", "{\"a\":1,}", "[1] x", "// c\n1", "nul", "\"\xff\"", "[1e999]", "NaN",
                           "'a'", "\"\\ud800\"", "{\"a\" 1}", "\xef\xbb\xbf{}"}) {
    CAPTURE(text);
    CHECK_THAT(refusal(text), Catch::StartsWith("[test.json] is no valid JSON: ") && Catch::Contains("column "));
  }
  CHECK_THAT(refusal("{\n  \"a\": flase\n}"), Catch::Contains("line 2, column 8"));
  CHECK_THAT(refusal("\"\xff\""), Catch::Contains("column 2") && Catch::Contains("0xff") && Catch::Contains("UTF-8"));
  CHECK_THAT(refusal("\xef\xbb\xbf{}"), Catch::Contains("byte order mark"));
}

TEST_CASE("json refuses nesting over 64") {
  const auto nested = [](int n) { return std::string(n, '[') + std::string(n, ']'); };
  CHECK_NOTHROW(parse_json(nested(64), ""));
  CHECK_THAT(refusal(nested(65)), Catch::Contains("is no valid JSON"));
  CHECK_THAT(refusal(std::string(1000000, '[')), Catch::Contains("is no valid JSON"));
}

TEST_CASE("json numbers are read to the nearest double and written to read back the same") {
  for (const double number : {1e-05, 0.1, 1.0 / 3.0, 5e-324, 2.2250738585072011e-308, 1.7976931348623157e308,
                              123456789.123, 9007199254740993.0, -0.0, 1e23, 8.41e21}) {
    const std::string text = canonical_json(json::value(number));
    CAPTURE(text);
    CHECK(parse_json(text, "").as_double() == number);
    CHECK(std::strtod(text.c_str(), nullptr) == number);
  }
  CHECK(parse_json("0.30000000000000004", "").as_double() == 0.30000000000000004);
  CHECK(parse_json("1e-400", "").as_double() == 0);
  CHECK(parse_json("7", "").is_int64());
  CHECK(canonical_json(7) == "7");
  CHECK(canonical_json(7.0) == "7.0");
  CHECK(canonical_json(std::numeric_limits<double>::quiet_NaN()) == "null");
}

TEST_CASE("canonical json does not depend on the order of keys, pretty json keeps it") {
  const auto a = parse_json(R"({"b":[1,2],"a":{"d":null,"c":"é\n"}})", ""),
             b = parse_json(R"({"a":{"c":"é\n","d":null},"b":[1,2]})", "");
  CHECK(canonical_json(a) == "{\"a\":{\"c\":\"é\\n\",\"d\":null},\"b\":[1,2]}");
  CHECK(canonical_json(a) == canonical_json(b));
  CHECK(pretty_json(a) == "{\n  \"b\": [1, 2],\n  \"a\": {\n    \"d\": null,\n    \"c\": \"é\\n\"\n  }\n}\n");
  CHECK(parse_json(pretty_json(a), "") == a);
}

TEST_CASE("a reader names the field that is wrong, with both sides") {
  const auto value = parse_json(R"({"config":{"rank":"x","list":[1,true],"big":9223372036854775808}})", "");
  const JsonReader config = JsonReader(value, "expert.json").at("config");
  CHECK_THROWS_WITH(config.at("rank").integer(),
                    Catch::StartsWith("[expert.json] /config/rank: found \"x\", need an integer"));
  CHECK_THROWS_WITH(config.at("list").at(1).number(),
                    Catch::StartsWith("[expert.json] /config/list/1: found true, need a number"));
  CHECK_THROWS_WITH(config.at("none"), Catch::Contains("/config") && Catch::Contains("\"none\" is missing"));
  CHECK_THROWS_WITH(config.at("big").integer(), Catch::Contains("need an integer"));
  CHECK_THROWS_WITH(config.at("list").at(7), Catch::Contains("found 2 elements"));
  CHECK(config.integer("absent", 5) == 5);
  CHECK_THROWS_AS(config.integer("rank", 5), Error);
}

} // namespace tenon
