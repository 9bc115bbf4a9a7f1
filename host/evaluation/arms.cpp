#include "host/evaluation/arms.hpp"

#include "host/execution/merge.hpp"
#include "host/model/random.hpp"

#include <ATen/ATen.h>

namespace tenon {
namespace {

// The same numbers for every row, the base alone at position 0.
at::Tensor constant(const Batch& batch, const std::vector<float>& row_E) {
  at::Tensor w_NE = at::tensor(row_E).repeat({batch.size(), 1});
  for (const BatchRows& rows : batch.rows) {
    if (rows.position != 0 || rows.length == 0) continue;
    w_NE[rows.offset].zero_();
    w_NE[rows.offset][0].fill_(1.0);
  }
  return w_NE;
}

std::vector<float> only(std::size_t experts, std::size_t slot) {
  std::vector<float> row(experts, 0.0f);
  row[slot] = 1.0f;
  return row;
}

std::vector<Row> rows_of(const Composition& composition) {
  std::vector<Row> rows;
  for (std::size_t slot = 1; slot < composition.packages().size(); ++slot)
    rows.push_back(*composition.packages()[slot].row);
  return rows;
}

at::Tensor routed(const Composition& composition, const std::vector<Row>& rows, const at::Tensor& h_NC,
                  const Batch& batch) {
  const Router& router = composition.router();
  return Router(router.normalization(), rows, router.routing(), router.prior()).strengths(h_NC, batch);
}

// A random direction of the row's own norm; the bias stays.
Row random_row(const Row& row, const std::string& expert, std::uint64_t seed) {
  at::Tensor r_C = at::empty_like(row.r_C, at::MemoryFormat::Contiguous);
  RandomStream(seed, "random-row/" + expert).normal({r_C.data_ptr<float>(), static_cast<std::size_t>(r_C.numel())});
  return {r_C * (row.r_C.norm() / r_C.norm()), row.b};
}

at::Tensor with_random_rows(const Composition& composition, const at::Tensor& h_NC, const Batch& batch,
                            std::uint64_t seed) {
  std::vector<Row> rows = rows_of(composition);
  for (std::size_t i = 0; i < rows.size(); ++i)
    rows[i] = random_row(rows[i], composition.packages()[i + 1].entry.name, seed);
  return routed(composition, rows, h_NC, batch);
}

// The router without one expert; its column is there, and zero.
at::Tensor without(const Composition& composition, std::size_t slot, const at::Tensor& h_NC, const Batch& batch) {
  std::vector<Row> rows = rows_of(composition);
  rows.erase(rows.begin() + static_cast<std::ptrdiff_t>(slot) - 1);
  const at::Tensor w = routed(composition, rows, h_NC, batch);
  const auto at = static_cast<std::int64_t>(slot);
  return at::cat({w.narrow(1, 0, at), at::zeros({w.size(0), 1}), w.narrow(1, at, w.size(1) - at)}, 1);
}

} // namespace

std::vector<Arm> make_arms(const Composition& composition, const at::Tensor& h_NC, const Batch& batch,
                           const ArmOptions& options) {
  const std::size_t experts = composition.packages().size(), columns = experts + options.versus.size();
  const auto name = [&](std::size_t slot) {
    return slot < experts ? composition.packages()[slot].entry.name : options.versus[slot - experts];
  };
  std::vector<Arm> arms = {{"base", {constant(batch, only(experts, 0))}},
                           {"composed", {composition.router().strengths(h_NC, batch)}}};
  for (std::size_t slot = 1; slot < columns; ++slot)
    arms.push_back({"alone:" + name(slot), {constant(batch, only(columns, slot))}});
  if (experts == 1) return arms;
  if (options.uniform)
    arms.push_back({"uniform", {constant(batch, std::vector<float>(experts, 1.0f / static_cast<float>(experts)))}});
  if (options.random_rows > 0) {
    arms.push_back({"random", {}});
    for (std::int64_t i = 0; i < options.random_rows; ++i)
      arms.back().strengths_NE.push_back(
          with_random_rows(composition, h_NC, batch, options.seed + static_cast<std::uint64_t>(i)));
  }
  for (std::size_t slot = 1; options.removals && slot < experts; ++slot)
    arms.push_back({"without:" + name(slot), {without(composition, slot, h_NC, batch)}});
  return arms;
}

std::vector<at::Tensor> dense_outputs(Experts& experts, const at::Tensor& h_NC, const Batch& batch,
                                      const LoadedExperts& versus) {
  at::NoGradGuard no_grad;
  const auto spans = batch.spans([](Sequence& sequence) -> ModuleState& { return sequence.experts[0]; });
  std::vector<at::Tensor> outputs = {checked(experts[0].forward(h_NC, {}, spans), experts[0])};
  for (std::size_t slot = 1; slot < experts.size(); ++slot) {
    outputs.push_back(outputs[0]);
    if (experts.masked(slot)) continue;
    try {
      outputs[slot] = checked(experts[slot].forward(h_NC, outputs[0], spans), experts[slot]);
    } catch (const Error& error) {
      experts.fault(slot, error);
    }
  }
  for (const auto& expert : versus) {
    outputs.push_back(checked(expert->forward(h_NC, outputs[0], spans), *expert));
  }
  return outputs;
}

at::Tensor mix(const at::Tensor& w_NE, const std::vector<at::Tensor>& outputs_NC) {
  at::Tensor m_NC = at::zeros_like(outputs_NC[0]);
  for (std::size_t slot = 0; slot < static_cast<std::size_t>(w_NE.size(1)); ++slot) {
    const Chosen chosen = choose(w_NE, slot);
    if (chosen.empty()) continue;
    add_weighted(m_NC, chosen, take(outputs_NC[slot], chosen));
  }
  return m_NC;
}

Work sparse_work(const at::Tensor& w_NE, const Experts& experts, const Batch& batch) {
  Work work;
  work.dense_rows = w_NE.numel();
  std::vector<std::int64_t> base_until(batch.rows.size(), 0);
  for (std::size_t slot = 0; slot < experts.size(); ++slot) {
    const Chosen chosen = choose(w_NE, slot);
    const auto positions = chosen_positions(chosen, batch);
    for (std::size_t row = 0; row < positions.size(); ++row) {
      if ((slot == 0 || experts[slot].uses_base_output()) && !positions[row].empty())
        base_until[row] = std::max(base_until[row], positions[row].back() + 1);
      if (slot == 0 || experts[slot].context().kind == ExpertContext::Kind::token) continue;
      for (const Stretch& stretch : stretches(experts[slot].context(), positions[row], {}))
        work.run_rows += stretch.length();
    }
    if (slot != 0 && experts[slot].context().kind == ExpertContext::Kind::token) work.run_rows += chosen.size();
  }
  for (const std::int64_t until : base_until) work.run_rows += until;
  return work;
}

} // namespace tenon
