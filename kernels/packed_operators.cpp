#include "kernels/packed_operators.hpp"

#include <ATen/ATen.h>

#include <malloc.h>
#include <algorithm>
#include <stdexcept>
#include <string>

namespace tenon {
namespace {

thread_local cpu::Arena scratch;

cpu::Arena& arena() {
  scratch.reset();
  return scratch;
}

bool packed(const PackedLinear& linear) { return linear.form.has_value(); }
bool packed(const PackedFeedForward& ffn) {
  return (!ffn.gate || packed(*ffn.gate)) && packed(ffn.up) && packed(ffn.down);
}
bool packed(const PackedBlock& block) {
  return packed(block.q) && packed(block.k) && packed(block.v) && packed(block.o) && packed(block.ffn);
}
template <class T>
bool all_packed(const std::vector<T>& parts) {
  return std::all_of(parts.begin(), parts.end(), [](const T& part) { return packed(part); });
}

cpu::Norm norm(const PackedNorm& norm) {
  return {norm.weight.data_ptr<float>(), norm.bias ? norm.bias->data_ptr<float>() : nullptr};
}
const float* norm(const std::optional<PackedNorm>& norm) { return norm ? norm->weight.data_ptr<float>() : nullptr; }

cpu::FeedForward kernel(const PackedFeedForward& ffn) {
  cpu::FeedForward out{{}, ffn.up.kernel(), ffn.down.kernel()};
  if (ffn.gate) out.gate = ffn.gate->kernel();
  return out;
}

cpu::Block kernel(const PackedBlock& block) {
  cpu::Block out;
  out.q = block.q.kernel(), out.k = block.k.kernel(), out.v = block.v.kernel(), out.o = block.o.kernel();
  if (block.ffn.gate) out.gate = block.ffn.gate->kernel();
  out.up = block.ffn.up.kernel(), out.down = block.ffn.down.kernel();
  out.attention_norm = norm(block.attention_norm), out.ffn_norm = norm(block.ffn_norm);
  out.q_norm = norm(block.q_norm), out.k_norm = norm(block.k_norm);
  return out;
}

bool same(const std::optional<at::Tensor>& a, const std::optional<at::Tensor>& b) {
  return a.has_value() == b.has_value() && (!a || a->data_ptr() == b->data_ptr());
}
bool same(const PackedLinear& a, const PackedLinear& b) {
  return a.form->matrix.bytes == b.form->matrix.bytes && a.form->matrix.outputs == b.form->matrix.outputs &&
         same(a.bias, b.bias);
}
bool same(const PackedNorm& a, const PackedNorm& b) {
  return a.weight.data_ptr() == b.weight.data_ptr() && same(a.bias, b.bias);
}
template <class T>
bool same(const std::optional<T>& a, const std::optional<T>& b) {
  return a.has_value() == b.has_value() && (!a || same(*a, *b));
}
bool same(const PackedFeedForward& a, const PackedFeedForward& b) {
  return same(a.gate, b.gate) && same(a.up, b.up) && same(a.down, b.down);
}
bool same(const PackedBlock& a, const PackedBlock& b) {
  return same(a.q, b.q) && same(a.k, b.k) && same(a.v, b.v) && same(a.o, b.o) && same(a.ffn, b.ffn) &&
         same(a.attention_norm, b.attention_norm) && same(a.ffn_norm, b.ffn_norm) && same(a.q_norm, b.q_norm) &&
         same(a.k_norm, b.k_norm) && a.heads == b.heads && a.kv_heads == b.kv_heads && a.head_dim == b.head_dim &&
         a.norm_eps == b.norm_eps && a.rope_theta == b.rope_theta;
}

cpu::HeadShape heads(const PackedHandle& run) {
  const PackedBlock& first = run.blocks.front();
  return {first.heads, first.kv_heads, first.head_dim};
}

// Keys, or values, as attention over panels reads them.
class PanelRows : public RowForm {
 public:
  PanelRows(cpu::KeyFormat format, const cpu::HeadShape& shape, bool values)
      : format_(format), shape_(shape), values_(values) {}

  std::int64_t width() const override {
    return values_ ? cpu::value_width(format_, shape_) : cpu::key_width(format_, shape_);
  }
  void put(const float* rows, std::int64_t first, std::int64_t count, float* const* blocks) const override {
    (values_ ? cpu::put_values : cpu::put_keys)(*cpu::engine().kernels, format_, shape_, rows, first, count, blocks);
  }
  void get(float* rows, std::int64_t first, std::int64_t count, const float* const* blocks) const override {
    (values_ ? cpu::get_values : cpu::get_keys)(format_, shape_, blocks, first, count, rows);
  }

 private:
  cpu::KeyFormat format_;
  cpu::HeadShape shape_;
  bool values_;
};

// The states of a call's spans; spans without one keep their rows only for the call.
class States : public cpu::KeyValueStore {
 public:
  States(Spans spans, std::span<const RunOfSpan> runs, std::int64_t width, cpu::Arena& arena)
      : spans_(spans), runs_(runs), width_(width), alone_(arena.take<cpu::KeyValues>(std::ssize(spans))) {
    for (std::size_t s = 0; s < spans.size(); ++s)
      if (const PackedHandle& run = *runs[s].run; !from_handle(spans[s].state))
        alone_[s] = {0, chunks(arena, spans[s].length, *run.key_form), chunks(arena, spans[s].length, *run.value_form)};
  }

  cpu::KeyValues extend(std::int64_t block, std::int64_t span) override {
    const tenon_span& one = spans_[static_cast<std::size_t>(span)];
    const auto& [run, first, unread] = runs_[static_cast<std::size_t>(span)];
    SequenceState* state = from_handle(one.state);
    if (!state) return alone_[span];
    const std::int64_t slot = first + 2 * block;
    const auto k = state->extend(slot, one.length, width_, run->key_form),
               v = state->extend(slot + 1, one.length, width_, run->value_form);
    return {k.before, k.blocks, v.blocks};
  }

 private:
  static_assert(kStateBlock == cpu::kChunk, "a block of a state is a chunk of attention");

  static float* const* chunks(cpu::Arena& arena, std::int64_t rows, const RowForm& form) {
    const std::int64_t count = (rows + cpu::kChunk - 1) / cpu::kChunk;
    auto** chunks = arena.take<float*>(count);
    for (std::int64_t i = 0; i < count; ++i) chunks[i] = arena.take<float>(cpu::kChunk * form.width());
    return chunks;
  }

  Spans spans_;
  std::span<const RunOfSpan> runs_;
  std::int64_t width_;
  cpu::KeyValues* alone_; // of spans without state: every block writes its own over those of the one before
};

at::Tensor product(const at::Tensor& x_NC, const cpu::Linear& linear, bool finely) {
  const at::Tensor x = x_NC.to(at::kFloat).contiguous();
  at::Tensor y_NF = at::empty({x.size(0), linear.outputs()}, x.options());
  const cpu::Engine& engine = cpu::engine();
  cpu::Arena& memory = arena();
  const auto* from = x.data_ptr<float>();
  const cpu::Rows rows = finely
                             ? cpu::prepare_finely(engine, memory, from, x.size(0), linear.inputs())
                             : cpu::prepare(engine, memory, from, x.size(0), linear.inputs(), cpu::Forms() |= linear);
  const cpu::Product one[] = {{&linear, y_NF.data_ptr<float>()}};
  cpu::multiply(engine, memory, rows, one);
  return y_NF;
}

} // namespace

void give_back_memory() {
  scratch = cpu::Arena();
#if defined(__GLIBC__)
  malloc_trim(0);
#endif
}

at::Tensor packed_linear(const at::Tensor& x_NC, const PackedLinear& packed) {
  return product(x_NC, packed.kernel(), false);
}

at::Tensor logits_of(const at::Tensor& features_NC, const BoundMatrix& unembedding_VC) {
  const auto& form = unembedding_VC.form;
  if (!form) return at::linear(features_NC, unembedding_VC.weight_FC);
  return product(features_NC, {form->matrix}, !cpu::reads_bf16(form->matrix.format));
}

void pack_kernels(PackedMixture& mixture) {
  if (!all_packed(mixture.experts)) return;
  for (const PackedFeedForward& expert : mixture.experts) mixture.kernels.push_back(kernel(expert));
}

at::Tensor packed_mixture(const at::Tensor& x_NC, const PackedMixture& packed) {
  const at::Tensor x = x_NC.to(at::kFloat).contiguous();
  at::Tensor y_NC = at::empty_like(x);
  const cpu::Engine& engine = cpu::engine();
  cpu::Arena& memory = arena();
  const cpu::MixtureRouter router{packed.router.data_ptr<float>(), packed.router.size(0), packed.router.size(1),
                                  packed.active};
  const cpu::Choices choices = cpu::choose(engine, memory, router, x.data_ptr<float>(), x.size(0));
  cpu::mix(engine, memory, packed.kernels, choices, x.data_ptr<float>(), y_NC.data_ptr<float>());
  return y_NC;
}

at::Tensor looked_up_rows(const BoundMatrix& table, const at::Tensor& ids_N) {
  const auto& [table_VC, form] = table;
  if (!form || !form->lossless) return table_VC.index_select(0, ids_N);
  const std::int64_t rows = ids_N.size(0), width = table_VC.size(1);
  at::Tensor out_NC = at::empty({rows, width}, table_VC.options());
  const auto* id = ids_N.data_ptr<std::int64_t>();
  for (std::int64_t n = 0; n < rows; ++n)
    if (id[n] < 0 || id[n] >= table_VC.size(0))
      throw std::out_of_range("row " + std::to_string(id[n]) + " of a table of " + std::to_string(table_VC.size(0)));
  auto* to = out_NC.data_ptr<float>();
  cpu::engine().pool->run(rows, [&](std::int64_t n) {
    cpu::unpack_row(form->matrix, id[n], {to + n * width, static_cast<std::size_t>(width)});
  });
  return out_NC;
}

void pack_kernels(PackedHandle& run) {
  if (!all_packed(run.blocks)) return;
  run.keys = cpu::chosen_key_format(heads(run));
  run.key_form = std::make_shared<PanelRows>(run.keys, heads(run), false);
  run.value_form = std::make_shared<PanelRows>(run.keys, heads(run), true);
  for (const PackedBlock& block : run.blocks) run.kernels.push_back(kernel(block));
}

std::int64_t kept_numbers(const PackedHandle& run) {
  const auto blocks = static_cast<std::int64_t>(run.blocks.size());
  if (!run.kernels.empty()) return blocks * (run.key_form->width() + run.value_form->width());
  return blocks * 2 * heads(run).kv_width();
}

std::int64_t attention_operations(const PackedHandle& run) {
  return static_cast<std::int64_t>(run.blocks.size()) * 4 * heads(run).q_width();
}

bool share_weights(const PackedHandle& a, const PackedHandle& b) {
  return !a.kernels.empty() && !b.kernels.empty() &&
         std::equal(a.blocks.begin(), a.blocks.end(), b.blocks.begin(), b.blocks.end(),
                    [](const PackedBlock& one, const PackedBlock& other) { return same(one, other); });
}

bool may_run_beside(const PackedHandle& a, const PackedHandle& b) {
  if (a.kernels.empty() || b.kernels.empty()) return false;
  const PackedBlock &one = a.blocks.front(), &other = b.blocks.front();
  return a.keys == b.keys && one.heads == other.heads && one.kv_heads == other.kv_heads &&
         one.head_dim == other.head_dim && one.norm_eps == other.norm_eps && one.rope_theta == other.rope_theta;
}

at::Tensor packed_run(const at::Tensor& x_NC, const PackedHandle& run, Spans spans, std::int64_t slot) {
  const c10::SmallVector<RunOfSpan, 8> runs(spans.size(), RunOfSpan{&run, slot});
  return packed_runs(x_NC, runs, spans);
}

at::Tensor packed_runs(const at::Tensor& x_NC, std::span<const RunOfSpan> runs, Spans spans, RunWeights weights) {
  if (spans.empty()) return x_NC.to(at::kFloat);
  const PackedBlock& first = runs.front().run->blocks.front();
  const cpu::RunShape shape{heads(*runs.front().run), first.norm_eps, first.rope_theta, runs.front().run->keys};
  const at::Tensor x = x_NC.to(at::kFloat).contiguous();
  at::Tensor h_NC = at::empty_like(x);
  cpu::Arena& memory = arena();
  const auto count = static_cast<std::int64_t>(spans.size());
  auto* rows = memory.take<cpu::RunSpan>(count);
  auto* kernels = memory.take<std::span<const cpu::Block>>(count); // of the runs that differ
  std::size_t different = 0;
  for (std::size_t i = 0; i < spans.size(); ++i) {
    const std::span<const cpu::Block> own = runs[i].run->kernels;
    std::size_t at =
        weights == RunWeights::own && different > 0 ? different - 1 : 0; // of its own: the last, or another
    while (at < different && kernels[at].data() != own.data()) ++at;
    if (at == different) kernels[different++] = own;
    rows[i] = {spans[i].offset, spans[i].length, spans[i].position, at, runs[i].unread};
  }
  States states(spans, runs, shape.heads.kv_width(), memory);
  auto* h = h_NC.data_ptr<float>();
  std::copy_n(x.data_ptr<float>(), x.numel(), h);
  if (weights == RunWeights::shared)
    cpu::run_blocks(cpu::engine(), memory, shape, {kernels, different}, {rows, spans.size()}, states, h, h_NC.size(0));
  else
    cpu::run_apart(cpu::engine(), memory, shape, {kernels, different}, {rows, spans.size()}, states, h);
  return h_NC;
}

} // namespace tenon
