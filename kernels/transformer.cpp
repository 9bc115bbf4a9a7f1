#include "kernels/transformer.hpp"

#include <ATen/ATen.h>

namespace tenon {
namespace {

// Absolute positions of all rows, (N).
at::Tensor positions(Spans spans, std::int64_t rows) {
  at::Tensor out = at::empty({rows}, at::kFloat);
  float* data = out.data_ptr<float>();
  for (const tenon_span& span : spans)
    for (std::int64_t i = 0; i < span.length; ++i) data[span.offset + i] = static_cast<float>(span.position + i);
  return out;
}

struct Rotation {
  at::Tensor cos_N1D, sin_N1D;

  Rotation(Spans spans, std::int64_t rows, std::int64_t head_dim, double theta) {
    const at::Tensor frequency =
        at::pow(theta, -at::arange(0, head_dim, 2, at::kFloat) / static_cast<double>(head_dim));
    const at::Tensor angle = positions(spans, rows).unsqueeze(1) * frequency;
    const at::Tensor both = at::cat({angle, angle}, 1).unsqueeze(1);
    cos_N1D = both.cos();
    sin_N1D = both.sin();
  }

  at::Tensor apply(const at::Tensor& x_NHD) const {
    const std::int64_t half = x_NHD.size(-1) / 2;
    const at::Tensor turned = at::cat({-x_NHD.slice(-1, half), x_NHD.slice(-1, 0, half)}, -1);
    return x_NHD * cos_N1D + turned * sin_N1D;
  }
};

// One sequence: n queries at the end of L keys.
at::Tensor attend(const at::Tensor& q_nHD, const at::Tensor& k_LGD, const at::Tensor& v_LGD) {
  const std::int64_t queries = q_nHD.size(0), keys = k_LGD.size(0), group = q_nHD.size(1) / k_LGD.size(1);
  const auto heads_first = [](const at::Tensor& x, std::int64_t repeat) {
    const at::Tensor x_HLD = x.transpose(0, 1);
    return (repeat == 1 ? x_HLD : at::repeat_interleave(x_HLD, repeat, 0)).unsqueeze(0);
  };
  std::optional<at::Tensor> mask; // needed only where queries follow a past
  if (queries > 1 && keys > queries) mask = at::ones({queries, keys}, at::kBool).tril(keys - queries);
  const at::Tensor y_1HnD = at::scaled_dot_product_attention(heads_first(q_nHD, 1), heads_first(k_LGD, group),
                                                             heads_first(v_LGD, group), mask, 0.0,
                                                             /*is_causal=*/queries > 1 && keys == queries);
  return y_1HnD.squeeze(0).transpose(0, 1);
}

at::Tensor attention_part(const at::Tensor& x_NC, const PackedBlock& block, const Rotation& rotation, Spans spans,
                          std::int64_t slot) {
  const std::int64_t rows = x_NC.size(0);
  const auto heads = [&](const PackedLinear& packed, std::int64_t count) {
    return linear(x_NC, packed).view({rows, count, block.head_dim});
  };
  const at::Tensor y_NHD =
      attention(rotation.apply(heads(block.q, block.heads)), rotation.apply(heads(block.k, block.kv_heads)),
                heads(block.v, block.kv_heads), spans, slot);
  return linear(y_NHD.reshape({rows, -1}), block.o);
}

at::Tensor ffn_part(const at::Tensor& x_NC, const PackedBlock& block) {
  at::Tensor inner_NF = linear(x_NC, block.gate);
  at::silu_(inner_NF);
  return linear(inner_NF.mul_(linear(x_NC, block.up)), block.down);
}

} // namespace

at::Tensor linear(const at::Tensor& x_NC, const PackedLinear& packed) {
  at::Tensor y_NF = at::linear(x_NC, packed.weight, packed.bias);
  if (packed.a) y_NF.add_(at::linear(at::linear(x_NC, *packed.a), *packed.b), packed.scale);
  return y_NF;
}

at::Tensor rms_norm(const at::Tensor& x_NC, const at::Tensor& weight_C, double eps) {
  return x_NC * at::rsqrt(x_NC.square().mean(-1, true).add_(eps)) * weight_C;
}

at::Tensor rope(const at::Tensor& x_NHD, Spans spans, double theta) {
  return Rotation(spans, x_NHD.size(0), x_NHD.size(-1), theta).apply(x_NHD);
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
    part(y_NHD).copy_(attend(part(q_NHD), k, v));
  }
  return y_NHD;
}

at::Tensor run_blocks(const at::Tensor& x_NC, const std::vector<PackedBlock>& blocks, Spans spans, std::int64_t slot) {
  const PackedBlock& first = blocks.at(0);
  const Rotation rotation(spans, x_NC.size(0), first.head_dim, first.rope_theta);
  at::Tensor h_NC = x_NC;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const PackedBlock& block = blocks[i];
    h_NC = h_NC + attention_part(rms_norm(h_NC, block.attention_norm, block.norm_eps), block, rotation, spans,
                                 slot + 2 * static_cast<std::int64_t>(i));
    h_NC.add_(ffn_part(rms_norm(h_NC, block.ffn_norm, block.norm_eps), block));
  }
  return h_NC;
}

} // namespace tenon
