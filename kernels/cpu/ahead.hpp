// What tiles over a panel ask memory for before they read it, a few lines a step: many at once would hold up the
// products behind them. The first of few tiles streams the panel, and asks for what lies some way on: a matrix is read
// before the processor's own prefetchers are under way. Of many tiles the later ones find the panel in a cache, and
// memory would rest meanwhile: tile by tile they ask for the panel behind it. And while scores become weights, which
// reads no memory, values are asked for.
// Inside kernels/cpu only, for tiers of x86-64. Thread: values; any.
#pragma once

#include "kernels/cpu/vectors.hpp"

#include <immintrin.h>

namespace tenon::cpu {

// How far ahead of its reading a tile asks, and whether into the first cache or the second.
struct Reach {
  std::int64_t bytes;
  bool first = false;
};

class Ahead {
 public:
  // Tile `tile` of `tiles` over the weights at `panel`, in `steps` steps of at most `lines` lines; from `many` tiles on
  // the panel behind.
  TENON_INLINE Ahead(Reach reach, const std::byte* panel, std::int64_t steps, int lines, std::int64_t tile,
                     std::int64_t tiles, int many)
      : reach_(reach) {
    if (tiles < many) {
      streams_ = tile == 0;
      if (streams_) lines_ = lines;
      return;
    }
    lines_ = static_cast<int>((lines + tiles - 1) / tiles);
    if (tile * lines_ >= lines) lines_ = 0; // all are asked for
    at_ = panel + steps * lines * 64 + tile * steps * lines_ * 64;
  }
  // A row's share of `reach.bytes` behind the scores of a tile, in so many steps.
  TENON_INLINE Ahead(Reach reach, const Behind& behind, std::int64_t steps) : reach_(reach) {
    if (!behind.at || steps == 0) return;
    const std::int64_t pieces = 64 * behind.rows * steps;
    lines_ = static_cast<int>((reach.bytes + pieces - 1) / pieces);
    at_ = behind.at + behind.row * steps * lines_ * 64;
  }
  // Reading goes from `end` to `then`, if that is not null.
  TENON_INLINE Ahead& jump(const std::byte* end, const std::byte* then) {
    if (then) end_ = end, jump_ = then - end;
    return *this;
  }
  // Reading is at this place.
  TENON_INLINE void read(const std::byte* place) {
    if (!streams_) return;
    at_ = place + reach_.bytes;
    if (at_ >= end_) at_ += jump_;
  }
  TENON_INLINE void fetch() {
    if (reach_.first)
      for (int i = 0; i < lines_; ++i, at_ += 64) _mm_prefetch(reinterpret_cast<const char*>(at_), _MM_HINT_T0);
    else
      for (int i = 0; i < lines_; ++i, at_ += 64) _mm_prefetch(reinterpret_cast<const char*>(at_), _MM_HINT_T1);
  }

 private:
  Reach reach_;
  const std::byte *at_ = nullptr, *end_ = nullptr;
  std::ptrdiff_t jump_ = 0;
  int lines_ = 0;
  bool streams_ = false;
};

} // namespace tenon::cpu
