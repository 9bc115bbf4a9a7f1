#include "registry/version.hpp"

#include "registry/base/error.hpp"
#include "registry/names.hpp"
#include "registry/rules.hpp"

#include <algorithm>

namespace tenon {
namespace {

constexpr std::size_t kTextLimit = 256;

bool all_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// No leading zeros, no overflow, as semver 2 demands.
std::optional<std::uint64_t> number(std::string_view text) {
  if (!all_digits(text) || text.size() > 18 || (text.size() > 1 && text.front() == '0')) return std::nullopt;
  std::uint64_t value = 0;
  for (char c : text) value = value * 10 + static_cast<std::uint64_t>(c - '0');
  return value;
}

// Dot-separated identifiers; numeric ones of a pre-release carry no leading zero.
bool identifiers_valid(std::string_view text, bool pre_release) {
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('.', begin), text.size());
    const std::string_view part = text.substr(begin, end - begin);
    const bool legal = !part.empty() && std::all_of(part.begin(), part.end(), [](char c) {
      return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-';
    });
    if (!legal) return false;
    if (pre_release && part.size() > 1 && part.front() == '0' && all_digits(part)) return false;
    begin = end + 1;
  }
  return true;
}

// Digits compare as numbers of any length: a longer one without leading zeros is the larger.
std::strong_ordering compare_identifiers(std::string_view a, std::string_view b) {
  const bool a_number = all_digits(a), b_number = all_digits(b);
  if (a_number != b_number) return a_number ? std::strong_ordering::less : std::strong_ordering::greater;
  if (a_number && a.size() != b.size()) return a.size() <=> b.size();
  return a.compare(b) <=> 0;
}

std::strong_ordering compare_pre(std::string_view a, std::string_view b) {
  if (a.empty() || b.empty()) return a.empty() <=> b.empty(); // a release follows its pre-releases
  while (true) {
    const std::size_t a_end = std::min(a.find('.'), a.size()), b_end = std::min(b.find('.'), b.size());
    if (const auto order = compare_identifiers(a.substr(0, a_end), b.substr(0, b_end)); order != 0) return order;
    const bool a_done = a_end == a.size(), b_done = b_end == b.size();
    if (a_done || b_done) return b_done <=> a_done; // the one with more parts is the larger
    a.remove_prefix(a_end + 1);
    b.remove_prefix(b_end + 1);
  }
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

} // namespace

std::optional<Version> Version::try_parse(std::string_view text) {
  if (text.size() > kTextLimit) return std::nullopt;
  Version version;
  if (const auto plus = text.find('+'); plus != std::string_view::npos) {
    version.build = text.substr(plus + 1);
    if (!identifiers_valid(version.build, false)) return std::nullopt;
    text = text.substr(0, plus);
  }
  if (const auto dash = text.find('-'); dash != std::string_view::npos) {
    version.pre = text.substr(dash + 1);
    if (!identifiers_valid(version.pre, true)) return std::nullopt;
    text = text.substr(0, dash);
  }
  const auto first = text.find('.');
  const auto second = first == std::string_view::npos ? first : text.find('.', first + 1);
  if (second == std::string_view::npos) return std::nullopt;
  const auto major = number(text.substr(0, first));
  const auto minor = number(text.substr(first + 1, second - first - 1));
  const auto patch = number(text.substr(second + 1));
  if (!major || !minor || !patch) return std::nullopt;
  version.major = *major;
  version.minor = *minor;
  version.patch = *patch;
  return version;
}

Version Version::parse(std::string_view text) {
  if (auto version = try_parse(text)) return *version;
  throw Error(Code::usage, rules::kName, "\"" + std::string(text.substr(0, 80)) + "\" is no version",
              "write three numbers, as in 1.2.0 or 1.2.0-rc.1");
}

std::string Version::text() const {
  std::string text = std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
  if (!pre.empty()) text += "-" + pre;
  if (!build.empty()) text += "+" + build;
  return text;
}

std::strong_ordering Version::operator<=>(const Version& other) const {
  if (const auto order = major <=> other.major; order != 0) return order;
  if (const auto order = minor <=> other.minor; order != 0) return order;
  if (const auto order = patch <=> other.patch; order != 0) return order;
  return compare_pre(pre, other.pre);
}

std::optional<Range::Comparator> Range::parse_comparator(std::string_view text) {
  static constexpr std::pair<std::string_view, Op> kOps[] = {
      {">=", Op::greater_equal}, {"<=", Op::less_equal}, {">", Op::greater}, {"<", Op::less},
      {"=", Op::exact},          {"~", Op::tilde},       {"^", Op::caret}};
  Comparator result;
  bool written = false;
  for (const auto& [word, op] : kOps) {
    if (!text.starts_with(word)) continue;
    result.op = op;
    written = true;
    text = trim(text.substr(word.size()));
    break;
  }
  if (auto whole = Version::try_parse(text)) {
    result.major = whole->major;
    result.minor = whole->minor;
    result.patch = whole->patch;
    result.pre = whole->pre;
    return result;
  }
  // One or two numbers, or numbers followed by stars: "1", "1.2", "1.*", "1.2.*", "1.*.*".
  std::vector<std::optional<std::uint64_t>> parts;
  bool star = false;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('.', begin), text.size());
    const std::string_view part = text.substr(begin, end - begin);
    const auto value = number(part);
    if (part == "*")
      star = true;
    else if (!value || star)
      return std::nullopt;
    parts.push_back(value);
    begin = end + 1;
  }
  if (parts.empty() || parts.size() > 3 || !parts[0] || (star && written)) return std::nullopt;
  if (parts.size() == 3 && !star) return std::nullopt; // three numbers that are no version
  result.major = *parts[0];
  if (parts.size() > 1) result.minor = parts[1];
  if (parts.size() > 2) result.patch = parts[2];
  if (star) result.op = Op::wildcard;
  return result;
}

std::optional<Range> Range::try_parse(std::string_view text) {
  if (text.size() > kTextLimit) return std::nullopt;
  Range range;
  range.text_ = trim(text);
  if (range.text_.empty()) return std::nullopt;
  if (range.text_ == "*") return range;
  const std::string_view whole = range.text_;
  for (std::size_t begin = 0; begin <= whole.size();) {
    const std::size_t end = std::min(whole.find(',', begin), whole.size());
    auto comparator = parse_comparator(trim(whole.substr(begin, end - begin)));
    if (!comparator) return std::nullopt;
    range.comparators_.push_back(std::move(*comparator));
    begin = end + 1;
  }
  return range;
}

Range Range::parse(std::string_view text) {
  if (auto range = try_parse(text)) return *range;
  throw Error(Code::usage, rules::kName, "\"" + std::string(text.substr(0, 80)) + "\" is no version range",
              "write one of: 1.2.0 or ^1.2 (compatible), ~1.2, =1.2.0, 1.*, *, or \">=1.2, <2\"");
}

// Each operator follows Cargo's table; a part left out means "any" there.
bool Range::Comparator::matches(const Version& v) const {
  const Version low{major, minor.value_or(0), patch.value_or(0), pre, ""};
  const auto same_prefix = [&] {
    return v.major == major && (!minor || v.minor == *minor) && (!patch || v.patch == *patch);
  };
  switch (op) {
    case Op::exact: return patch ? v == low : same_prefix();
    case Op::greater: return patch ? v > low : v > low && !same_prefix();
    case Op::greater_equal: return v >= low;
    case Op::less: return v < low;
    case Op::less_equal: return patch ? v <= low : v < low || same_prefix();
    case Op::wildcard: return same_prefix();
    case Op::tilde: return v >= low && v.major == major && (!minor || v.minor == *minor);
    case Op::caret: break;
  }
  if (v < low || v.major != major) return false;
  if (major > 0 || !minor) return true;
  if (*minor > 0 || !patch) return v.minor == *minor;
  return v.minor == 0 && v.patch == *patch;
}

bool Range::Comparator::admits_pre_release_of(const Version& v) const {
  return !pre.empty() && v.major == major && minor == v.minor && patch == v.patch;
}

bool Range::matches(const Version& version) const {
  for (const Comparator& comparator : comparators_)
    if (!comparator.matches(version)) return false;
  if (version.pre.empty()) return true;
  return std::any_of(comparators_.begin(), comparators_.end(),
                     [&](const Comparator& c) { return c.admits_pre_release_of(version); });
}

PackageRequest PackageRequest::parse(std::string_view text) {
  const auto at = text.find('@');
  PackageRequest request{std::string(text.substr(0, at)), Range()};
  if (at != std::string_view::npos) request.range = Range::parse(text.substr(at + 1));
  if (const std::string problem = name_problem(request.name); !problem.empty())
    throw Error(Code::usage, rules::kName, "\"" + std::string(text.substr(0, 80)) + "\" names no package: " + problem,
                "write a name, or a name and a range, as in legal or legal@^1");
  return request;
}

std::string PackageRequest::text() const { return range.text() == "*" ? name : name + "@" + range.text(); }

} // namespace tenon
