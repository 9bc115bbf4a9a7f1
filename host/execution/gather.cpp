#include "host/execution/gather.hpp"

#include "host/routing/strengths.hpp"
#include "kernels/packed_operators.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

namespace tenon {

Chosen choose(const at::Tensor& w_NE, std::size_t slot) {
  const std::int64_t rows = w_NE.size(0), row_stride = w_NE.stride(0);
  const float* column = w_NE.data_ptr<float>() + static_cast<std::int64_t>(slot) * w_NE.stride(1);
  const auto strength = [&](std::int64_t row) { return column[row * row_stride]; };
  Chosen chosen;
  for (std::int64_t row = 0; row < rows; ++row)
    if (strength(row) != 0.0f) chosen.rows_K.push_back(row), chosen.strengths_K.push_back(strength(row));
  return chosen;
}

at::Tensor take(const at::Tensor& x_NC, const Chosen& chosen) {
  if (chosen.size() == x_NC.size(0)) return x_NC;
  return x_NC.index_select(0, at::tensor(chosen.rows_K, at::kLong));
}

at::Tensor unmasked(const at::Tensor& w_NE, const Experts& experts) {
  at::Tensor w = w_NE;
  for (std::size_t slot = 1; slot < experts.size(); ++slot) {
    if (!experts.masked(slot)) continue;
    if (w.is_same(w_NE)) w = w_NE.clone();
    give_to_base(w, static_cast<std::int64_t>(slot));
  }
  return w;
}

std::vector<std::vector<std::int64_t>> chosen_positions(const Chosen& chosen, const Batch& batch) {
  std::vector<std::vector<std::int64_t>> out(batch.rows.size());
  if (chosen.empty()) return out;
  auto at = chosen.rows_K.begin();
  const auto end = chosen.rows_K.end();
  for (std::size_t row = 0; row < batch.rows.size(); ++row) {
    const BatchRows& rows = batch.rows[row];
    for (; at != end && *at < rows.offset + rows.length; ++at) out[row].push_back(rows.position + (*at - rows.offset));
  }
  return out;
}

namespace {

bool is_packed_run(const LoadedExpert& expert) { return expert.run() && !expert.run()->blocks->kernels.empty(); }

} // namespace

Gather::Gather(const at::Tensor& h_NC, Experts& experts, const Batch& batch, const at::Tensor& w_NE)
    : h_NC_(h_NC),
      experts_(experts),
      batch_(batch),
      y_NC_(experts.size()),
      joins_(experts.size(), false),
      ran_beside_(experts.size(), false),
      base_done_(batch.rows.size(), 0),
      base_last_(batch.rows.size(), 0) {
  for (std::size_t slot = 0; slot < experts.size(); ++slot) {
    const bool stands = slot == 0 || experts[slot].uses_base_output();
    if (!stands && !experts[slot].run()) continue;
    const Chosen chosen = choose(w_NE, slot);
    auto positions = chosen_positions(chosen, batch);
    if (!stands) {
      joins_[slot] = !chosen.empty() && experts.runs_with_base(slot); // compares weights: of the chosen only
      Wanted wanted{slot, std::move(positions)};
      if (joins_[slot])
        with_base_.push_back(std::move(wanted));
      else if (!chosen.empty() && goes_beside(wanted))
        beside_.push_back(std::move(wanted));
      continue;
    }
    for (std::size_t row = 0; row < positions.size(); ++row)
      if (!positions[row].empty()) base_last_[row] = std::max(base_last_[row], positions[row].back() + 1);
  }
}

// A run of blocks on weights of its own, of the same shape as those that are there already, and a few rows for it.
bool Gather::goes_beside(const Wanted& wanted) const {
  const LoadedExpert& expert = experts_[wanted.slot];
  if (expert.context().kind == ExpertContext::Kind::token) return false;
  std::int64_t rows = 0;
  for (std::size_t row = 0; row < wanted.positions.size(); ++row)
    for (const Stretch& one : stretches(expert.context(), wanted.positions[row], seen(wanted.slot, row)))
      rows += one.last - one.first;
  return rows <= kRowsBeside &&
         (beside_.empty() || may_run_beside(*experts_[beside_.front().slot].run()->blocks, *expert.run()->blocks));
}

at::Tensor Gather::run(std::size_t slot, const Chosen& chosen) {
  LoadedExpert& expert = experts_[slot];
  if (slot == 0 || expert.uses_base_output())
    run_base(chosen_positions(chosen, batch_));
  else if (joins_[slot])
    run_base(std::vector<std::vector<std::int64_t>>(batch_.rows.size()));
  if (slot != 0 && expert.context().kind == ExpertContext::Kind::token) return run_rows(slot, chosen);
  if (slot != 0 && !joins_[slot] && !run_beside(slot)) run_stretches({{slot, chosen_positions(chosen, batch_)}});
  return take(y_NC_[slot], chosen);
}

// All that go beside each other, with the first of them. After a fault each runs alone, so that it shows whose it is.
bool Gather::run_beside(std::size_t slot) {
  if (ran_beside_[slot]) return true;
  const auto is_slot = [&](const Wanted& wanted) { return wanted.slot == slot; };
  if (beside_.size() < 2 || std::none_of(beside_.begin(), beside_.end(), is_slot)) return false;
  const std::vector<Wanted> all = std::exchange(beside_, {});
  try {
    run_stretches(all);
  } catch (...) {
    return false;
  }
  for (const Wanted& wanted : all) ran_beside_[wanted.slot] = true;
  return true;
}

// As far as anybody needs it; further than foreseen only where a fault gave an expert's rows to the base.
void Gather::run_base(std::vector<std::vector<std::int64_t>> positions) {
  for (std::size_t row = 0; row < positions.size(); ++row)
    if (base_last_[row] > 0 && (positions[row].empty() || positions[row].back() + 1 < base_last_[row]))
      positions[row].push_back(base_last_[row] - 1);
  std::vector<Wanted> wanted = with_base_;
  wanted.insert(wanted.begin(), {0, std::move(positions)});
  run_stretches(wanted);
  with_base_.clear(); // not before: after a fault, whoever has not been run must not seem so
}

// A `token` expert: every chosen row by itself.
at::Tensor Gather::run_rows(std::size_t slot, const Chosen& chosen) {
  const at::Tensor h_KC = take(h_NC_, chosen),
                   base_KC = experts_[slot].uses_base_output() ? take(y_NC_[0], chosen) : at::Tensor();
  const tenon_span span{0, h_KC.size(0), 0, nullptr};
  experts_.work[slot].run_rows += h_KC.size(0);
  return experts_[slot].forward(h_KC, base_KC, {&span, 1});
}

Seen Gather::seen(std::size_t slot, std::size_t row) const {
  if (const Sequence* sequence = batch_.rows[row].sequence)
    return {sequence->experts[slot].first(), sequence->experts[slot].done()};
  return {};
}

// Of a sequence, the first position at which somebody reads what the expert says. What the base says may be kept, or
// asked for by those that stand on it.
std::int64_t Gather::first_asked(std::size_t slot, std::size_t row, const std::vector<std::int64_t>& positions) const {
  const BatchRows& rows = batch_.rows[row];
  if (slot != 0) return positions.empty() ? 0 : positions.front();
  if (!rows.sequence) return 0;
  return experts_.keep_base() ? std::min(rows.sequence->base.length(), rows.position) : rows.position;
}

// Only the last stretch of a sequence leaves a state behind, and only the first may go on from one: those between need
// none, and run together.
void Gather::run_stretches(const std::vector<Wanted>& wanted) {
  std::vector<Piece> stateless;
  std::vector<Queue> queues;
  for (const auto& [slot, positions] : wanted) {
    const ExpertContext context = slot == 0 ? ExpertContext{} : experts_[slot].context(); // the base runs everything
    for (std::size_t row = 0; row < positions.size(); ++row) {
      const bool sequence = batch_.rows[row].sequence != nullptr;
      // Without state nothing can be continued, but what the base has been run over is there.
      if (!sequence && slot == 0 && (positions[row].empty() || positions[row].back() < base_done_[row])) continue;
      const std::vector<Stretch> all = stretches(context, positions[row], seen(slot, row));
      Queue queue{slot, row, first_asked(slot, row, positions[row]), {}};
      for (std::size_t i = 0; i < all.size(); ++i) {
        if (sequence && (i + 1 == all.size() || !all[i].fresh))
          queue.stretches.push_back(all[i]);
        else
          stateless.push_back({slot, row, all[i].first, all[i].last, nullptr});
      }
      if (!queue.stretches.empty()) queues.push_back(std::move(queue));
    }
  }
  run_stateless(stateless);
  run_queues(queues);
}

// A stretch without state cannot be cut; several share a call as far as they fit.
void Gather::run_stateless(const std::vector<Piece>& pieces) {
  std::vector<Piece> group;
  std::int64_t rows = 0;
  for (const Piece& piece : pieces) {
    const std::int64_t count = piece.last - piece.first;
    if (!group.empty() && rows + count > experts_.rows_at_once) {
      call(group);
      group.clear();
      rows = 0;
    }
    group.push_back(piece);
    rows += count;
  }
  if (!group.empty()) call(group);
}

void Gather::run_queues(std::vector<Queue>& queues) {
  for (auto pieces = next_pieces(queues); !pieces.empty(); pieces = next_pieces(queues)) call(pieces);
}

// The next call with state: of each sequence what it can go on with, until the call is full.
std::vector<Gather::Piece> Gather::next_pieces(std::vector<Queue>& queues) const {
  std::vector<Piece> pieces;
  std::int64_t room = experts_.rows_at_once;
  for (Queue& queue : queues) {
    if (room == 0) break;
    if (queue.at == queue.stretches.size()) continue;
    const Stretch& stretch = queue.stretches[queue.at];
    ModuleState& state = batch_.rows[queue.row].sequence->experts[queue.slot];
    if (queue.done == 0 && stretch.fresh) state.restart(stretch.first);
    const std::int64_t first = stretch.first + queue.done, last = std::min(stretch.last, first + room);
    pieces.push_back({queue.slot, queue.row, first, last, &state, std::clamp(queue.asked, first, last) - first});
    room -= last - first;
    queue.done = last == stretch.last ? 0 : last - stretch.first;
    queue.at += last == stretch.last;
  }
  return pieces;
}

void Gather::call(const std::vector<Piece>& pieces) {
  std::vector<tenon_span> spans;
  std::int64_t rows = 0;
  for (const Piece& piece : pieces) {
    spans.push_back({rows, piece.last - piece.first, piece.first, piece.state ? to_handle(piece.state) : nullptr});
    rows += piece.last - piece.first;
    experts_.work[piece.slot].run_rows += piece.last - piece.first;
  }
  at::Tensor y;
  try {
    y = compute(pieces, spans);
  } catch (...) {
    for (const Piece& piece : pieces)
      if (piece.state) piece.state->undo_failed();
    throw;
  }
  for (std::size_t i = 0; i < pieces.size(); ++i) keep(pieces[i], y.narrow(0, spans[i].offset, spans[i].length));
}

// One expert's rows, or those of several that run with the base, or beside each other. Who runs blocks and nothing else
// need not finish rows that nobody reads.
at::Tensor Gather::compute(const std::vector<Piece>& pieces, std::span<const tenon_span> spans) const {
  const std::size_t slot = pieces.front().slot;
  const at::Tensor h = inputs(pieces, false);
  const bool alone = std::all_of(pieces.begin(), pieces.end(), [&](const Piece& piece) { return piece.slot == slot; });
  const bool unread = std::any_of(pieces.begin(), pieces.end(), [](const Piece& piece) { return piece.unread > 0; });
  if (alone && !(unread && is_packed_run(experts_[slot])))
    return experts_[slot].forward(h, experts_[slot].uses_base_output() ? inputs(pieces, true) : at::Tensor(), spans);
  std::vector<RunOfSpan> runs;
  for (const Piece& piece : pieces) {
    const LoadedExpert::Run& run = experts_[piece.slot].run().value();
    runs.push_back({run.blocks.get(), run.slot, piece.unread});
  }
  const bool with_base = alone || slot == 0 || joins_[slot];
  try {
    return packed_runs(h, runs, spans, with_base ? RunWeights::shared : RunWeights::own);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) { // one expert's is its fault, as in its forward; of several nobody knows whose
    if (!alone) throw;
    throw Error(Code::plugin, experts_[slot].title(), error.what());
  }
}

// The rows experts receive for these positions: the trunk's outputs, or the base's.
at::Tensor Gather::inputs(const std::vector<Piece>& pieces, bool base) const {
  std::vector<at::Tensor> parts;
  for (const Piece& piece : pieces) {
    const BatchRows& rows = batch_.rows[piece.row];
    if (rows.sequence)
      parts.push_back((base ? rows.sequence->base : rows.sequence->h).rows(piece.first, piece.last));
    else
      parts.push_back((base ? y_NC_[0] : h_NC_).narrow(0, rows.offset + piece.first, piece.last - piece.first));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts);
}

// Outputs go where the batch's rows are; those of earlier positions only served to catch up.
void Gather::keep(const Piece& piece, const at::Tensor& y) {
  const BatchRows& rows = batch_.rows[piece.row];
  const std::int64_t first = std::max(piece.first, rows.position), count = piece.last - first;
  if (count > 0) {
    const at::Tensor asked_for = y.narrow(0, first - piece.first, count);
    at::Tensor& y_NC = y_NC_[piece.slot];
    if (count == h_NC_.size(0)) {
      y_NC = asked_for;
    } else {
      if (!y_NC.defined()) y_NC = at::empty_like(h_NC_);
      y_NC.narrow(0, rows.offset + first - rows.position, count).copy_(asked_for);
    }
  }
  if (piece.state) piece.state->advance(piece.last - piece.first);
  if (piece.slot != 0) return;
  if (!rows.sequence) {
    base_done_[piece.row] = piece.last;
  } else if (RowBuffer& kept = rows.sequence->base; experts_.keep_base() && piece.last > kept.length()) {
    const std::int64_t new_rows = piece.last - kept.length(); // a base caught up again is there already
    kept.append(y.narrow(0, piece.last - piece.first - new_rows, new_rows));
  }
}

} // namespace tenon
