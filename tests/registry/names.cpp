#include "registry/names.hpp"

#include "tests/registry/fixtures.hpp"

#include <catch2/catch.hpp>

using namespace tenon;

TEST_CASE("names of packages are lower-case letters and digits with single separators") {
  for (const char* good : {"legal", "legal-de", "a", "smollm2-135m", "acme.low_rank", "x1.y2-z3"})
    CHECK(name_problem(good) == "");
  for (const char* bad : {"", "Legal", "1legal", "-legal", "legal-", "le--gal", "le..gal", "../etc", "le gal", "le/gal",
                          "l\xc3\xa9gal", ".hidden", "le._gal", "legal\n"})
    CHECK(name_problem(bad) != "");
  CHECK(name_problem(std::string(64, 'a')) == "");
  CHECK(name_problem(std::string(65, 'a')) != "");
  CHECK(name_problem(std::string_view("a\0b", 3)) != "");
}

TEST_CASE("a plugin's name has a vendor and an expert's need not") {
  CHECK(name_problem("acme.memory", Kind::plugin) == "");
  CHECK(name_problem("memory", Kind::plugin) != "");
  CHECK(name_problem("memory", Kind::expert) == "");
  const Error error = fixtures::error_of([] { require_name("memory", Kind::plugin); });
  CHECK(error.code == Code::usage);
  CHECK(error.unit == "TN-R5 name");
}

TEST_CASE("names that differ only in dash and underscore collide") {
  CHECK(collision_key("low-rank") == collision_key("low_rank"));
  CHECK(collision_key("low.rank") != collision_key("low_rank"));
}

TEST_CASE("a digest is sha256 and 64 lower-case hex digits") {
  CHECK(is_digest(digest_of_text("x")));
  CHECK_FALSE(is_digest("sha256:" + std::string(63, 'a')));
  CHECK_FALSE(is_digest("sha256:" + std::string(64, 'A')));
  CHECK_FALSE(is_digest("sha256:" + std::string(62, 'a') + "/."));
  CHECK_FALSE(is_digest("md5:" + std::string(64, 'a')));
  CHECK_FALSE(is_digest(""));
}

TEST_CASE("paths in a package stay inside it") {
  for (const char* good : {"weights.safetensors", "calibration/d0.bin", "a/b/c"})
    CHECK(package_path_problem(good) == "");
  for (const char* bad :
       {"", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "./a", ".git/config", "a\\b", "a b", "a\nb"})
    CHECK(package_path_problem(bad) != "");
}
