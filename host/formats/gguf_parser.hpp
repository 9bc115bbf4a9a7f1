// Fills a GgufFile from its bytes; only gguf.cpp includes this. A count is believed only if the bytes left can hold so
// many of the smallest items, so no count makes us allocate more than the file justifies.
#pragma once

#include "host/formats/gguf.hpp"

#include <utility>

namespace tenon {

std::uint64_t gguf_scalar_bytes(GgufType type); // 0 for strings and arrays

class GgufParser {
 public:
  GgufParser(GgufFile& file, std::span<const std::byte> bytes) : file_(file), bytes_(bytes) {}

  void parse();

 private:
  std::uint64_t left() const { return bytes_.size() - at_; }
  [[noreturn]] void fail(std::uint64_t offset, const std::string& message) const;
  void need(std::uint64_t size, const char* what) const; // fails unless so many bytes are left

  template <class Number>
  Number read(const char* what);
  std::uint64_t read_count(std::uint64_t item_bytes, const char* what);
  std::string_view read_string(const char* what);
  GgufType read_type();
  std::pair<GgufType, std::uint64_t> read_array_head();
  nn::BlockType read_tensor_type(const std::string& tensor);

  void read_header();
  void read_value();
  void read_tensor();
  void skip_elements(GgufType type, std::uint64_t count, int depth);
  void skip_array(int depth);
  std::uint64_t tensor_bytes(const GgufTensor& tensor) const;
  void place_tensors();
  std::uint64_t read_alignment() const;

  GgufFile& file_;
  std::span<const std::byte> bytes_;
  std::uint64_t at_ = 0;
  std::vector<std::uint64_t> offsets_; // of the tensors, in the data
};

} // namespace tenon
