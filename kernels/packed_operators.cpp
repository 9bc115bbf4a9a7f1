#include "kernels/packed_operators.hpp"

#include <ATen/ATen.h>

namespace tenon {
namespace {

cpu::Arena& arena() {
  thread_local cpu::Arena one;
  one.reset();
  return one;
}

bool packed(const PackedLinear& linear) { return linear.form.has_value(); }
bool packed(const PackedBlock& block) {
  return packed(block.q) && packed(block.k) && packed(block.v) && packed(block.o) &&
         (!block.gate || packed(*block.gate)) && packed(block.up) && packed(block.down);
}

cpu::Norm norm(const PackedNorm& norm) {
  return {norm.weight.data_ptr<float>(), norm.bias ? norm.bias->data_ptr<float>() : nullptr};
}
const float* norm(const std::optional<PackedNorm>& norm) { return norm ? norm->weight.data_ptr<float>() : nullptr; }

cpu::Block kernel(const PackedBlock& block) {
  cpu::Block out;
  out.q = block.q.kernel(), out.k = block.k.kernel(), out.v = block.v.kernel(), out.o = block.o.kernel();
  if (block.gate) out.gate = block.gate->kernel();
  out.up = block.up.kernel(), out.down = block.down.kernel();
  out.attention_norm = norm(block.attention_norm), out.ffn_norm = norm(block.ffn_norm);
  out.q_norm = norm(block.q_norm), out.k_norm = norm(block.k_norm);
  return out;
}

// The states of a call's spans; spans without one keep their rows only for the call.
class States : public cpu::KeyValueStore {
 public:
  States(Spans spans, std::int64_t slot, std::int64_t width, cpu::Arena& arena)
      : spans_(spans), slot_(slot), width_(width), arena_(arena) {}

  cpu::KeyValues extend(std::int64_t block, std::int64_t span) override {
    const tenon_span& one = spans_[static_cast<std::size_t>(span)];
    SequenceState* state = from_handle(one.state);
    if (!state) return {0, chunks(room(one.length), one.length), chunks(room(one.length), one.length)};
    const auto k = state->extend(slot_ + 2 * block, one.length, width_),
               v = state->extend(slot_ + 2 * block + 1, one.length, width_);
    return {k.before, chunks(k.rows, k.before + one.length), chunks(v.rows, k.before + one.length)};
  }

 private:
  float* room(std::int64_t rows) { return arena_.take<float>(rows * width_); }
  float* const* chunks(float* rows, std::int64_t count) {
    const std::int64_t chunks = (count + cpu::kChunk - 1) / cpu::kChunk;
    auto** out = arena_.take<float*>(chunks);
    for (std::int64_t i = 0; i < chunks; ++i) out[i] = rows + i * cpu::kChunk * width_;
    return out;
  }

  Spans spans_;
  std::int64_t slot_, width_;
  cpu::Arena& arena_;
};

} // namespace

at::Tensor packed_linear(const at::Tensor& x_NC, const PackedLinear& packed) {
  const at::Tensor x = x_NC.to(at::kFloat).contiguous();
  const cpu::Linear linear = packed.kernel();
  at::Tensor y_NF = at::empty({x.size(0), linear.outputs()}, x.options());
  const cpu::Engine& engine = cpu::engine();
  cpu::Arena& memory = arena();
  const cpu::Rows rows =
      cpu::prepare(engine, memory, x.data_ptr<float>(), x.size(0), linear.inputs(), cpu::Forms() |= linear);
  const cpu::Product one[] = {{&linear, y_NF.data_ptr<float>()}};
  cpu::multiply(engine, memory, rows, one);
  return y_NF;
}

std::vector<cpu::Block> packed_kernels(const std::vector<PackedBlock>& blocks) {
  std::vector<cpu::Block> out;
  for (const PackedBlock& block : blocks)
    if (!packed(block)) return {};
  for (const PackedBlock& block : blocks) out.push_back(kernel(block));
  return out;
}

at::Tensor packed_run(const at::Tensor& x_NC, const PackedHandle& run, Spans spans, std::int64_t slot) {
  const PackedBlock& first = run.blocks.front();
  const cpu::RunShape shape{
      {first.heads, first.kv_heads, first.head_dim}, first.norm_eps, first.rope_theta, cpu::KeyFormat::float32};
  at::Tensor h_NC = at::empty(x_NC.sizes(), x_NC.options().dtype(at::kFloat)).copy_(x_NC);
  cpu::Arena& memory = arena();
  auto* runs = memory.take<cpu::RunSpan>(static_cast<std::int64_t>(spans.size()));
  for (std::size_t i = 0; i < spans.size(); ++i) runs[i] = {spans[i].offset, spans[i].length, spans[i].position};
  States states(spans, slot, shape.heads.kv_width(), memory);
  cpu::run_blocks(cpu::engine(), memory, shape, run.kernels, {runs, spans.size()}, states, h_NC.data_ptr<float>(),
                  h_NC.size(0));
  return h_NC;
}

} // namespace tenon
