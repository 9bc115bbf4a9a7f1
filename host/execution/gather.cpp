#include "host/execution/gather.hpp"

#include <ATen/ATen.h>

namespace tenon {

Chosen choose(const at::Tensor& w_NE, std::size_t slot) {
  const at::Tensor column_N = w_NE.select(1, static_cast<std::int64_t>(slot));
  const at::Tensor rows_K = column_N.nonzero().squeeze(1);
  return {rows_K, column_N.index_select(0, rows_K)};
}

Gather::Gather(const at::Tensor& h_NC, Experts& experts, const Batch& batch, const at::Tensor& w_NE)
    : h_NC_(h_NC),
      experts_(experts),
      batch_(batch),
      base_done_(batch.rows.size(), 0),
      base_last_(batch.rows.size(), 0) {
  for (std::size_t slot = 0; slot < experts.size(); ++slot) {
    if (slot != 0 && !experts[slot].uses_base_output()) continue;
    const std::vector<std::int64_t> last = last_of_rows(choose(w_NE, slot));
    for (std::size_t row = 0; row < last.size(); ++row) base_last_[row] = std::max(base_last_[row], last[row]);
  }
}

at::Tensor Gather::run(std::size_t slot, const Chosen& chosen) {
  LoadedExpert& expert = experts_[slot];
  if (expert.uses_base_output()) run_base(chosen);
  if (slot != 0 && expert.context().kind == ExpertContext::Kind::token) return run_rows(slot, chosen);
  if (slot == 0) {
    run_base(chosen);
    return chosen.rows_K.numel() == h_NC_.size(0) ? base_NC_ : base_NC_.index_select(0, chosen.rows_K);
  }
  at::Tensor y_NC = at::empty_like(h_NC_);
  run_up_to(slot, last_of_rows(chosen), y_NC);
  return chosen.rows_K.numel() == h_NC_.size(0) ? y_NC : y_NC.index_select(0, chosen.rows_K);
}

// Further than foreseen only where a fault gave an expert's rows to the base.
void Gather::run_base(const Chosen& chosen) {
  if (!base_NC_.defined()) base_NC_ = at::empty_like(h_NC_);
  std::vector<std::int64_t> last = last_of_rows(chosen);
  for (std::size_t row = 0; row < last.size(); ++row) last[row] = std::max(last[row], base_last_[row]);
  run_up_to(0, last, base_NC_);
}

// A `token` expert: every chosen row by itself.
at::Tensor Gather::run_rows(std::size_t slot, const Chosen& chosen) {
  const bool all = chosen.rows_K.numel() == h_NC_.size(0);
  const auto take = [&](const at::Tensor& x_NC) { return all ? x_NC : x_NC.index_select(0, chosen.rows_K); };
  const at::Tensor h_KC = take(h_NC_), base_KC = experts_[slot].uses_base_output() ? take(base_NC_) : at::Tensor();
  const tenon_span span{0, h_KC.size(0), 0, nullptr};
  experts_.work.run_rows += h_KC.size(0);
  return experts_[slot].forward(h_KC, base_KC, {&span, 1});
}

// For each row of the batch, the position after the last chosen one; 0 where nothing is chosen.
std::vector<std::int64_t> Gather::last_of_rows(const Chosen& chosen) const {
  std::vector<std::int64_t> last(batch_.rows.size(), 0);
  const std::int64_t* chosen_row = chosen.rows_K.data_ptr<std::int64_t>();
  const std::int64_t* end = chosen_row + chosen.rows_K.numel();
  for (std::size_t row = 0; row < batch_.rows.size(); ++row) {
    const BatchRows& rows = batch_.rows[row];
    for (; chosen_row != end && *chosen_row < rows.offset + rows.length; ++chosen_row)
      last[row] = rows.position + (*chosen_row - rows.offset) + 1;
  }
  return last;
}

std::int64_t Gather::done(std::size_t slot, std::size_t row) const {
  const Sequence* sequence = batch_.rows[row].sequence;
  if (sequence) return sequence->experts[slot].done();
  return slot == 0 ? base_done_[row] : 0;
}

// Catches the expert up: over everything it has not seen, to the last position that is wanted.
void Gather::run_up_to(std::size_t slot, const std::vector<std::int64_t>& last_of_row, at::Tensor& y_NC) {
  std::vector<Range> ranges;
  std::vector<tenon_span> spans;
  std::int64_t offset = 0;
  for (std::size_t row = 0; row < batch_.rows.size(); ++row) {
    Sequence* sequence = batch_.rows[row].sequence;
    const std::int64_t last = last_of_row[row];
    if (last <= done(slot, row)) continue;
    const std::int64_t first = sequence ? done(slot, row) : 0; // without state nothing can be continued
    ranges.push_back({row, first, last});
    spans.push_back({offset, last - first, first, sequence ? to_handle(&sequence->experts[slot]) : nullptr});
    offset += last - first;
  }
  if (ranges.empty()) return;
  const at::Tensor base = experts_[slot].uses_base_output() ? inputs(ranges, true) : at::Tensor();
  experts_.work.run_rows += offset;
  keep(slot, ranges, experts_[slot].forward(inputs(ranges, false), base, spans), y_NC);
}

// The rows experts receive for these positions: the trunk's outputs, or the base's.
at::Tensor Gather::inputs(const std::vector<Range>& ranges, bool base) const {
  std::vector<at::Tensor> parts;
  for (const Range& range : ranges) {
    const BatchRows& rows = batch_.rows[range.row];
    if (rows.sequence)
      parts.push_back((base ? rows.sequence->base : rows.sequence->h).rows(range.first, range.last));
    else
      parts.push_back((base ? base_NC_ : h_NC_).narrow(0, rows.offset + range.first, range.last - range.first));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts);
}

// Outputs go where the batch's rows are; those of earlier positions only served to catch up.
void Gather::keep(std::size_t slot, const std::vector<Range>& ranges, const at::Tensor& y, at::Tensor& y_NC) {
  std::int64_t offset = 0;
  for (const Range& range : ranges) {
    const BatchRows& rows = batch_.rows[range.row];
    const std::int64_t first = std::max(range.first, rows.position), count = range.last - first;
    const at::Tensor part = y.narrow(0, offset, range.last - range.first);
    if (count > 0)
      y_NC.narrow(0, rows.offset + first - rows.position, count).copy_(part.narrow(0, first - range.first, count));
    if (rows.sequence) {
      rows.sequence->experts[slot].advance(range.last - range.first);
      if (slot == 0 && experts_.keep_base()) rows.sequence->base.append(part);
    } else if (slot == 0) {
      base_done_[range.row] = range.last;
    }
    offset += range.last - range.first;
  }
}

} // namespace tenon
