// Reads what the dynamic loader would read of a 64-bit little-endian ELF file, through the program headers (the loader
// ignores section tables, and so may a hostile file). Every offset, count and size is checked against the file; nothing
// is allocated that its bytes do not justify. No plugin code runs.
// Thread: a value; any thread. It, and all names it returns, borrow the bytes it was made from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

class ElfFile {
 public:
  // where names the file in messages. Errors: integrity, with offset, what was expected and what was found.
  static ElfFile parse(std::span<const std::byte> bytes, std::string where);

  // The first PT_NOTE entry with this name and type; its description. Errors: integrity.
  std::optional<std::string_view> note(std::string_view name, std::uint32_t type) const;

  bool shared_object() const { return shared_object_; }
  const std::string& machine() const { return machine_; } // "x86_64", "aarch64", else "machine 243"
  const std::vector<std::string_view>& needed() const { return needed_; }
  const std::vector<std::string_view>& search_paths() const { return search_paths_; } // DT_RPATH and DT_RUNPATH
  const std::vector<std::string_view>& exports() const { return exports_; }           // defined and visible to others
  const std::vector<std::string_view>& imports() const { return imports_; }           // undefined here

 private:
  struct Segment {
    std::uint32_t type = 0;
    std::uint64_t offset = 0, address = 0, size_in_file = 0;
  };
  struct Dynamic;

  ElfFile(std::span<const std::byte> bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}
  void read_header();
  void read_segments(std::uint64_t offset, std::uint64_t entry_size, std::uint64_t count);
  void read_dynamic(const Segment& segment);
  void read_names(const Dynamic& dynamic);
  void read_symbols(const Dynamic& dynamic);
  std::uint64_t symbol_count(const Dynamic& dynamic) const;
  std::uint64_t gnu_hash_count(std::uint64_t address) const;
  std::string_view string_at(const Dynamic& dynamic, std::uint64_t offset) const;

  template <class T>
  T read(std::uint64_t offset, const char* what) const;
  std::span<const std::byte> slice(std::uint64_t offset, std::uint64_t size, const char* what) const;
  std::uint64_t file_offset(std::uint64_t address, std::uint64_t size, const char* what) const;
  [[noreturn]] void fail(std::uint64_t offset, const std::string& message) const;

  std::span<const std::byte> bytes_;
  std::string where_, machine_;
  bool shared_object_ = false;
  std::vector<Segment> segments_;
  std::vector<std::string_view> needed_, search_paths_, exports_, imports_;
};

} // namespace tenon
