#include "host/cli/numbers.hpp"

#include <catch2/catch.hpp>

using namespace tenon;

namespace {

// What it makes of a text; "refused: ..." where it takes none.
std::string taken(const CLI::Validator& validator, std::string text) {
  const std::string refusal = validator(text);
  return refusal.empty() ? text : "refused: " + refusal;
}

} // namespace

TEST_CASE("whole numbers are taken from their first on, and all else is refused in a few words") {
  CHECK(taken(from_one(), "1") == "1");
  CHECK(taken(from_zero(), "0") == "0");
  CHECK(taken(from_one(), "9223372036854775807") == "9223372036854775807");
  CHECK(taken(from_one(), "0") == "refused: found \"0\", need a whole number from 1");
  for (const char* wrong : {"", "-1", "x", "1.5", "1x", " 1", "9223372036854775808", "1e3", "nan"}) {
    INFO(wrong);
    CHECK_THAT(taken(from_one(), wrong), Catch::Contains("need a whole number from 1"));
    CHECK_THAT(taken(from_zero(), wrong), Catch::Contains("need a whole number from 0"));
  }
}

TEST_CASE("numbers are taken above zero, or from it on, and only finite ones") {
  CHECK(taken(above_zero(), "0.5") == "0.5");
  CHECK(taken(above_zero(), "1e-3") == "1e-3");
  CHECK(taken(zero_or_more(), "0") == "0");
  CHECK(taken(above_zero(), "0") == "refused: found \"0\", need a number above 0");
  for (const char* wrong : {"", "-1", "x", "inf", "nan", "1e999"}) {
    INFO(wrong);
    CHECK_THAT(taken(above_zero(), wrong), Catch::Contains("above 0"));
    CHECK_THAT(taken(zero_or_more(), wrong), Catch::Contains("0 or more"));
  }
}

TEST_CASE("a size may have a fraction and a unit, and what does not fit or is negative is refused") {
  CHECK(taken(size_in_bytes(), "0") == "0");
  CHECK(taken(size_in_bytes(), "1000") == "1000");
  CHECK(taken(size_in_bytes(), "1k") == "1024");
  CHECK(taken(size_in_bytes(), "512M") == std::to_string(512 << 20));
  for (const char* same : {"1.5G", "1.5g", "1.5GB", "1.5GiB"}) CHECK(taken(size_in_bytes(), same) == "1610612736");
  for (const char* wrong : {"", "-1", "G", "1.5.5G", "1X", "1kk", "10000000000000000000", "9999999T", "1 G"}) {
    INFO(wrong);
    CHECK_THAT(taken(size_in_bytes(), wrong), Catch::Contains("512M or 1.5G"));
  }
}
