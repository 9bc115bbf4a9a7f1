#include "host/formats/gguf.hpp"

#include "host/formats/gguf_parser.hpp"
#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <cstring>
#include <limits>

namespace tenon {
namespace {

const char* type_name(GgufType type) {
  static constexpr const char* names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                          "bool", "string", "array", "u64", "i64", "f64"};
  return names[static_cast<std::size_t>(type)];
}

template <class Number>
Number load(const std::byte* bytes) {
  Number number;
  std::memcpy(&number, bytes, sizeof number);
  return number;
}

// One integer of any type; nullopt for other types, and for what does not fit int64.
std::optional<std::int64_t> load_integer(GgufType type, const std::byte* bytes) {
  switch (type) {
    case GgufType::u8:
    case GgufType::boolean: return load<std::uint8_t>(bytes);
    case GgufType::i8: return load<std::int8_t>(bytes);
    case GgufType::u16: return load<std::uint16_t>(bytes);
    case GgufType::i16: return load<std::int16_t>(bytes);
    case GgufType::u32: return load<std::uint32_t>(bytes);
    case GgufType::i32: return load<std::int32_t>(bytes);
    case GgufType::i64: return load<std::int64_t>(bytes);
    case GgufType::u64: {
      const auto number = load<std::uint64_t>(bytes);
      if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
      return static_cast<std::int64_t>(number);
    }
    default: return std::nullopt;
  }
}

std::optional<double> load_number(GgufType type, const std::byte* bytes) {
  if (type == GgufType::f32) return load<float>(bytes);
  if (type == GgufType::f64) return load<double>(bytes);
  if (type == GgufType::u64) return static_cast<double>(load<std::uint64_t>(bytes));
  const auto integer = type == GgufType::boolean ? std::nullopt : load_integer(type, bytes);
  return integer ? std::optional<double>(static_cast<double>(*integer)) : std::nullopt;
}

// The string at the front of `bytes`, which then begin behind it. The parser has checked its length.
std::string_view take_string(std::span<const std::byte>& bytes) {
  const auto size = load<std::uint64_t>(bytes.data());
  const std::string_view text(reinterpret_cast<const char*>(bytes.data() + 8), size);
  bytes = bytes.subspan(8 + size);
  return text;
}

} // namespace

std::string gguf_type_name(const GgufValue& value) {
  if (value.type != GgufType::array) return type_name(value.type);
  return fmt::format("array of {}", type_name(value.element));
}

GgufFile::GgufFile(const std::filesystem::path& path) : file_(MappedFile(path)), name_(path.string()) {
  GgufParser(*this, file_->bytes()).parse();
}

GgufFile::GgufFile(std::span<const std::byte> bytes, std::string name) : name_(std::move(name)) {
  GgufParser(*this, bytes).parse();
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto found = value_index_.find(key);
  return found == value_index_.end() ? nullptr : &values_[found->second];
}

const GgufValue& GgufFile::need(std::string_view key) const {
  if (const GgufValue* value = find(key)) return *value;
  throw Error(Code::integrity, name_, fmt::format("the metadata key {} is missing", key),
              "convert the model again with a current converter");
}

void GgufFile::wrong_type(const GgufValue& value, const char* needed) const {
  throw Error(Code::integrity, name_, fmt::format("{}: found {}, need {}", value.key, gguf_type_name(value), needed));
}

std::string_view GgufFile::string(std::string_view key) const {
  const GgufValue& value = need(key);
  if (value.type != GgufType::string) wrong_type(value, "a string");
  std::span<const std::byte> rest = value.bytes;
  return take_string(rest);
}

std::int64_t GgufFile::integer(std::string_view key) const {
  const GgufValue& value = need(key);
  const auto number = value.type == GgufType::boolean ? std::nullopt : load_integer(value.type, value.bytes.data());
  if (!number) wrong_type(value, "an integer of at most 63 bits");
  return *number;
}

double GgufFile::number(std::string_view key) const {
  const GgufValue& value = need(key);
  const auto number = load_number(value.type, value.bytes.data());
  if (!number) wrong_type(value, "a number");
  return *number;
}

bool GgufFile::boolean(std::string_view key) const {
  const GgufValue& value = need(key);
  if (value.type != GgufType::boolean) wrong_type(value, "a bool");
  return load<std::uint8_t>(value.bytes.data()) != 0;
}

std::vector<std::string_view> GgufFile::strings(std::string_view key) const {
  const GgufValue& value = need(key);
  if (value.type != GgufType::array || value.element != GgufType::string) wrong_type(value, "an array of strings");
  std::vector<std::string_view> texts;
  texts.reserve(value.count);
  for (std::span<const std::byte> rest = value.bytes; !rest.empty();) texts.push_back(take_string(rest));
  return texts;
}

std::vector<std::int64_t> GgufFile::integers(std::string_view key) const {
  const GgufValue& value = need(key);
  const std::uint64_t size = gguf_scalar_bytes(value.element);
  if (value.type != GgufType::array || size == 0) wrong_type(value, "an array of integers");
  std::vector<std::int64_t> numbers;
  numbers.reserve(value.count);
  for (std::uint64_t i = 0; i < value.count; ++i) {
    const auto number = load_integer(value.element, value.bytes.data() + i * size);
    if (!number) wrong_type(value, "an array of integers of at most 63 bits");
    numbers.push_back(*number);
  }
  return numbers;
}

std::vector<double> GgufFile::numbers(std::string_view key) const {
  const GgufValue& value = need(key);
  const std::uint64_t size = gguf_scalar_bytes(value.element);
  if (value.type != GgufType::array || size == 0) wrong_type(value, "an array of numbers");
  std::vector<double> numbers;
  numbers.reserve(value.count);
  for (std::uint64_t i = 0; i < value.count; ++i) {
    const auto number = load_number(value.element, value.bytes.data() + i * size);
    if (!number) wrong_type(value, "an array of numbers");
    numbers.push_back(*number);
  }
  return numbers;
}

std::string_view GgufFile::string(std::string_view key, std::string_view fallback) const {
  return has(key) ? string(key) : fallback;
}

std::int64_t GgufFile::integer(std::string_view key, std::int64_t fallback) const {
  return has(key) ? integer(key) : fallback;
}

double GgufFile::number(std::string_view key, double fallback) const { return has(key) ? number(key) : fallback; }

bool GgufFile::boolean(std::string_view key, bool fallback) const { return has(key) ? boolean(key) : fallback; }

} // namespace tenon
