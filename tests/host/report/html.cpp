#include "host/report/html.hpp"

#include <catch2/catch.hpp>

namespace tenon {
namespace {

TEST_CASE("no text becomes markup, and no control character stands in a page") {
  CHECK(html_text("<script>\"a\" & 'b'</script>") == "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/script&gt;");
  CHECK(html_text("line\n\ttab") == "line\n\ttab");
  CHECK(html_text(std::string("\0\x1b\x7f", 3)) == "\u2400\u241b\u2421");
  CHECK(html_text("caf\xc3\xa9 \xff") == "café \ufffd");
}

TEST_CASE("no string of a page's JSON can end its script") {
  const json::value value = {{"</script><!--", "<b>&amp;"}};
  const std::string text = html_json(value);
  CHECK(text.find_first_of("<>&") == std::string::npos);
  CHECK(parse_json(text, "page") == value);
}

} // namespace
} // namespace tenon
