#include "kernels/cpu/panel_attention.hpp"

#include <algorithm>
#include <cstring>

namespace tenon::cpu {
namespace {

std::int64_t up(std::int64_t count, std::int64_t to) { return (count + to - 1) / to * to; }

// Panels begin far from each other, where no prefetcher of the processor's looks, and not every tier's products ask
// across that gap.
void ask(const std::byte* panel) {
  constexpr std::int64_t bytes = 4096;
  for (std::int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(panel + i, 0, 2);
}

// A tile's rows in the form in which products with its panels read them.
class Formed {
 public:
  // width: a multiple of 32 in int8. memory: (rows, width / 2 + 1) numbers.
  Formed(const Kernels& kernels, bool int8, std::int64_t rows, std::int64_t width, float* memory)
      : kernels_(kernels), bits_(reinterpret_cast<std::uint16_t*>(memory)) {
    x_.rows = rows, x_.width = width;
    if (!int8) {
      x_.bf16 = bits_;
      return;
    }
    scale_ = memory, sum_ = reinterpret_cast<std::int32_t*>(scale_ + rows * x_.groups());
    q_ = reinterpret_cast<std::int8_t*>(sum_ + rows * x_.groups());
    x_.scale = scale_, x_.sum = sum_, x_.q = q_;
  }
  void put(std::int64_t r, const float* row) {
    if (q_)
      return kernels_.quantise(row, x_.width, q_ + r * x_.width, scale_ + r * x_.groups(), sum_ + r * x_.groups());
    kernels_.round(row, x_.width, bits_ + r * x_.bf16_stride());
    if (x_.width % 2) bits_[r * x_.bf16_stride() + x_.width] = 0;
  }
  const Activations& rows() const { return x_; }

 private:
  const Kernels& kernels_;
  Activations x_;
  std::uint16_t* bits_;
  float* scale_ = nullptr;
  std::int32_t* sum_ = nullptr;
  std::int8_t* q_ = nullptr;
};

} // namespace

void attend_panels(const Kernels& kernels, KeyFormat format, const AttentionTile& tile) {
  const bool int8 = format == KeyFormat::int8;
  const PackedFormat packed = int8 ? PackedFormat::int8g32 : PackedFormat::bf16;
  const auto product = kernels.product(packed);
  const auto key_panel = static_cast<std::int64_t>(*panel_bytes(packed, tile.depth)),
             value_panel = static_cast<std::int64_t>(*panel_bytes(packed, kChunk));
  float *scores = tile.scratch, *out = scores + kTileRows * kChunk, *memory = out + kTileRows * kPanel;

  Formed q(kernels, int8, tile.rows, tile.depth, memory);
  for (std::int64_t r = 0; r < tile.rows; ++r) q.put(r, tile.q + r * tile.depth);
  const std::byte* values = tile.v_panels + tile.column / kPanel * value_panel;
  for (std::int64_t panel = 0; panel * kPanel < tile.keys; ++panel) {
    const bool last = (panel + 1) * kPanel >= tile.keys;
    product({tile.k_panels + panel * key_panel, last ? values : nullptr, values + panel * key_panel}, q.rows(), 0,
            tile.rows, scores + panel * kPanel, kChunk);
  }

  const std::byte* behind = tile.keys > kPanel ? values : nullptr;
  Formed p(kernels, int8, tile.rows, up(tile.keys, int8 ? kGroup : 2), memory);
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    float* row = scores + r * kChunk;
    kernels.soften(row, tile.visible[r], up(tile.keys, kPanel), tile.largest[r], tile.sum[r], {behind, r, tile.rows});
    for (std::int64_t j = 0; int8 && j < tile.visible[r]; ++j) row[j] *= tile.v_steps[j];
    p.put(r, row);
  }
  if (tile.next_k_panels) ask(tile.next_k_panels);
  for (std::int64_t d = 0, lanes = 0; d < tile.depth; d += lanes) {
    const std::int64_t panel = (tile.column + d) / kPanel, lane = (tile.column + d) % kPanel;
    lanes = std::min(tile.depth - d, kPanel - lane);
    const std::byte *next = tile.next_k_panels ? tile.next_k_panels : values,
                    *then = d + lanes < tile.depth ? nullptr : next;
    product({tile.v_panels + panel * value_panel, then, next + d / kPanel * value_panel}, p.rows(), 0, tile.rows, out,
            kPanel);
    for (std::int64_t r = 0; r < tile.rows; ++r)
      std::memcpy(tile.out + r * tile.depth + d, out + r * kPanel + lane,
                  static_cast<std::size_t>(lanes) * sizeof(float));
  }
}

} // namespace tenon::cpu
