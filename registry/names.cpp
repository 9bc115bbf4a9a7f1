#include "registry/names.hpp"

#include "registry/base/error.hpp"
#include "registry/base/sha256.hpp"
#include "registry/rules.hpp"

#include <algorithm>

namespace tenon {
namespace {

constexpr std::size_t kNameLimit = 64;
constexpr std::size_t kPathLimit = 255;

bool is_letter(char c) { return c >= 'a' && c <= 'z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_separator(char c) { return c == '.' || c == '-' || c == '_'; }

} // namespace

const char* kind_name(Kind kind) {
  switch (kind) {
    case Kind::model: return "model";
    case Kind::plugin: return "plugin";
    case Kind::expert: return "expert";
  }
  return "package";
}

std::string a_kind(Kind kind) { return (kind == Kind::expert ? "an " : "a ") + std::string(kind_name(kind)); }

std::optional<Kind> kind_of(std::string_view text) {
  for (Kind kind : {Kind::model, Kind::plugin, Kind::expert})
    if (text == kind_name(kind)) return kind;
  return std::nullopt;
}

std::string name_problem(std::string_view name) {
  if (name.empty()) return "it is empty";
  if (name.size() > kNameLimit) return "it has " + std::to_string(name.size()) + " characters, at most 64 are allowed";
  if (!is_letter(name.front())) return "it does not begin with a lower-case letter";
  for (std::size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    if (!is_letter(c) && !is_digit(c) && !is_separator(c))
      return "character " + std::to_string(i + 1) + " is none of a-z 0-9 . - _";
    if (is_separator(c) && (i + 1 == name.size() || is_separator(name[i + 1])))
      return "a . - or _ stands at its end or beside another";
  }
  return "";
}

std::string name_problem(std::string_view name, Kind kind) {
  std::string problem = name_problem(name);
  if (problem.empty() && kind == Kind::plugin && name.find('.') == std::string_view::npos)
    problem = "a plugin's name is vendor.name, and it has no dot";
  return problem;
}

void require_name(std::string_view name, Kind kind) {
  const std::string problem = name_problem(name, kind);
  if (problem.empty()) return;
  throw Error(Code::usage, rules::kName,
              "\"" + std::string(name.substr(0, 80)) + "\" cannot name " + a_kind(kind) + ": " + problem,
              "use lower-case letters and digits with single . - _ between them" +
                  std::string(kind == Kind::plugin ? ", as in acme.memory" : ", as in legal-de"));
}

std::string collision_key(std::string_view name) {
  std::string key(name);
  std::replace(key.begin(), key.end(), '_', '-');
  return key;
}

bool is_digest(std::string_view text) {
  constexpr std::string_view prefix = "sha256:";
  if (text.size() != prefix.size() + 64 || !text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return std::all_of(text.begin(), text.end(), [](char c) { return is_digit(c) || (c >= 'a' && c <= 'f'); });
}

std::string digest_of_text(std::string_view text) { return "sha256:" + sha256(text); }

std::string package_path_problem(std::string_view path) {
  if (path.empty()) return "it is empty";
  if (path.size() > kPathLimit) return "it is longer than 255 characters";
  for (char c : path)
    if (c <= ' ' || c > '~' || c == '\\') return "it holds a space, a backslash or a character outside printable ASCII";
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty()) return "it is absolute, or has an empty part";
    if (part.front() == '.') return "a part of it begins with a dot";
    begin = end + 1;
  }
  return "";
}

std::string line_problem(std::string_view text) {
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // The second half of the test is U+0080 to U+009F in UTF-8: some terminals obey those, too.
    const bool control = byte < 0x20 || byte == 0x7f ||
                         (byte == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0);
    if (control) return "byte " + std::to_string(i + 1) + " is a control character";
  }
  return "";
}

} // namespace tenon
