#include "kernels/transformer.hpp"

#include "kernels/cpu/attention.hpp"
#include "kernels/cpu/engine.hpp"
#include "kernels/packed_operators.hpp"
#include "kernels/threads.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

namespace tenon {
namespace {

// Calls each(first, last) over all rows, in LibTorch's pool where they are worth it.
template <class Each>
void for_rows(std::int64_t rows, std::int64_t width, const Each& each) {
  constexpr std::int64_t grain = 16384; // numbers that a task is worth starting a thread for
  parallel_for(0, rows, std::max<std::int64_t>(1, grain / std::max<std::int64_t>(width, 1)), each);
}

// cos and sin of every row's position and pair, (N, D/2).
struct Rotation {
  at::Tensor cos_NP, sin_NP;

  Rotation(Spans spans, std::int64_t rows, std::int64_t head_dim, double theta) {
    const at::Tensor frequency_P =
        at::pow(theta, -at::arange(0, head_dim, 2, at::kFloat) / static_cast<double>(head_dim));
    at::Tensor position_N1 = at::empty({rows, 1}, at::kFloat);
    float* position = position_N1.data_ptr<float>();
    for (const tenon_span& span : spans)
      for (std::int64_t i = 0; i < span.length; ++i) position[span.offset + i] = static_cast<float>(span.position + i);
    const at::Tensor angle_NP = position_N1 * frequency_P;
    cos_NP = angle_NP.cos();
    sin_NP = angle_NP.sin();
  }

  // In place. Requires: x is contiguous.
  void apply(at::Tensor& x_NHD) const {
    const std::int64_t heads = x_NHD.size(1), depth = x_NHD.size(2), pairs = depth / 2;
    float* x = x_NHD.data_ptr<float>();
    const float *cos = cos_NP.data_ptr<float>(), *sin = sin_NP.data_ptr<float>();
    for_rows(x_NHD.size(0), heads * depth, [&](std::int64_t first, std::int64_t last) {
      cpu::engine().kernels->rows.rotate(x + first * heads * depth, cos + first * pairs, sin + first * pairs,
                                         last - first, heads, depth);
    });
  }
};

// A whole sequence: T queries and keys. Groups of heads stand side by side over one view of their keys.
void attend(const at::Tensor& q_THD, const at::Tensor& k_TGD, const at::Tensor& v_TGD, at::Tensor y_THD) {
  const std::int64_t length = q_THD.size(0), groups = k_TGD.size(1), depth = q_THD.size(2),
                     heads = q_THD.size(1) / groups;
  const auto by_group = [&](const at::Tensor& x) { return x.view({length, groups, heads, depth}); };
  const auto shared = [&](const at::Tensor& x_TGD) {
    return x_TGD.transpose(0, 1).unsqueeze(1).expand({groups, heads, length, depth});
  };
  const at::Tensor y_GHTD = at::scaled_dot_product_attention(by_group(q_THD).permute({1, 2, 0, 3}), shared(k_TGD),
                                                             shared(v_TGD), {}, 0.0, /*is_causal=*/length > 1);
  by_group(y_THD).copy_(y_GHTD.permute({2, 0, 1, 3}));
}

// Queries behind a past that lies in blocks, which LibTorch's attention cannot read: our kernel, on LibTorch's threads.
void attend_kept(const at::Tensor& q_nHD, const at::Tensor& k_nGD, const at::Tensor& v_nGD, SequenceState& state,
                 std::int64_t slot, at::Tensor y_nHD) {
  const cpu::HeadShape shape{q_nHD.size(1), k_nGD.size(1), q_nHD.size(2)};
  const std::int64_t count = q_nHD.size(0);
  const auto kept = [&](const at::Tensor& x_nGD, std::int64_t at) {
    state.append(at, x_nGD);
    return state.extend(at, 0, shape.kv_width());
  };
  const auto k = kept(k_nGD, slot), v = kept(v_nGD, slot + 1);
  const cpu::AttentionSpan span{0, count, k.before - count, k.blocks, v.blocks};
  const at::Tensor q = q_nHD.contiguous();
  const std::int64_t each = cpu::attention_memory(shape);
  thread_local cpu::Arena arena; // kept, with a part for each of LibTorch's threads
  arena.reset();
  auto* parts = arena.take<float>(at::get_num_threads() * each);
  parallel_for(0, cpu::attention_tasks(shape, span), 1, [&, parts](std::int64_t first, std::int64_t last) {
    auto* memory = parts + at::get_thread_num() * each;
    for (std::int64_t task = first; task < last; ++task)
      cpu::attend_task(*cpu::engine().kernels, shape, q.data_ptr<float>(), span, task, memory, y_nHD.data_ptr<float>());
  });
}

at::Tensor norm(const at::Tensor& x, const PackedNorm& packed, double eps) {
  return packed.bias ? layer_norm(x, packed.weight, *packed.bias, eps) : rms_norm(x, packed.weight, eps);
}

// rotation: absent where nothing is rotated.
at::Tensor attention_part(const at::Tensor& x_NC, const PackedBlock& block, const std::optional<Rotation>& rotation,
                          Spans spans, std::int64_t slot) {
  const std::int64_t rows = x_NC.size(0);
  const auto heads = [&](const PackedLinear& packed, std::int64_t count) {
    return linear(x_NC, packed).view({rows, count, block.head_dim});
  };
  const auto placed = [&](at::Tensor x_NHD, const std::optional<PackedNorm>& own) {
    if (own) x_NHD = norm(x_NHD, *own, block.norm_eps);
    if (rotation) rotation->apply(x_NHD);
    return x_NHD;
  };
  const at::Tensor q_NHD = placed(heads(block.q, block.heads), block.q_norm),
                   k_NGD = placed(heads(block.k, block.kv_heads), block.k_norm);
  const at::Tensor y_NHD = attention(q_NHD, k_NGD, heads(block.v, block.kv_heads), spans, slot);
  return linear(y_NHD.view({rows, -1}), block.o);
}

} // namespace

at::Tensor linear(const at::Tensor& x_NC, const PackedLinear& packed) {
  if (packed.form) return packed_linear(x_NC, packed);
  at::Tensor y_NF = at::linear(x_NC, packed.weight, packed.bias);
  if (packed.a) y_NF.add_(at::linear(at::linear(x_NC, *packed.a), *packed.b), packed.scale);
  return y_NF;
}

at::Tensor feed_forward(const at::Tensor& x_NC, const PackedFeedForward& packed) {
  if (!packed.gate) {
    at::Tensor inner_NF = linear(x_NC, packed.up);
    return linear(at::gelu_(inner_NF, "tanh"), packed.down);
  }
  at::Tensor inner_NF = linear(x_NC, *packed.gate);
  at::silu_(inner_NF);
  return linear(inner_NF.mul_(linear(x_NC, packed.up)), packed.down);
}

at::Tensor mixture(const at::Tensor& x_NC, const PackedMixture& packed) {
  if (!packed.kernels.empty()) return packed_mixture(x_NC, packed);
  const auto [scores_NK, chosen_NK] = at::linear(x_NC, packed.router).topk(packed.active, 1);
  const at::Tensor w_NK = scores_NK.softmax(1);
  at::Tensor y_NC = at::zeros_like(x_NC);
  for (std::size_t e = 0; e < packed.experts.size(); ++e) {
    const std::vector<at::Tensor> places = chosen_NK.eq(static_cast<std::int64_t>(e)).nonzero().unbind(1);
    if (places[0].size(0) == 0) continue;
    const at::Tensor w_n1 = at::index(w_NK, {places[0], places[1]}).unsqueeze(1);
    y_NC.index_add_(0, places[0], feed_forward(x_NC.index_select(0, places[0]), packed.experts[e]) * w_n1);
  }
  return y_NC;
}

at::Tensor rms_norm(const at::Tensor& x_NC, const at::Tensor& weight_C, double eps) {
  const at::Tensor x = x_NC.contiguous(), weight = weight_C.contiguous();
  at::Tensor y = at::empty_like(x);
  const std::int64_t width = x.size(-1);
  const float *from = x.data_ptr<float>(), *by = weight.data_ptr<float>();
  float* to = y.data_ptr<float>();
  for_rows(x.numel() / width, width, [&](std::int64_t first, std::int64_t last) {
    cpu::engine().kernels->rows.rms_norm(from + first * width, by, to + first * width, last - first, width, eps);
  });
  return y;
}

at::Tensor layer_norm(const at::Tensor& x_NC, const at::Tensor& weight_C, const at::Tensor& bias_C, double eps) {
  const at::Tensor x = x_NC.contiguous(), weight = weight_C.contiguous(), bias = bias_C.contiguous();
  at::Tensor y = at::empty_like(x);
  const std::int64_t width = x.size(-1);
  const float *from = x.data_ptr<float>(), *by = weight.data_ptr<float>(), *plus = bias.data_ptr<float>();
  float* to = y.data_ptr<float>();
  for_rows(x.numel() / width, width, [&](std::int64_t first, std::int64_t last) {
    cpu::engine().kernels->rows.layer_norm(from + first * width, by, plus, to + first * width, last - first, width,
                                           eps);
  });
  return y;
}

at::Tensor rope(const at::Tensor& x_NHD, Spans spans, double theta) {
  at::Tensor y_NHD = x_NHD.clone(at::MemoryFormat::Contiguous);
  Rotation(spans, x_NHD.size(0), x_NHD.size(-1), theta).apply(y_NHD);
  return y_NHD;
}

at::Tensor attention(const at::Tensor& q_NHD, const at::Tensor& k_NGD, const at::Tensor& v_NGD, Spans spans,
                     std::int64_t slot) {
  at::Tensor y_NHD = at::empty_like(q_NHD, at::MemoryFormat::Contiguous);
  for (const tenon_span& span : spans) {
    const auto part = [&](const at::Tensor& x) { return x.narrow(0, span.offset, span.length); };
    if (SequenceState* state = from_handle(span.state))
      attend_kept(part(q_NHD), part(k_NGD), part(v_NGD), *state, slot, part(y_NHD));
    else
      attend(part(q_NHD), part(k_NGD), part(v_NGD), part(y_NHD));
  }
  return y_NHD;
}

at::Tensor run_blocks(const at::Tensor& x_NC, const std::vector<PackedBlock>& blocks, Spans spans, std::int64_t slot) {
  const PackedBlock& first = blocks.at(0);
  std::optional<Rotation> rotation;
  if (first.rope_theta > 0) rotation.emplace(spans, x_NC.size(0), first.head_dim, first.rope_theta);
  at::Tensor h_NC = x_NC;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const PackedBlock& block = blocks[i];
    h_NC = attention_part(norm(h_NC, block.attention_norm, block.norm_eps), block, rotation, spans,
                          slot + 2 * static_cast<std::int64_t>(i))
               .add_(h_NC);
    h_NC.add_(feed_forward(norm(h_NC, block.ffn_norm, block.norm_eps), block.ffn));
  }
  return h_NC;
}

} // namespace tenon
