#include "registry/base/json.hpp"

#include "registry/base/error.hpp"
#include "registry/base/files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/basic_parser_impl.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value_stack.hpp>
#include <charconv>
#include <cmath>
#include <unordered_set>
#include <vector>

namespace tenon {
namespace {

// Builds a value as Boost.JSON's own parser does, and refuses a key that its object already has. Numbers with a
// fraction are converted again by from_chars: Boost 1.81 rounds some of them one unit wrong.
struct StrictHandler {
  static constexpr std::size_t max_object_size = json::object::max_size();
  static constexpr std::size_t max_array_size = json::array::max_size();
  static constexpr std::size_t max_key_size = json::string::max_size();
  static constexpr std::size_t max_string_size = json::string::max_size();

  json::value_stack stack;
  std::vector<std::unordered_set<std::string>> keys;
  std::string key, number, problem;

  bool refuse(std::string why, json::error_code& ec) {
    problem = std::move(why);
    ec = json::make_error_code(json::error::syntax);
    return false;
  }
  bool on_document_begin(json::error_code&) {
    stack.reset();
    return true;
  }
  bool on_document_end(json::error_code&) { return true; }
  bool on_object_begin(json::error_code&) {
    keys.emplace_back();
    return true;
  }
  bool on_object_end(std::size_t n, json::error_code&) {
    keys.pop_back();
    stack.push_object(n);
    return true;
  }
  bool on_array_begin(json::error_code&) { return true; }
  bool on_array_end(std::size_t n, json::error_code&) {
    stack.push_array(n);
    return true;
  }
  bool on_key_part(json::string_view s, std::size_t, json::error_code&) {
    key.append(s.data(), s.size());
    stack.push_chars(s);
    return true;
  }
  bool on_key(json::string_view s, std::size_t, json::error_code& ec) {
    key.append(s.data(), s.size());
    stack.push_key(s);
    if (!keys.back().insert(key).second) return refuse(fmt::format("the key \"{}\" is given twice", key), ec);
    key.clear();
    return true;
  }
  bool on_string_part(json::string_view s, std::size_t, json::error_code&) {
    stack.push_chars(s);
    return true;
  }
  bool on_string(json::string_view s, std::size_t, json::error_code&) {
    stack.push_string(s);
    return true;
  }
  bool on_number_part(json::string_view s, json::error_code&) {
    number.append(s.data(), s.size());
    return true;
  }
  bool on_int64(std::int64_t i, json::string_view, json::error_code&) {
    number.clear();
    stack.push_int64(i);
    return true;
  }
  bool on_uint64(std::uint64_t u, json::string_view, json::error_code&) {
    number.clear();
    stack.push_uint64(u);
    return true;
  }
  bool on_double(double approximate, json::string_view s, json::error_code& ec) {
    number.append(s.data(), s.size());
    double exact = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), exact);
    // Out of range is either too large, which is refused, or too small, which is zero or a denormal.
    if (error == std::errc::result_out_of_range) exact = std::abs(approximate) < 1 ? approximate : HUGE_VAL;
    if (!std::isfinite(exact)) return refuse(fmt::format("the number {} does not fit a double", number), ec);
    number.clear();
    stack.push_double(exact);
    return true;
  }
  bool on_bool(bool b, json::error_code&) {
    stack.push_bool(b);
    return true;
  }
  bool on_null(json::error_code&) {
    stack.push_null();
    return true;
  }
  bool on_comment_part(json::string_view, json::error_code&) { return true; }
  bool on_comment(json::string_view, json::error_code&) { return true; }
};

json::parse_options strict_options() {
  json::parse_options options;
  options.max_depth = 64;
  options.allow_comments = false;
  options.allow_trailing_commas = false;
  options.allow_invalid_utf8 = false;
  return options;
}

// "line 3, column 14": where a reader would put the cursor. Columns count bytes. Text of one line may itself be a line
// of a file, so its number is left out.
std::string place(std::string_view text, std::size_t offset) {
  if (text.find('\n') == std::string_view::npos) return fmt::format("column {}", offset + 1);
  const std::string_view before = text.substr(0, offset);
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const std::size_t start = before.rfind('\n');
  const std::size_t column = start == std::string_view::npos ? offset + 1 : offset - start;
  return fmt::format("line {}, column {}", line, column);
}

// What the parser calls a syntax error, in plainer words where there are any.
std::string problem_at(std::string_view text, std::size_t offset, const std::string& problem) {
  if (text.starts_with("\xEF\xBB\xBF")) return "the file begins with a byte order mark, need plain UTF-8";
  if (offset < text.size() && static_cast<unsigned char>(text[offset]) >= 0x80)
    return fmt::format("the byte 0x{:02x} does not belong there, need text in UTF-8",
                       static_cast<unsigned char>(text[offset]));
  return problem;
}

// The shortest text that reads back as the same double, and as a double. JSON has no word for what is not finite.
std::string number_text(double number) {
  if (!std::isfinite(number)) return "null";
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, number);
  std::string text(buffer, result.ptr);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string scalar_text(const json::value& value) {
  return value.is_double() ? number_text(value.get_double()) : json::serialize(value);
}

bool is_scalar(const json::value& value) { return !value.is_object() && !value.is_array(); }

// A short array of scalars stays on one line: a shape is read at a glance.
bool fits_one_line(const json::array& array) {
  return array.size() <= 16 && std::all_of(array.begin(), array.end(), is_scalar);
}

void write_pretty(std::string& out, const json::value& value, int depth) {
  const auto new_line = [&](int d) { out.append("\n").append(2 * static_cast<std::size_t>(d), ' '); };
  if (value.is_object() && !value.get_object().empty()) {
    char before = '{';
    for (const auto& [key, member] : value.get_object()) {
      out += before;
      before = ',';
      new_line(depth + 1);
      out += json::serialize(json::string_view(key)) + ": ";
      write_pretty(out, member, depth + 1);
    }
    new_line(depth);
    out += '}';
  } else if (value.is_array() && !value.get_array().empty()) {
    const bool one_line = fits_one_line(value.get_array());
    out += '[';
    const char* between = "";
    for (const json::value& element : value.get_array()) {
      out += between;
      between = one_line ? ", " : ",";
      if (!one_line) new_line(depth + 1);
      write_pretty(out, element, depth + 1);
    }
    if (!one_line) new_line(depth);
    out += ']';
  } else {
    out += scalar_text(value);
  }
}

void write_canonical(std::string& out, const json::value& value) {
  const char* between = "";
  if (value.is_object()) {
    std::vector<const json::key_value_pair*> members;
    for (const auto& member : value.get_object()) members.push_back(&member);
    std::sort(members.begin(), members.end(), [](auto* a, auto* b) { return a->key() < b->key(); });
    out += '{';
    for (const auto* member : members) {
      out += between + json::serialize(member->key()) + ":";
      between = ",";
      write_canonical(out, member->value());
    }
    out += '}';
  } else if (value.is_array()) {
    out += '[';
    for (const json::value& element : value.get_array()) {
      out += between;
      between = ",";
      write_canonical(out, element);
    }
    out += ']';
  } else {
    out += scalar_text(value);
  }
}

} // namespace

json::value parse_json(std::string_view text, std::string_view where) {
  json::basic_parser<StrictHandler> parser(strict_options());
  json::error_code error;
  const std::size_t used = parser.write_some(false, text.data(), text.size(), error);
  std::string problem = parser.handler().problem;
  if (problem.empty() && error) problem = problem_at(text, used, error.message());
  if (problem.empty() && used < text.size()) problem = "text after the end of the value";
  if (!problem.empty()) {
    throw Error(Code::integrity, std::string(where),
                fmt::format("is no valid JSON: {}, {}", place(text, used), problem), kMendFile);
  }
  return parser.handler().stack.release();
}

json::value read_json(const std::filesystem::path& path, std::size_t limit_bytes) {
  return parse_json(read_file(path, limit_bytes), path.string());
}

std::string pretty_json(const json::value& value) {
  std::string out;
  write_pretty(out, value, 0);
  return out + '\n';
}

std::string canonical_json(const json::value& value) {
  std::string out;
  write_canonical(out, value);
  return out;
}

} // namespace tenon
