#include "registry/base/error.hpp"
#include "registry/base/json.hpp"
#include "tests/support/mutate.hpp"

#include <catch2/catch.hpp>

namespace tenon {

TEST_CASE("damaged json is read or refused, and what is read is written and read back the same") {
  const std::string valid =
      R"({"schema": 1, "name": "legal", "nested": [[[{"a": null}]], true, false, -1.5e-7, 18446744073709551615],
    "text": "\u00e9\ud83d\ude00\\\" caf\u00e9", "config": {"rank": 16, "alpha": 0.1, "empty": {}, "none": []}, "é": "日本"})";
  Mutator mutator(1);
  int read = 0, refused = 0;
  for (int i = 0; i < 4000; ++i) {
    const std::string text = mutator.mutate(valid);
    try {
      const json::value value = parse_json(text, "fuzz");
      const std::string canonical = canonical_json(value);
      if (canonical_json(parse_json(canonical, "again")) != canonical) FAIL("does not round-trip: " << canonical);
      if (parse_json(pretty_json(value), "pretty") != value) FAIL("pretty does not round-trip: " << canonical);
      ++read;
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(read > 50);
  CHECK(refused > 1000);
}

} // namespace tenon
