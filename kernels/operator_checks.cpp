#include "kernels/operator_checks.hpp"

#include <ATen/ATen.h>

namespace tenon {
namespace {

using Sizes = at::IntArrayRef;

void check_product(const char* name, const PackedLinear& linear, std::int64_t outputs, std::int64_t inputs) {
  TORCH_CHECK(linear.weight.sizes() == Sizes({outputs, inputs}), "[tenon::pack_block_v2] found ", name, " of ",
              linear.weight.sizes(), ", need ", Sizes({outputs, inputs}));
}

void check_norm(const char* name, const PackedNorm& norm, std::int64_t width) {
  TORCH_CHECK(norm.weight.sizes() == Sizes({width}) && (!norm.bias || norm.bias->sizes() == Sizes({width})),
              "[tenon::pack_block_v2] found the ", name, " norm of ", norm.weight.sizes(),
              ", need its weight and bias of ", Sizes({width}));
}

} // namespace

void check_linear(const PackedLinear& linear) {
  const auto& [weight, bias, a, b, scale, form, b_RF] = linear;
  TORCH_CHECK(weight.dim() == 2, "[tenon::pack_linear_v1] found a weight ", weight.sizes(), ", need (outputs, inputs)");
  const std::int64_t outputs = weight.size(0), inputs = weight.size(1);
  TORCH_CHECK(!bias || bias->sizes() == Sizes({outputs}), "[tenon::pack_linear_v1] found a weight ", weight.sizes(),
              " and a bias ", bias->sizes());
  TORCH_CHECK(a.has_value() == b.has_value(), "[tenon::pack_linear_v1] found one of a and b, need both or neither");
  TORCH_CHECK(!a || (a->dim() == 2 && a->size(1) == inputs && b->sizes() == Sizes({outputs, a->size(0)})),
              "[tenon::pack_linear_v1] found a weight ", weight.sizes(), " and a change of ", a->sizes(), " and ",
              b->sizes());
}

void check_block(const PackedBlock& block) {
  const std::int64_t heads = block.heads, kv_heads = block.kv_heads, depth = block.head_dim;
  TORCH_CHECK(
      heads > 0 && kv_heads > 0 && heads % kv_heads == 0 && depth > 0 && (block.rope_theta <= 0 || depth % 2 == 0),
      "[tenon::pack_block_v2] found ", heads, " heads of width ", depth, " on ", kv_heads,
      "; need a multiple, and an even width where they are rotated");
  const std::int64_t width = block.q.weight.size(1), inner = block.ffn.up.weight.size(0);
  check_product("q", block.q, heads * depth, width), check_product("k", block.k, kv_heads * depth, width);
  check_product("v", block.v, kv_heads * depth, width), check_product("o", block.o, width, heads * depth);
  if (block.ffn.gate) check_product("gate", *block.ffn.gate, inner, width);
  check_product("up", block.ffn.up, inner, width), check_product("down", block.ffn.down, width, inner);
  check_norm("attention", block.attention_norm, width), check_norm("feed-forward", block.ffn_norm, width);
  if (block.q_norm) check_norm("query", *block.q_norm, depth);
  if (block.k_norm) check_norm("key", *block.k_norm, depth);
}

void check_run(const std::vector<PackedBlock>& blocks) {
  TORCH_CHECK(!blocks.empty(), "[tenon::pack_run_v1] need at least one block");
  const auto kind = [](const PackedBlock& block) {
    return std::tuple(block.q.weight.size(1), block.heads, block.kv_heads, block.head_dim, block.norm_eps,
                      block.rope_theta);
  };
  for (std::size_t i = 1; i < blocks.size(); ++i)
    TORCH_CHECK(kind(blocks[i]) == kind(blocks[0]), "[tenon::pack_run_v1] block ", i,
                " has another width, shape of heads, epsilon or theta than the first; a run's have one");
}

void check_spans(const char* name, Spans spans, std::int64_t rows) {
  for (const tenon_span& span : spans)
    TORCH_CHECK(span.offset >= 0 && span.length >= 0 && span.position >= 0 && span.offset <= rows - span.length,
                "[tenon::", name, "] found a span of rows ", span.offset, " to ", span.offset + span.length,
                " at position ", span.position, ", the rows are ", rows);
}

void check_rows(const char* name, const at::Tensor& x, std::int64_t width) {
  TORCH_CHECK(x.dim() == 2 && x.size(1) == width, "[tenon::", name, "] found rows ", x.sizes(), ", need rows of ",
              width);
}

void check_layer_norm(const at::Tensor& x, const at::Tensor& weight_C, const at::Tensor& bias_C) {
  TORCH_CHECK(
      x.dim() > 0 && x.size(-1) > 0 && weight_C.sizes() == Sizes({x.size(-1)}) && bias_C.sizes() == weight_C.sizes(),
      "[tenon::layer_norm_v1] found rows ", x.sizes(), ", a weight ", weight_C.sizes(), " and a bias ", bias_C.sizes());
}

void check_rope(const at::Tensor& x_NHD, Spans spans) {
  TORCH_CHECK(x_NHD.dim() == 3 && x_NHD.size(2) % 2 == 0, "[tenon::rope_v1] found ", x_NHD.sizes(),
              ", need (rows, heads, an even width)");
  check_spans("rope_v1", spans, x_NHD.size(0));
}

void check_attention(const at::Tensor& q_NHD, const at::Tensor& k_NGD, const at::Tensor& v_NGD, Spans spans) {
  TORCH_CHECK(q_NHD.dim() == 3 && k_NGD.dim() == 3 && v_NGD.sizes() == k_NGD.sizes() &&
                  k_NGD.size(0) == q_NHD.size(0) && k_NGD.size(2) == q_NHD.size(2) && k_NGD.size(1) > 0 &&
                  q_NHD.size(1) % k_NGD.size(1) == 0,
              "[tenon::attention_v1] found q ", q_NHD.sizes(), ", k ", k_NGD.sizes(), " and v ", v_NGD.sizes(),
              "; need (N,H,D), (N,G,D) and (N,G,D), H a multiple of G");
  check_spans("attention_v1", spans, q_NHD.size(0));
}

} // namespace tenon
