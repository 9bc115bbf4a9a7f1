#include "host/cli/numbers.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace tenon {
namespace {

// The number that the whole text is.
template <class Number>
std::optional<Number> number_in(std::string_view text) {
  Number out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return out;
}

std::string refused(const std::string& found, const char* need) {
  return fmt::format("found \"{}\", need {}", found.substr(0, 40), need);
}

CLI::Validator whole(std::int64_t least, const char* need, const char* shown) {
  const auto check = [least, need](std::string& text) {
    const auto found = number_in<std::int64_t>(text);
    return found && *found >= least ? std::string() : refused(text, need);
  };
  return CLI::Validator(check, shown);
}

CLI::Validator real(bool zero, const char* need, const char* shown) {
  const auto check = [zero, need](std::string& text) {
    const auto found = number_in<double>(text);
    return found && std::isfinite(*found) && (*found > 0 || (zero && *found == 0)) ? std::string()
                                                                                   : refused(text, need);
  };
  return CLI::Validator(check, shown);
}

// 1.5G, 1.5GB and 1.5GiB are the same.
std::optional<double> bytes_in(std::string_view text) {
  constexpr std::string_view kUnits = "kmgt";
  const std::size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const auto number = number_in<double>(text.substr(0, digits));
  std::string unit;
  for (const char letter : text.substr(digits)) unit += static_cast<char>(letter | 0x20); // lower case
  if (!number) return std::nullopt;
  if (unit.empty() || unit == "b") return std::floor(*number);
  const std::size_t power = kUnits.find(unit.front());
  const std::string rest = unit.substr(1);
  if (power == std::string_view::npos || !(rest.empty() || rest == "b" || rest == "i" || rest == "ib"))
    return std::nullopt;
  return std::floor(*number * std::pow(1024.0, static_cast<double>(power + 1)));
}

} // namespace

CLI::Validator from_one() { return whole(1, "a whole number from 1", "POSITIVE"); }
CLI::Validator from_zero() { return whole(0, "a whole number from 0", "NONNEGATIVE"); }
CLI::Validator above_zero() { return real(false, "a number above 0", "POSITIVE"); }
CLI::Validator zero_or_more() { return real(true, "a number, 0 or more", "NONNEGATIVE"); }

CLI::Validator size_in_bytes() {
  const auto change = [](std::string& text) {
    const auto bytes = bytes_in(text);
    if (!bytes || *bytes >= 0x1p63) return refused(text, "a size such as 512M or 1.5G (k, M, G, T), or 0");
    text = std::to_string(static_cast<std::int64_t>(*bytes));
    return std::string();
  };
  return CLI::Validator(change, "");
}

} // namespace tenon
