// The host's table in C++: its log, configuration values, and the failures that go back to it. Random numbers and state
// are in expert.hpp. Thread: any.
#pragma once

#include <tenon/plugin.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace tenon {

// What an expert throws when it has to say why. Any other exception becomes TENON_FAILED, or TENON_NO_MEMORY
// where that is what ran out, with its what().
class Failure : public std::runtime_error {
 public:
  Failure(tenon_status status, const std::string& message) : std::runtime_error(message), status(status) {}
  tenon_status status;
};

namespace detail {
inline const tenon_host* host = nullptr; // set once, before anything else is called
}

inline const tenon_host& host() {
  if (!detail::host) throw Failure(TENON_BAD_ARGUMENT, "the host's table is not there yet: init() comes first");
  return *detail::host;
}

inline void log(tenon_log_level level, std::string_view text) { host().log(level, {text.data(), text.size()}); }

// A JSON value seen from one place in it. Errors: Failure(TENON_BAD_CONFIG) naming the place.
class Config {
 public:
  Config(const tenon_values* values, std::string place) : values_(values), place_(std::move(place)) {}

  Config at(const std::string& key) const { return Config(values_, place_ + "/" + key); }
  Config at(std::uint64_t index) const { return at(std::to_string(index)); }

  std::int64_t integer() const { return read<std::int64_t>(host().value_integer, "an integer"); }
  double number() const { return read<double>(host().value_number, "a number"); }
  bool boolean() const { return read<int>(host().value_boolean, "true or false") != 0; }
  std::uint64_t count() const { return read<std::uint64_t>(host().value_count, "an array or object"); }
  std::string text() const {
    const tenon_text text = read<tenon_text>(host().value_text, "a string");
    return std::string(text.data, text.size);
  }
  bool has(const std::string& key) const {
    const std::string place = place_ + "/" + key;
    std::int64_t i;
    double d;
    int b;
    std::uint64_t n;
    tenon_text t;
    return host().value_integer(values_, place.c_str(), &i) == TENON_OK ||
           host().value_number(values_, place.c_str(), &d) == TENON_OK ||
           host().value_boolean(values_, place.c_str(), &b) == TENON_OK ||
           host().value_text(values_, place.c_str(), &t) == TENON_OK ||
           host().value_count(values_, place.c_str(), &n) == TENON_OK;
  }

 private:
  template <class T>
  T read(tenon_status (*get)(const tenon_values*, const char*, T*), const char* need) const {
    T out{};
    if (get(values_, place_.c_str(), &out) == TENON_OK) return out;
    throw Failure(TENON_BAD_CONFIG, "configuration " + place_ + ": need " + need);
  }

  const tenon_values* values_;
  std::string place_;
};

} // namespace tenon
