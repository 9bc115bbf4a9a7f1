// SHA-256 of bytes and files, written as lower-case hex.
// Thread: Sha256 is a value for one thread; the free functions may be called from any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace tenon {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  Sha256& update(std::span<const std::byte> bytes);
  Sha256& update(std::string_view text);
  // Length-prefixed, so that ("ab","c") and ("a","bc") differ.
  Sha256& field(std::string_view text);
  // 64 hex digits. Requires: called once.
  std::string hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256(std::span<const std::byte> bytes);
std::string sha256(std::string_view text);
// Errors: not_found, environment. Reads the file in blocks; any size.
std::string sha256_file(const std::filesystem::path& path);

} // namespace tenon
