// What trunk and base say about each block of a text, computed once and kept on disk: both are frozen.
//
// cache/streams/<key>/ holds blocks.bin (per block h (T,C), then the base's output (T,C)) and blocks.json, which says
// how many blocks are whole; it is written after them, so that whatever is killed goes on where it was. Blocks stand in
// a fixed random order of the text, so that a longer training extends what a shorter one left. Each block is computed
// by itself: its bits do not depend on what was computed with it. The folders together stay below a budget; those
// unused longest go first. Thread: one; processes take turns by a lock, and mapped blocks outlive their file.
#pragma once

#include "host/formats/shards.hpp"
#include "host/loading/native.hpp"
#include "host/model/model.hpp"
#include "host/training/hooks.hpp"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace tenon {

class RandomStream;

// Some of a text's blocks, in the order in which they are used.
struct Blocks {
  Shard shard;
  std::int64_t length = 0;
  std::vector<std::uint32_t> order;

  std::int64_t size() const { return static_cast<std::int64_t>(order.size()); }
  at::Tensor tokens_T(std::int64_t i) const; // int64
  // The positions whose next token counts for the loss, int64, ascending: of ordinary text all but the last.
  at::Tensor scored(std::int64_t i) const;
  std::int64_t text_length(std::int64_t i) const; // positions before the block's padding
};

// 0 .. n-1, shuffled.
std::vector<std::uint32_t> permutation(const RandomStream& random, std::size_t n);
// The candidates in the stream's order; at most `count`.
std::vector<std::uint32_t> sample(const RandomStream& random, const std::vector<std::uint32_t>& candidates,
                                  std::int64_t count);

struct StreamOptions {
  std::filesystem::path folder; // cache/streams
  std::string what;             // for progress: "training text"
  std::string order;            // names the order of the blocks: "sample 0"
  bool bfloat16 = false;
  std::uint64_t budget_bytes = 0;
};

class Streams {
 public:
  // base: ready for inference. Errors: environment (no space, permission), usage (over the budget), interrupted.
  static Streams open(Blocks blocks, const Model& model, const LoadedExpert& base, const StreamOptions& options,
                      const TrainingHooks& hooks);

  std::int64_t size() const { return blocks_.size(); }
  std::int64_t length() const { return blocks_.length; }
  std::uint32_t number(std::int64_t i) const { return blocks_.order[static_cast<std::size_t>(i)]; } // in the text
  at::Tensor tokens_T(std::int64_t i) const { return blocks_.tokens_T(i); }
  at::Tensor scored(std::int64_t i) const { return blocks_.scored(i); }
  std::int64_t text_length(std::int64_t i) const { return blocks_.text_length(i); }
  bool all_scored() const { return blocks_.shard.packed_length() == 0; }
  at::Tensor h_TC(std::int64_t i) const { return half(i, 0); } // float32
  at::Tensor base_TC(std::int64_t i) const { return half(i, 1); }

 private:
  Streams(Blocks blocks, std::shared_ptr<const MappedFile> file, std::int64_t width, bool bfloat16)
      : blocks_(std::move(blocks)), file_(std::move(file)), width_(width), bfloat16_(bfloat16) {}
  at::Tensor half(std::int64_t i, std::int64_t which) const;

  Blocks blocks_;
  std::shared_ptr<const MappedFile> file_;
  std::int64_t width_;
  bool bfloat16_;
};

} // namespace tenon
