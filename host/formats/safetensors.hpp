// A safetensors file: tensors by name in one mapped file, and string metadata.
//
// Read strictly: no duplicate keys, no holes or overlaps, nothing behind the last tensor, every product checked for
// overflow. Written atomically and the same bytes for the same content. Spans borrow from the file and live as long as
// it. Bytes are little-endian, row-major, and need have no alignment. Thread: any number of readers.
#pragma once

#include "registry/base/files.hpp"

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace tenon {

enum class Dtype { F64, F32, F16, BF16, I64, I32, I16, I8, U8, BOOL };

const char* dtype_name(Dtype dtype);
std::optional<Dtype> dtype_of(std::string_view name);
std::size_t dtype_bytes(Dtype dtype);
// nullopt on overflow.
std::optional<std::size_t> tensor_bytes(Dtype dtype, std::span<const std::size_t> shape);

struct TensorView {
  std::string name;
  Dtype dtype;
  std::vector<std::size_t> shape;   // empty for a scalar
  std::span<const std::byte> bytes; // borrowed
};

class SafetensorsFile {
 public:
  // Errors: not_found, usage, environment (as MappedFile); integrity when the file breaks the format; incompatible for
  // a dtype that is not read (named).
  explicit SafetensorsFile(const std::filesystem::path& path);
  // For bytes that live elsewhere and outlive this object; name stands for the path in messages.
  SafetensorsFile(std::span<const std::byte> bytes, std::string name);
  SafetensorsFile(SafetensorsFile&&) = default;

  const std::string& name() const { return name_; }
  const std::vector<TensorView>& tensors() const { return tensors_; } // in the order of their data
  std::vector<std::string> names() const;                             // in the same order
  const TensorView* find(std::string_view name) const;                // nullptr when absent
  const TensorView& at(std::string_view name) const;                  // Errors: integrity, naming file and tensor
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  void parse(std::span<const std::byte> bytes);
  void check_layout(std::span<const std::byte> data); // no holes, no overlaps

  std::optional<MappedFile> file_; // empty when the bytes are borrowed
  std::string name_;
  std::vector<TensorView> tensors_;
  std::unordered_map<std::string_view, std::size_t> index_;
  std::map<std::string, std::string> metadata_;
};

// Writes the whole file or nothing, laid out as safetensors_writer.hpp says. Tensors are streamed, never copied.
// Errors: bug when bytes and shape disagree or a name is given twice; environment (no space, permission).
void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                       const std::map<std::string, std::string>& metadata = {});

} // namespace tenon
