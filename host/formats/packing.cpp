#include "host/formats/packing.hpp"

#include <algorithm>
#include <deque>

namespace tenon {
namespace {

constexpr std::size_t kOpenBlocks = 32;

bool any_counts(const MaskedDocument& document) {
  return std::find(document.counts.begin(), document.counts.end(), true) != document.counts.end();
}

std::vector<MaskedDocument> cut(MaskedDocument dialogue, std::size_t length) {
  if (dialogue.tokens.size() <= length) return {std::move(dialogue)};
  std::vector<MaskedDocument> pieces;
  for (std::size_t at = 0; at < dialogue.tokens.size(); at += length) {
    const auto first = static_cast<std::ptrdiff_t>(at),
               last = static_cast<std::ptrdiff_t>(std::min(at + length, dialogue.tokens.size()));
    MaskedDocument piece{{dialogue.tokens.begin() + first, dialogue.tokens.begin() + last},
                         {dialogue.counts.begin() + first, dialogue.counts.begin() + last}};
    piece.counts[0] = false;
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

struct Block {
  std::vector<MaskedDocument> documents;
  std::size_t used = 0;
};

// Blocks in the order in which they were begun.
class Packer {
 public:
  explicit Packer(std::size_t length) : length_(length) {}

  void add(MaskedDocument piece) {
    const std::size_t size = piece.tokens.size();
    auto place =
        std::find_if(open_.begin(), open_.end(), [&](std::size_t i) { return blocks_[i].used + size <= length_; });
    if (place == open_.end()) {
      open_.push_back(blocks_.size());
      blocks_.emplace_back();
      if (open_.size() > kOpenBlocks) open_.pop_front();
      place = open_.end() - 1;
    }
    Block& block = blocks_[*place];
    block.used += size;
    block.documents.push_back(std::move(piece));
    if (block.used == length_) open_.erase(place);
  }

  std::vector<MaskedDocument> finish(std::int32_t padding) {
    std::vector<MaskedDocument> out;
    for (Block& block : blocks_) {
      for (MaskedDocument& document : block.documents) out.push_back(std::move(document));
      const std::size_t room = length_ - block.used;
      if (room > 0) out.push_back({std::vector<std::int32_t>(room, padding), std::vector<bool>(room, false)});
    }
    return out;
  }

 private:
  std::size_t length_;
  std::vector<Block> blocks_;
  std::deque<std::size_t> open_;
};

} // namespace

std::vector<MaskedDocument> pack(std::vector<MaskedDocument> dialogues, std::size_t length, std::int32_t padding) {
  Packer packer(length);
  for (MaskedDocument& dialogue : dialogues)
    for (MaskedDocument& piece : cut(std::move(dialogue), length))
      if (any_counts(piece)) packer.add(std::move(piece));
  return packer.finish(padding);
}

} // namespace tenon
