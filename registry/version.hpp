// Semantic versions (semver 2) and ranges as Cargo reads them.
//
// Precedence ignores build metadata, and so does equality. A pre-release matches a range only where one of the range's
// comparators names a pre-release of the same major.minor.patch, as in Cargo.
// Thread: values; any thread.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

struct Version {
  std::uint64_t major = 0, minor = 0, patch = 0;
  std::string pre;   // "rc.1", without the dash
  std::string build; // without the plus

  // Errors: usage, with what was found.
  static Version parse(std::string_view text);
  static std::optional<Version> try_parse(std::string_view text);
  std::string text() const;

  std::strong_ordering operator<=>(const Version& other) const;
  bool operator==(const Version& other) const { return (*this <=> other) == 0; }
};

class Range {
 public:
  // "^1.2", "1.2" (the same), "~1.2.3", "=1.2.3", ">=1, <1.5", "1.*", "*". Errors: usage, with the forms there are.
  static Range parse(std::string_view text);
  static std::optional<Range> try_parse(std::string_view text);

  bool matches(const Version& version) const;
  const std::string& text() const { return text_; } // as written
  bool operator==(const Range& other) const { return text_ == other.text_; }

  enum class Op { exact, greater, greater_equal, less, less_equal, tilde, caret, wildcard };

 private:
  struct Comparator {
    Op op = Op::caret;
    std::uint64_t major = 0;
    std::optional<std::uint64_t> minor, patch;
    std::string pre;
    bool matches(const Version& version) const;
    bool admits_pre_release_of(const Version& version) const;
  };
  static std::optional<Comparator> parse_comparator(std::string_view text);

  std::string text_ = "*";
  std::vector<Comparator> comparators_; // all must match; none means "*"
};

// What a person asks for: "legal", "legal@^1", "acme.conv@>=1.2, <2".
struct PackageRequest {
  std::string name;
  Range range;

  // Without "@" the range is "*". Errors: usage (name or range).
  static PackageRequest parse(std::string_view text);
  std::string text() const;
  bool operator==(const PackageRequest&) const = default;
};

} // namespace tenon
