#include "registry/version.hpp"

#include "tests/registry/fixtures.hpp"

#include <catch2/catch.hpp>

using namespace tenon;

namespace {
bool in(const char* range, const char* version) { return Range::parse(range).matches(Version::parse(version)); }
} // namespace

TEST_CASE("versions follow the order that semver.org gives") {
  const std::vector<const char*> ascending = {
      "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1",
      "1.0.0",       "1.9.0",         "1.10.0",           "1.11.0",     "2.0.0",        "2.1.0",         "2.1.1"};
  for (std::size_t i = 0; i < ascending.size(); ++i)
    for (std::size_t j = 0; j < ascending.size(); ++j) {
      INFO(ascending[i] << " and " << ascending[j]);
      const Version a = Version::parse(ascending[i]), b = Version::parse(ascending[j]);
      CHECK((a < b) == (i < j));
      CHECK((a == b) == (i == j));
    }
}

TEST_CASE("build metadata has no say in precedence") {
  CHECK(Version::parse("1.0.0+20130313144700") == Version::parse("1.0.0+exp.sha.5114f85"));
  CHECK(Version::parse("1.0.0-beta+exp.sha.5114f85").text() == "1.0.0-beta+exp.sha.5114f85");
}

TEST_CASE("versions that semver.org calls valid are read and written back") {
  for (const char* text : {"0.0.4", "1.2.3", "10.20.30", "1.1.2-prerelease+meta", "1.1.2+meta",
                           "1.0.0-alpha-a.b-c-somethinglong+build.1-aef.1-its-okay", "2.0.0-rc.1+build.123",
                           "1.2.3----RC-SNAPSHOT.12.9.1--.12+788", "1.0.0-0A.is.legal",
                           "1.0.0+0.build.1-rc.10000aaa-kk-0.1", "999999999999999999.0.0"})
    CHECK(Version::parse(text).text() == text);
}

TEST_CASE("versions that semver.org calls invalid are refused") {
  for (const char* text : {"",
                           "1",
                           "1.2",
                           "1.2.3-0123",
                           "1.2.3-0123.0123",
                           "1.1.2+.123",
                           "+invalid",
                           "-invalid",
                           "alpha",
                           "1.2.3.DEV",
                           "1.2-SNAPSHOT",
                           "01.1.1",
                           "1.01.1",
                           "1.1.01",
                           "1.2.3-",
                           "1.2.3+",
                           "1.2.3-+b",
                           "1.1.2+a+b",
                           "-1.0.3",
                           "1.0.0-alpha_beta",
                           "1.0.0-alpha..1",
                           " 1.0.0",
                           "1.0.0 ",
                           "9999999999999999999999.0.0"})
    CHECK_FALSE(Version::try_parse(text));
  CHECK_FALSE(Version::try_parse("1.0.0-" + std::string(1000, 'a')));
}

TEST_CASE("a caret range keeps the leftmost digit that is not zero") {
  CHECK(in("^1.2.3", "1.2.3"));
  CHECK(in("1.2.3", "1.9.0")); // caret is what a bare version means
  CHECK_FALSE(in("^1.2.3", "1.2.2"));
  CHECK_FALSE(in("^1.2.3", "2.0.0"));
  CHECK(in("^0.2.3", "0.2.9"));
  CHECK_FALSE(in("^0.2.3", "0.3.0"));
  CHECK(in("^0.0.3", "0.0.3"));
  CHECK_FALSE(in("^0.0.3", "0.0.4"));
  CHECK(in("^0.0", "0.0.7"));
  CHECK_FALSE(in("^0.0", "0.1.0"));
  CHECK(in("^0", "0.9.1"));
  CHECK_FALSE(in("^0", "1.0.0"));
  CHECK(in("^1", "1.99.0"));
}

TEST_CASE("tilde, equal, wildcard and comparisons are Cargo's") {
  CHECK(in("~1.2.3", "1.2.9"));
  CHECK_FALSE(in("~1.2.3", "1.3.0"));
  CHECK(in("~1.2", "1.2.0"));
  CHECK(in("~1", "1.9.9"));
  CHECK_FALSE(in("~1", "2.0.0"));
  CHECK(in("=1.2.3", "1.2.3"));
  CHECK_FALSE(in("=1.2.3", "1.2.4"));
  CHECK(in("=1.2", "1.2.7"));
  CHECK(in("1.*", "1.7.0"));
  CHECK_FALSE(in("1.*", "2.0.0"));
  CHECK(in("1.2.*", "1.2.9"));
  CHECK_FALSE(in("1.2.*", "1.3.0"));
  CHECK(in("*", "3.4.5"));
  CHECK(in(">=1.2, <1.5", "1.4.9"));
  CHECK_FALSE(in(">=1.2, <1.5", "1.5.0"));
  CHECK_FALSE(in(">1.2", "1.2.9"));
  CHECK(in(">1.2", "1.3.0"));
  CHECK(in("<=1.2", "1.2.9"));
  CHECK_FALSE(in("<=1.2", "1.3.0"));
  CHECK_FALSE(in("<1.2", "1.2.0"));
}

TEST_CASE("a pre-release is only taken by a range that names one of the same version") {
  CHECK_FALSE(in("*", "1.0.0-rc.1"));
  CHECK_FALSE(in("^1", "1.1.0-rc.1"));
  CHECK(in("^1.1.0-rc.1", "1.1.0-rc.2"));
  CHECK(in("^1.1.0-rc.1", "1.1.0"));
  CHECK_FALSE(in("^1.1.0-rc.1", "1.2.0-rc.1"));
  CHECK(in("=1.0.0-rc.1", "1.0.0-rc.1"));
}

TEST_CASE("a range that nobody could mean is refused") {
  for (const char* text : {"", " ", "^", "x", "1.2.3.4", "^1.*", "*.1", "1.*.2", ">=", "1 2", "1,", ",1", "01", "=v1"})
    CHECK_FALSE(Range::try_parse(text));
  CHECK_FALSE(Range::try_parse(std::string(5000, '1')));
}

TEST_CASE("a request is a name and a range") {
  const PackageRequest request = PackageRequest::parse("legal@^1");
  CHECK(request.name == "legal");
  CHECK(request.range.text() == "^1");
  CHECK(request.text() == "legal@^1");
  CHECK(PackageRequest::parse("legal").text() == "legal");
  CHECK(PackageRequest::parse("acme.conv@>=1.2, <2").range.matches(Version::parse("1.5.0")));
  for (const char* text : {"", "@^1", "legal@", "Legal@1", "legal@x", "legal@1@2", "../legal"})
    CHECK(fixtures::error_of([&] { PackageRequest::parse(text); }).code == Code::usage);
}
