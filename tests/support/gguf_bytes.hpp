// Builds the bytes of a GGUF file, right or deliberately wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tenon {

class GgufBytes {
 public:
  std::uint32_t version = 3;
  std::uint64_t alignment = 32;

  template <class Number>
  static std::string raw(Number number) {
    return std::string(reinterpret_cast<const char*>(&number), sizeof number);
  }
  static std::string raw_string(std::string_view text) { return raw<std::uint64_t>(text.size()) + std::string(text); }

  // A value of any type, its bytes given; types are numbered as in the file.
  GgufBytes& value(std::string_view key, std::uint32_t type, const std::string& bytes) {
    values_ += raw_string(key) + raw(type) + bytes;
    ++value_count_;
    return *this;
  }
  GgufBytes& string(std::string_view key, std::string_view text) { return value(key, 8, raw_string(text)); }
  GgufBytes& u32(std::string_view key, std::uint32_t number) { return value(key, 4, raw(number)); }
  GgufBytes& f32(std::string_view key, float number) { return value(key, 6, raw(number)); }
  GgufBytes& boolean(std::string_view key, bool truth) { return value(key, 7, raw<std::uint8_t>(truth)); }
  GgufBytes& strings(std::string_view key, const std::vector<std::string>& texts) {
    std::string bytes = raw<std::uint32_t>(8) + raw<std::uint64_t>(texts.size());
    for (const std::string& text : texts) bytes += raw_string(text);
    return value(key, 9, bytes);
  }

  // dims as in the file: the inner one first. Data are placed behind those of the tensor before, aligned.
  GgufBytes& tensor(std::string_view name, std::uint32_t type, const std::vector<std::uint64_t>& dims,
                    std::string_view data) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    return tensor_at(name, type, dims, data_.size(), data);
  }
  // The offset as given, whether or not it is right.
  GgufBytes& tensor_at(std::string_view name, std::uint32_t type, const std::vector<std::uint64_t>& dims,
                       std::uint64_t offset, std::string_view data) {
    tensors_ += raw_string(name) + raw<std::uint32_t>(static_cast<std::uint32_t>(dims.size()));
    for (const std::uint64_t dim : dims) tensors_ += raw(dim);
    tensors_ += raw(type) + raw(offset);
    data_ += data;
    ++tensor_count_;
    return *this;
  }

  std::vector<std::byte> bytes() const { return bytes(tensor_count_, value_count_); }
  std::vector<std::byte> bytes(std::uint64_t tensor_count, std::uint64_t value_count) const {
    std::string all = "GGUF" + raw(version) + raw(tensor_count) + raw(value_count) + values_ + tensors_;
    all.resize((all.size() + alignment - 1) / alignment * alignment);
    all += data_;
    const auto* data = reinterpret_cast<const std::byte*>(all.data());
    return std::vector<std::byte>(data, data + all.size());
  }

 private:
  std::string values_, tensors_, data_;
  std::uint64_t value_count_ = 0, tensor_count_ = 0;
};

} // namespace tenon
