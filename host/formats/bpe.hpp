// Byte-pair merging: the learnt pairs, applied lowest rank first, leftmost first among equals.
// Thread: immutable after construction; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

struct Merge {
  std::int32_t left, right, result;
};

class Bpe {
 public:
  // merges: in order of rank. Errors: integrity (a pair that stands twice).
  explicit Bpe(std::span<const Merge> merges);

  // Appends what is left of the symbols once every merge is done. O(n log n).
  void merge(std::span<const std::int32_t> symbols, std::vector<std::int32_t>& out) const;
  // As given: in order of rank.
  std::vector<Merge> merges() const;

 private:
  struct Slot {
    std::uint64_t pair = kEmpty;
    std::int32_t rank = 0, result = 0;
  };
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};

  const Slot* find(std::int32_t left, std::int32_t right) const; // null: no such merge
  Slot& slot_for(std::uint64_t pair);
  void merge_short(std::span<const std::int32_t> symbols, std::vector<std::int32_t>& out) const;
  void merge_long(std::span<const std::int32_t> symbols, std::vector<std::int32_t>& out) const;

  std::int32_t count_ = 0;
  std::vector<Slot> slots_; // open addressing; the size is a power of two
};

// GPT-2's table of byte-level symbols: every byte as one printable character.
const std::array<std::string, 256>& byte_symbols();

// The bytes behind a token written in byte-level symbols; false if it holds any other character.
bool symbols_to_bytes(std::string_view token, std::string& bytes);
std::string bytes_to_symbols(std::string_view bytes);

} // namespace tenon
