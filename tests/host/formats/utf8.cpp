#include "host/formats/utf8.hpp"

#include <catch2/catch.hpp>

using namespace tenon;

TEST_CASE("utf8 takes the longest valid prefix and no half character") {
  CHECK(utf8_valid_prefix("caf\xC3\xA9") == 5);
  CHECK(utf8_valid_prefix("caf\xC3") == 3);
  CHECK(utf8_valid_prefix("\xF0\x9F\x91\x8D!") == 5);
  CHECK(utf8_valid_prefix("") == 0);
}

TEST_CASE("utf8 refuses surrogates, overlong forms and what lies beyond U+10FFFF") {
  for (const char* bad : {"\xED\xA0\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\x80", "\xFF"}) {
    CAPTURE(utf8_replaced(bad));
    CHECK(utf8_valid_prefix(bad) == 0);
  }
}

TEST_CASE("utf8 replaces each maximal subpart of an ill-formed stretch by one U+FFFD") {
  // The example of the Unicode standard, table 3-8.
  CHECK(utf8_replaced("\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64") ==
        "\uFFFD\uFFFD\uFFFD"
        "b\uFFFD"
        "c\uFFFD\uFFFD"
        "d");
  CHECK(utf8_invalid_bytes("a\xC3 b\xFF") == 2);
}

TEST_CASE("utf8 tells a character that is cut off from one that is wrong") {
  CHECK(utf8_step("\xE2\x82").incomplete);
  CHECK(utf8_step("\xE2\x82").length_bytes == 2);
  CHECK_FALSE(utf8_step("\xE2(").incomplete);
  CHECK_FALSE(utf8_step("\xED\xA0").incomplete);
}

TEST_CASE("utf8 writes every scalar value so that it reads back") {
  for (char32_t c = 0; c <= 0x10FFFF; c += c < 0x1000 ? 1 : 61) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    utf8_append(text, c);
    const Utf8Step step = utf8_step(text);
    if (!step.valid || step.length_bytes != text.size()) {
      CAPTURE(static_cast<std::uint32_t>(c));
      FAIL("does not read back");
    }
  }
}
