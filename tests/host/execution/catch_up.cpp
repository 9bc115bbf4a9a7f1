#include "host/execution/catch_up.hpp"

#include <catch2/catch.hpp>

using namespace tenon;

namespace {

std::string text(const std::vector<Stretch>& all) {
  std::string out;
  for (const Stretch& one : all)
    out += (one.fresh ? "fresh " : "on ") + std::to_string(one.first) + "-" + std::to_string(one.last) + " ";
  return out;
}

std::string stretches_of(const char* context, std::vector<std::int64_t> chosen, Seen seen = {}) {
  return text(stretches(ExpertContext::parse(context), chosen, seen));
}

} // namespace

TEST_CASE("causal and recurrent experts go on from what they have seen, to the last chosen position") {
  for (const char* context : {"causal", "recurrent"}) {
    CHECK(stretches_of(context, {3, 9}) == "on 0-10 ");
    CHECK(stretches_of(context, {30}, {0, 12}) == "on 12-31 ");
    CHECK(stretches_of(context, {}) == "");
    CHECK(stretches_of(context, {5}, {0, 12}) == ""); // the base, asked a second time
  }
}

TEST_CASE("a window restarts only behind a gap longer than itself") {
  CHECK(stretches_of("window(4)", {0, 2}) == "on 0-3 ");
  CHECK(stretches_of("window(4)", {3}) == "on 0-4 ");
  CHECK(stretches_of("window(4)", {4}) == "fresh 1-5 ");
  CHECK(stretches_of("window(4)", {15}, {0, 12}) == "on 12-16 ");
  CHECK(stretches_of("window(4)", {16}, {0, 12}) == "fresh 13-17 ");
  CHECK(stretches_of("window(4)", {14, 30, 33, 60}, {0, 12}) == "on 12-15 fresh 27-34 fresh 57-61 ");
  CHECK(stretches_of("window(1)", {5, 6, 9}) == "fresh 5-7 fresh 9-10 ");
  CHECK(stretches_of("window(1000)", {50}, {0, 12}) == "on 12-51 ");
  CHECK(stretches_of("window(4)", {5, 11}, {0, 12}).empty()); // they have been run
  CHECK(stretches_of("window(4)", {11, 13}, {0, 12}) == "on 12-14 ");
}

TEST_CASE("a window's state that began too late is no state to go on from") {
  CHECK(stretches_of("window(5)", {30}, {26, 28}) == "on 28-31 ");
  CHECK(stretches_of("window(5)", {29}, {26, 28}) == "fresh 25-30 ");
}
