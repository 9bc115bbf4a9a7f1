// Rows of some sequences on their way through transformer blocks: what all threads do together, or a thread with rows
// of its own. Inside kernels/cpu only. Thread: one call at a time per Arena; inside a task of the pool, that task does
// all of it.
#pragma once

#include "kernels/cpu/product_tasks.hpp"
#include "kernels/cpu/transformer_run.hpp"

#include <optional>

namespace tenon::cpu {

constexpr std::int64_t kKept = 16; // positions of a task that keeps them; even: two of a pair are never written at once

// cos and sin of every row's position and pair, (N, D/2).
struct Rotation {
  float *cos_NP, *sin_NP;
  Rotation(Arena& arena, std::span<const RunSpan> spans, std::int64_t rows, std::int64_t depth, double theta);
};

class TransformerRows {
 public:
  using Runs = std::span<const std::span<const Block>>;
  // h: (rows, C), of these spans alone. All memory from this arena, where it stays.
  TransformerRows(const Engine& engine, Arena& arena, const RunShape& shape, std::span<const RunSpan> spans, float* h,
                  std::int64_t rows, std::int64_t width);

  // Through the runs' blocks of this index. to: of each span. last: no block comes after it.
  void block(Runs runs, std::size_t index, const KeyValues* to, bool last);
  // The same in two halves, for those who share a sequence with others: between them the keys and values of all find
  // their places.
  void begin(Runs runs, std::size_t index, const KeyValues* to, bool last);
  void end(Runs runs, std::size_t index, const KeyValues* to, bool last);

 private:
  Block block_of(Runs runs, std::size_t index);
  bool leaves_some(bool last) const;
  void finish_read(Runs runs, std::size_t index, const KeyValues* to);
  void look_back(const Block& block, const KeyValues* to);
  void project(const Block& block);
  void finish(const Block& block, const Rows& y, const Block* next);
  Rows normalised(const Norm& norm, Forms forms);
  Rows attend_together(const Block& block, const KeyValues* to);
  Rows attend_one_each(const Block& block, const KeyValues* to);
  bool small_each(const KeyValues* to) const;
  void see(const KeyValues* to);
  void round(std::int64_t first, std::int64_t count, const NewRows& made) const;
  Rows attended(const NewRows& made) const;
  void place(const Block& block, const KeyValues* to, bool queries);
  void place_rows(const Block& block, const RunSpan& span, const KeyValues& to, std::int64_t task, bool queries) const;
  void turn(float* x, std::int64_t heads, const float* norm, std::int64_t row, std::int64_t count) const;

  const Engine& engine_;
  Arena& arena_;
  const RunShape& shape_;
  std::span<const RunSpan> spans_;
  float* h_;
  std::int64_t rows_, width_;
  float *n_, *q_, *y_, *k_, *v_;
  AttentionSpan* past_;
  std::int64_t* first_task_; // of each span, in place
  std::optional<Rotation> rotation_;
};

} // namespace tenon::cpu
