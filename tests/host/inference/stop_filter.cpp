#include "host/inference/stop_filter.hpp"

#include <catch2/catch.hpp>

namespace tenon {
namespace {

std::string text_of(const std::vector<Piece>& pieces) {
  std::string out;
  for (const Piece& piece : pieces) out += piece.text;
  return out;
}

// What comes out piece by piece, joined by '|', then what the end lets go.
std::string filtered(const std::vector<std::string>& pieces, std::vector<std::string> stops) {
  StopFilter filter(std::move(stops));
  std::string out;
  for (std::size_t i = 0; i < pieces.size(); ++i)
    out += text_of(filter.push({pieces[i], static_cast<std::int64_t>(i)})) + "|";
  return out + text_of(filter.flush()) + (filter.stopped() ? " stopped" : "");
}

TEST_CASE("text without a stop string goes through at once") {
  CHECK(filtered({"one ", "two"}, {}) == "one |two|");
  CHECK(filtered({"one ", "two"}, {"END"}) == "one |two|");
  CHECK(filtered({"a"}, {""}) == "a|");
}

TEST_CASE("a stop string is found across pieces, and no part of it is shown") {
  CHECK(filtered({"text E", "N", "D more"}, {"END"}) == "text ||| stopped");
  CHECK(filtered({"xEND"}, {"END"}) == "x| stopped");
}

TEST_CASE("what only looked like a stop string is shown once that is sure") {
  CHECK(filtered({"E", "N", "T"}, {"END"}) == "||ENT|");
  CHECK(filtered({"E", "N"}, {"END"}) == "||EN");
  CHECK(filtered({"EE", "END"}, {"END"}) == "E|E| stopped");
  CHECK(filtered({"aab", "aabb"}, {"aabb"}) == "|aab| stopped");
}

TEST_CASE("of several stop strings, the one that is complete counts, and begins first") {
  StopFilter filter({"bc", "abcd"});
  CHECK(text_of(filter.push({"xabc", 0})) == "xa"); // the longer one is not complete
  CHECK(filter.found() == "bc");
  CHECK(filtered({"x", "\n", "\nUser:"}, {"User:", "\n\n"}) == "x||| stopped");
}

TEST_CASE("each piece keeps the number of the token that wrote it") {
  StopFilter filter({"END"});
  CHECK(filter.push({"E", 0}).empty());
  const auto out = filter.push({"very", 1});
  REQUIRE(out.size() == 2);
  CHECK(out[0].text == "E");
  CHECK(out[0].token == 0);
  CHECK(out[1].text == "very");
  CHECK(out[1].token == 1);
}

} // namespace
} // namespace tenon
