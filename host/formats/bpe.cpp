#include "host/formats/bpe.hpp"

#include "host/formats/utf8.hpp"
#include "registry/base/error.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <queue>
#include <utility>

namespace tenon {
namespace {

constexpr std::size_t kShort = 32; // up to here scanning beats a heap

std::uint64_t pair_of(std::int32_t left, std::int32_t right) {
  return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) | static_cast<std::uint32_t>(right);
}

std::size_t hash_of(std::uint64_t pair) {
  pair ^= pair >> 32;
  pair *= 0x9E3779B97F4A7C15ull;
  return static_cast<std::size_t>(pair ^ (pair >> 29));
}

} // namespace

Bpe::Bpe(std::span<const Merge> merges) : slots_(std::bit_ceil(merges.size() * 2 + 2)) {
  for (const Merge& merge : merges) {
    Slot& slot = slot_for(pair_of(merge.left, merge.right));
    if (slot.pair != kEmpty) {
      throw Error(
          Code::integrity, "tokenizer",
          "merge " + std::to_string(count_) + " repeats merge " + std::to_string(slot.rank) + ", need each pair once");
    }
    slot = {pair_of(merge.left, merge.right), count_++, merge.result};
  }
}

Bpe::Slot& Bpe::slot_for(std::uint64_t pair) {
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = hash_of(pair) & mask;
  while (slots_[at].pair != kEmpty && slots_[at].pair != pair) at = (at + 1) & mask;
  return slots_[at];
}

const Bpe::Slot* Bpe::find(std::int32_t left, std::int32_t right) const {
  const std::uint64_t pair = pair_of(left, right);
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t at = hash_of(pair) & mask; slots_[at].pair != kEmpty; at = (at + 1) & mask) {
    if (slots_[at].pair == pair) return &slots_[at];
  }
  return nullptr;
}

std::vector<Merge> Bpe::merges() const {
  std::vector<Merge> out(static_cast<std::size_t>(count_));
  for (const Slot& slot : slots_)
    if (slot.pair != kEmpty)
      out[static_cast<std::size_t>(slot.rank)] = {static_cast<std::int32_t>(slot.pair >> 32),
                                                  static_cast<std::int32_t>(slot.pair & 0xffffffffu), slot.result};
  return out;
}

void Bpe::merge(std::span<const std::int32_t> symbols, std::vector<std::int32_t>& out) const {
  if (symbols.size() <= kShort) {
    merge_short(symbols, out);
  } else {
    merge_long(symbols, out);
  }
}

void Bpe::merge_short(std::span<const std::int32_t> symbols, std::vector<std::int32_t>& out) const {
  std::array<std::int32_t, kShort> ids;
  std::array<const Slot*, kShort> pairs; // pairs[i]: the merge of ids[i] and ids[i + 1]
  std::size_t n = symbols.size();
  std::copy(symbols.begin(), symbols.end(), ids.begin());
  for (std::size_t i = 0; i + 1 < n; ++i) pairs[i] = find(ids[i], ids[i + 1]);
  while (n > 1) {
    std::size_t best = n;
    for (std::size_t i = 0; i + 1 < n; ++i) {
      if (pairs[i] && (best == n || pairs[i]->rank < pairs[best]->rank)) best = i;
    }
    if (best == n) break;
    ids[best] = pairs[best]->result;
    std::copy(ids.begin() + best + 2, ids.begin() + n, ids.begin() + best + 1);
    std::copy(pairs.begin() + best + 1, pairs.begin() + n - 1, pairs.begin() + best);
    --n;
    if (best > 0) pairs[best - 1] = find(ids[best - 1], ids[best]);
    if (best + 1 < n) pairs[best] = find(ids[best], ids[best + 1]);
  }
  out.insert(out.end(), ids.begin(), ids.begin() + n);
}

// A linked list of symbols and a heap of possible merges; an entry that is out of date by the time it comes up is told
// by its rank, which belongs to one pair only.
void Bpe::merge_long(std::span<const std::int32_t> symbols, std::vector<std::int32_t>& out) const {
  constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();
  const auto n = static_cast<std::uint32_t>(symbols.size());
  std::vector<std::int32_t> ids(symbols.begin(), symbols.end());
  std::vector<std::uint32_t> previous(n), next(n);
  using Entry = std::pair<std::int32_t, std::uint32_t>; // rank, place of the left symbol
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> heap;
  const auto offer = [&](std::uint32_t at) {
    if (at == kNone || next[at] == kNone) return;
    if (const Slot* slot = find(ids[at], ids[next[at]])) heap.emplace(slot->rank, at);
  };
  for (std::uint32_t i = 0; i < n; ++i) {
    previous[i] = i == 0 ? kNone : i - 1;
    next[i] = i + 1 == n ? kNone : i + 1;
  }
  for (std::uint32_t i = 0; i < n; ++i) offer(i);
  while (!heap.empty()) {
    const auto [rank, at] = heap.top();
    heap.pop();
    if (ids[at] < 0 || next[at] == kNone) continue; // merged away
    const Slot* slot = find(ids[at], ids[next[at]]);
    if (!slot || slot->rank != rank) continue;
    const std::uint32_t gone = next[at];
    ids[at] = slot->result;
    ids[gone] = -1;
    next[at] = next[gone];
    if (next[at] != kNone) previous[next[at]] = at;
    offer(previous[at]);
    offer(at);
  }
  for (std::uint32_t at = 0; at != kNone; at = next[at]) out.push_back(ids[at]);
}

namespace {

bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// Character -> byte, for the characters below U+0144 that the table uses; -1 elsewhere.
constexpr std::size_t kSymbolLimit = 0x144;

std::array<int, kSymbolLimit> symbol_bytes() {
  std::array<int, kSymbolLimit> bytes;
  bytes.fill(-1);
  std::size_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    bytes[stands_for_itself(byte) ? static_cast<std::size_t>(byte) : next++] = byte;
  }
  return bytes;
}

} // namespace

const std::array<std::string, 256>& byte_symbols() {
  static const std::array<std::string, 256> symbols = [] {
    std::array<std::string, 256> made;
    const auto bytes = symbol_bytes();
    for (std::size_t c = 0; c < bytes.size(); ++c) {
      if (bytes[c] >= 0) utf8_append(made[static_cast<std::size_t>(bytes[c])], static_cast<char32_t>(c));
    }
    return made;
  }();
  return symbols;
}

bool symbols_to_bytes(std::string_view token, std::string& bytes) {
  static const auto table = symbol_bytes();
  bytes.clear();
  while (!token.empty()) {
    const Utf8Step step = utf8_step(token);
    if (!step.valid || step.length_bytes > 2) return false;
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(token[i]); };
    const std::size_t c = step.length_bytes == 1 ? byte(0) : ((byte(0) & 0x1Fu) << 6) | (byte(1) & 0x3Fu);
    if (c >= table.size() || table[c] < 0) return false;
    bytes.push_back(static_cast<char>(table[c]));
    token.remove_prefix(step.length_bytes);
  }
  return true;
}

std::string bytes_to_symbols(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes) out += byte_symbols()[static_cast<unsigned char>(byte)];
  return out;
}

} // namespace tenon
