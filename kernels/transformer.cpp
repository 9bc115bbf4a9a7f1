#include "kernels/transformer.hpp"

#include "kernels/cpu/rows.hpp"
#include "kernels/packed_operators.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

namespace tenon {
namespace {

// Calls each(first, last) over all rows, in LibTorch's pool where they are worth it.
template <class Each>
void for_rows(std::int64_t rows, std::int64_t width, const Each& each) {
  constexpr std::int64_t grain = 16384; // numbers that a task is worth starting a thread for
  at::parallel_for(0, rows, std::max<std::int64_t>(1, grain / std::max<std::int64_t>(width, 1)), each);
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
      cpu::rotate_rows(x + first * heads * depth, cos + first * pairs, sin + first * pairs, last - first, heads, depth);
    });
  }
};

// One sequence: n queries at the end of L keys. Groups of heads stand side by side over one view of their keys.
void attend(const at::Tensor& q_nHD, const at::Tensor& k_LGD, const at::Tensor& v_LGD, at::Tensor y_nHD) {
  const std::int64_t queries = q_nHD.size(0), keys = k_LGD.size(0), groups = k_LGD.size(1), depth = q_nHD.size(2),
                     heads = q_nHD.size(1) / groups;
  const auto by_group = [&](const at::Tensor& x) { return x.view({queries, groups, heads, depth}); };
  const auto shared = [&](const at::Tensor& x_LGD) {
    return x_LGD.transpose(0, 1).unsqueeze(1).expand({groups, heads, keys, depth});
  };
  std::optional<at::Tensor> mask; // needed only where queries follow a past
  if (queries > 1 && keys > queries) mask = at::ones({queries, keys}, at::kBool).tril(keys - queries);
  const at::Tensor y_GHnD =
      at::scaled_dot_product_attention(by_group(q_nHD).permute({1, 2, 0, 3}), shared(k_LGD), shared(v_LGD), mask, 0.0,
                                       /*is_causal=*/queries > 1 && keys == queries);
  by_group(y_nHD).copy_(y_GHnD.permute({2, 0, 1, 3}));
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

at::Tensor ffn_part(const at::Tensor& x_NC, const PackedBlock& block) {
  if (!block.gate) {
    at::Tensor inner_NF = linear(x_NC, block.up);
    return linear(at::gelu_(inner_NF, "tanh"), block.down);
  }
  at::Tensor inner_NF = linear(x_NC, *block.gate);
  at::silu_(inner_NF);
  return linear(inner_NF.mul_(linear(x_NC, block.up)), block.down);
}

} // namespace

at::Tensor linear(const at::Tensor& x_NC, const PackedLinear& packed) {
  if (packed.form) return packed_linear(x_NC, packed);
  at::Tensor y_NF = at::linear(x_NC, packed.weight, packed.bias);
  if (packed.a) y_NF.add_(at::linear(at::linear(x_NC, *packed.a), *packed.b), packed.scale);
  return y_NF;
}

at::Tensor rms_norm(const at::Tensor& x_NC, const at::Tensor& weight_C, double eps) {
  const at::Tensor x = x_NC.contiguous(), weight = weight_C.contiguous();
  at::Tensor y = at::empty_like(x);
  const std::int64_t width = x.size(-1);
  const float *from = x.data_ptr<float>(), *by = weight.data_ptr<float>();
  float* to = y.data_ptr<float>();
  for_rows(x.numel() / width, width, [&](std::int64_t first, std::int64_t last) {
    cpu::rms_norm_rows(from + first * width, by, to + first * width, last - first, width, eps);
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
    cpu::layer_norm_rows(from + first * width, by, plus, to + first * width, last - first, width, eps);
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
    at::Tensor k = part(k_NGD), v = part(v_NGD);
    if (SequenceState* state = from_handle(span.state)) {
      state->append(slot, k);
      state->append(slot + 1, v);
      k = state->rows(slot);
      v = state->rows(slot + 1);
    }
    attend(part(q_NHD), k, v, part(y_NHD));
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
    h_NC.add_(ffn_part(norm(h_NC, block.ffn_norm, block.norm_eps), block));
  }
  return h_NC;
}

} // namespace tenon
