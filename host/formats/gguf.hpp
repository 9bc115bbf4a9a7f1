// A GGUF file of version 3, read-only and mapped: typed metadata and tensors.
//
// Every offset, count and size is checked against the file before it is used or allocated for; what a getter returns
// lies inside the file. String views and byte spans borrow from the file and live as long as it.
// Thread: any number of readers.
#pragma once

#include "host/formats/stored_tensor.hpp"
#include "registry/base/files.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tenon {

// Numbered as in the file.
enum class GgufType : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

struct GgufValue {
  std::string_view key;
  GgufType type;
  GgufType element;                 // of an array; otherwise equal to type
  std::uint64_t count;              // elements of an array; otherwise 1
  std::span<const std::byte> bytes; // the value; of an array, its elements
};

using GgufTensor = StoredTensor; // its shape is row-major, the reverse of the file's order: a matrix is (rows, columns)

class GgufFile {
 public:
  // Errors: not_found, usage, environment (as MappedFile); integrity when the file breaks the format;
  // incompatible for another version, byte order or a tensor type that is not read (named).
  explicit GgufFile(const std::filesystem::path& path);
  // For bytes that live elsewhere and outlive this object; name stands for the path in messages.
  GgufFile(std::span<const std::byte> bytes, std::string name);
  GgufFile(GgufFile&&) = default;

  const std::string& name() const { return name_; }
  const std::vector<GgufValue>& values() const { return values_; } // in the file's order
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* find_tensor(std::string_view name) const; // nullptr when absent
  const GgufValue* find(std::string_view key) const;          // nullptr when absent
  bool has(std::string_view key) const { return find(key) != nullptr; }

  // A value that must exist and have a fitting type. Any integer type serves as an integer if it fits int64, any
  // integer or float as a number. Errors: integrity, naming file, key, found and needed.
  std::string_view string(std::string_view key) const;
  std::int64_t integer(std::string_view key) const;
  double number(std::string_view key) const;
  bool boolean(std::string_view key) const;
  std::vector<std::string_view> strings(std::string_view key) const; // array of strings
  std::vector<std::int64_t> integers(std::string_view key) const;    // array of any integer type, or of booleans
  std::vector<double> numbers(std::string_view key) const;           // array of any integer or float type

  // The value, or the fallback where the key is absent (a wrong type is still an error).
  std::string_view string(std::string_view key, std::string_view fallback) const;
  std::int64_t integer(std::string_view key, std::int64_t fallback) const;
  double number(std::string_view key, double fallback) const;
  bool boolean(std::string_view key, bool fallback) const;

 private:
  friend class GgufParser;
  const GgufValue& need(std::string_view key) const;
  [[noreturn]] void wrong_type(const GgufValue& value, const char* needed) const;

  std::optional<MappedFile> file_; // empty when the bytes are borrowed
  std::string name_;
  std::vector<GgufValue> values_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, std::size_t> value_index_, tensor_index_;
};

// "u32", "array of string": a value's type as messages show it.
std::string gguf_type_name(const GgufValue& value);

} // namespace tenon
