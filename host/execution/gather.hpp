// What one merge runs of each expert: the chosen rows, and the rows that must come before them.
// Shapes: N rows of the batch, K chosen rows, C width.
#pragma once

#include "host/execution/catch_up.hpp"
#include "host/execution/experts.hpp"
#include "host/model/batch.hpp"

namespace tenon {

// The rows of the batch that give an expert a strength other than zero, ascending.
struct Chosen {
  std::vector<std::int64_t> rows_K;
  std::vector<float> strengths_K;
  bool empty() const { return rows_K.empty(); }
  std::int64_t size() const { return std::ssize(rows_K); }
};
Chosen choose(const at::Tensor& w_NE, std::size_t slot);
at::Tensor take(const at::Tensor& x_NC, const Chosen& chosen); // (K,C); x itself where all are chosen

// The strengths, where something is masked a copy in which it has given its own to the base.
at::Tensor unmasked(const at::Tensor& w_NE, const Experts& experts);

// For each row of the batch, the chosen positions of its sequence, ascending.
std::vector<std::vector<std::int64_t>> chosen_positions(const Chosen& chosen, const Batch& batch);

// Runs experts over a batch, each position at most once a merge; the base's outputs are shared by all that stand on it.
// A call of an expert gets either rows with state, each sequence at most once, or rows without any. Experts that are
// the base's run with changes of low rank go through it together with the base, so that its weights are read once;
// runs on weights of their own go beside each other, so that threads can take whole ones.
class Gather {
 public:
  // w_NE: the strengths of this merge, so that the base runs once for all that need it.
  Gather(const at::Tensor& h_NC, Experts& experts, const Batch& batch, const at::Tensor& w_NE);

  // The expert's outputs for the chosen rows, (K,C). Errors: plugin.
  at::Tensor run(std::size_t slot, const Chosen& chosen);

 private:
  // The positions of each row of the batch that an expert is wanted at.
  struct Wanted {
    std::size_t slot;
    std::vector<std::vector<std::int64_t>> positions;
  };
  // Positions [first, last) of the batch's row `row`, and the state they go on from: null where there is none. What
  // comes out of the first `unread` is thrown away.
  struct Piece {
    std::size_t slot, row;
    std::int64_t first, last;
    ModuleState* state;
    std::int64_t unread = 0;
  };
  // What is left for one expert to do with state in one row of the batch.
  struct Queue {
    std::size_t slot, row;
    std::int64_t asked; // the first position whose output is
    std::vector<Stretch> stretches;
    std::size_t at = 0;
    std::int64_t done = 0; // of the stretch at hand
  };

  bool goes_beside(const Wanted& wanted) const;
  bool run_beside(std::size_t slot);
  at::Tensor run_rows(std::size_t slot, const Chosen& chosen);
  void run_base(std::vector<std::vector<std::int64_t>> positions);
  void run_stretches(const std::vector<Wanted>& wanted);
  void run_stateless(const std::vector<Piece>& pieces);
  void run_queues(std::vector<Queue>& queues);
  std::vector<Piece> next_pieces(std::vector<Queue>& queues) const;
  void call(const std::vector<Piece>& pieces);
  at::Tensor compute(const std::vector<Piece>& pieces, std::span<const tenon_span> spans) const;
  std::int64_t first_asked(std::size_t slot, std::size_t row, const std::vector<std::int64_t>& positions) const;
  at::Tensor inputs(const std::vector<Piece>& pieces, bool base) const;
  void keep(const Piece& piece, const at::Tensor& y);
  Seen seen(std::size_t slot, std::size_t row) const;

  const at::Tensor& h_NC_;
  Experts& experts_;
  const Batch& batch_;
  std::vector<at::Tensor> y_NC_;        // each expert's outputs, as far as they have been run
  std::vector<bool> joins_;             // slots that are chosen and run with the base
  std::vector<bool> ran_beside_;        // slots
  std::vector<Wanted> with_base_;       // what goes with the base's first call
  std::vector<Wanted> beside_;          // what goes with the first call of one of these
  std::vector<std::int64_t> base_done_; // without state: positions of each row the base has been run over
  std::vector<std::int64_t> base_last_; // how far the base is needed in each row, by it and all that stand on it
};

} // namespace tenon
