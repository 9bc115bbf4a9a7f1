// The share of one shard's 13-grams that another holds too.
#include "host/formats/corpus.hpp"

#include <bit>

namespace tenon {
namespace {

constexpr std::size_t kGram = 13;

std::uint64_t mixed(std::uint64_t x) {
  x ^= x >> 33;
  x *= 0xFF51AFD7ED558CCDull;
  x ^= x >> 33;
  x *= 0xC4CEB9FE1A85EC53ull;
  return x ^ (x >> 33);
}

// Calls use(hash) for each 13-gram within the document; 64-bit hashes, so a chance match is out of the question.
template <typename Use>
void for_each_gram(std::span<const std::int32_t> document, Use use) {
  constexpr std::uint64_t kBase = 0x9E3779B97F4A7C15ull;
  std::uint64_t leaving = 1; // kBase^12
  for (std::size_t i = 1; i < kGram; ++i) leaving *= kBase;
  std::uint64_t rolling = 0;
  const auto value = [&](std::size_t i) { return mixed(static_cast<std::uint64_t>(document[i]) + 1); };
  for (std::size_t i = 0; i < document.size(); ++i) {
    if (i >= kGram) rolling -= value(i - kGram) * leaving;
    rolling = rolling * kBase + value(i);
    if (i + 1 >= kGram) use(mixed(rolling) | 1); // 0 marks a free slot
  }
}

// Hashes of the smaller side; what the larger side holds is marked.
class GramSet {
 public:
  explicit GramSet(std::size_t grams) : hashes_(std::bit_ceil(grams * 2 + 2)), seen_(hashes_.size()) {}

  std::size_t slot(std::uint64_t hash) const {
    const std::size_t mask = hashes_.size() - 1;
    std::size_t at = static_cast<std::size_t>(hash >> 1) & mask;
    while (hashes_[at] != 0 && hashes_[at] != hash) at = (at + 1) & mask;
    return at;
  }
  void insert(std::uint64_t hash) { hashes_[slot(hash)] = hash; }
  void mark(std::uint64_t hash) {
    const std::size_t at = slot(hash);
    if (hashes_[at] != 0) seen_[at] = true;
  }
  bool marked(std::uint64_t hash) const { return seen_[slot(hash)]; }

 private:
  std::vector<std::uint64_t> hashes_;
  std::vector<bool> seen_;
};

} // namespace

double overlap_13gram(const Shard& of, const Shard& in) {
  GramSet grams(of.tokens().size());
  for (std::size_t i = 0; i < of.document_count(); ++i) {
    if (of.is_padding(i)) continue;
    for_each_gram(of.document(i), [&](std::uint64_t hash) { grams.insert(hash); });
  }
  for (std::size_t i = 0; i < in.document_count(); ++i) {
    if (in.is_padding(i)) continue;
    for_each_gram(in.document(i), [&](std::uint64_t hash) { grams.mark(hash); });
  }
  std::uint64_t total = 0, shared = 0;
  for (std::size_t i = 0; i < of.document_count(); ++i) {
    if (of.is_padding(i)) continue;
    for_each_gram(of.document(i), [&](std::uint64_t hash) {
      ++total;
      shared += grams.marked(hash);
    });
  }
  return total == 0 ? 0.0 : static_cast<double>(shared) / static_cast<double>(total);
}

} // namespace tenon
