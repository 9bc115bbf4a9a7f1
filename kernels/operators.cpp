// Registration of the kernels as LibTorch operators. Names carry versions and are never reused: a plugin's facts list
// those it calls, and a host that lacks one refuses the plugin before its code runs.
#include "kernels/gradients.hpp"
#include "kernels/operator_checks.hpp"
#include "kernels/packed_operators.hpp"

#include <torch/custom_class.h>
#include <torch/library.h>

namespace tenon {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

Spans spans_at(std::int64_t pointer, std::int64_t count) {
  return {reinterpret_cast<const tenon_span*>(pointer), static_cast<std::size_t>(count)};
}

const PackedLinear& as_linear(const PackedPointer& handle) {
  TORCH_CHECK(handle->linear, "[tenon] this handle is no packed linear");
  return *handle->linear;
}

OptionalTensor plain(const OptionalTensor& tensor) { return tensor ? OptionalTensor(tensor->detach()) : tensor; }

// The form that was asked for these weights. Training in float64 has none.
std::optional<PackedForm> form_of(const at::Tensor& weight) {
  if (weight.scalar_type() != at::kFloat || weight.dim() != 2 || !weight.is_contiguous()) return std::nullopt;
  return packed_form(weight.data_ptr<float>(), weight.size(0), weight.size(1), true);
}

PackedPointer pack_linear_v1(const at::Tensor& weight, const OptionalTensor& bias, const OptionalTensor& a,
                             const OptionalTensor& b, double scale) {
  auto handle = c10::make_intrusive<PackedHandle>();
  PackedLinear linear{weight.detach(), plain(bias), plain(a), plain(b), scale, form_of(weight), {}};
  check_linear(linear);
  if (linear.form && bias) linear.bias = linear.bias->contiguous();
  if (linear.form && a) {
    linear.a = linear.a->contiguous();
    linear.b_RF = linear.b->t().contiguous();
  }
  handle->linear = std::move(linear);
  return handle;
}

PackedPointer pack_block_v2(c10::List<PackedPointer> linears, const at::Tensor& attention_norm,
                            const OptionalTensor& attention_norm_bias, const at::Tensor& ffn_norm,
                            const OptionalTensor& ffn_norm_bias, const OptionalTensor& q_norm,
                            const OptionalTensor& k_norm, std::int64_t heads, std::int64_t kv_heads,
                            std::int64_t head_dim, double norm_eps, double rope_theta) {
  const std::size_t count = linears.size();
  TORCH_CHECK(count == 7 || count == 6,
              "[tenon::pack_block_v2] need q, k, v, o, gate, up, down, or the same without gate; found ", count);
  const auto take = [&](std::size_t i) { return as_linear(linears.get(i)); };
  const auto head_norm = [](const OptionalTensor& weight) {
    return weight ? std::optional<PackedNorm>({weight->detach(), {}}) : std::nullopt;
  };
  PackedBlock block;
  block.q = take(0), block.k = take(1), block.v = take(2), block.o = take(3);
  if (count == 7) block.ffn.gate = take(4);
  block.ffn.up = take(count - 2), block.ffn.down = take(count - 1);
  block.attention_norm = {attention_norm.detach(), plain(attention_norm_bias)};
  block.ffn_norm = {ffn_norm.detach(), plain(ffn_norm_bias)};
  block.q_norm = head_norm(q_norm), block.k_norm = head_norm(k_norm);
  block.heads = heads, block.kv_heads = kv_heads, block.head_dim = head_dim;
  block.norm_eps = norm_eps, block.rope_theta = rope_theta;
  check_block(block);
  auto handle = c10::make_intrusive<PackedHandle>();
  handle->blocks.push_back(std::move(block));
  return handle;
}

PackedPointer pack_mixture_v1(const at::Tensor& router, c10::List<PackedPointer> linears, std::int64_t active) {
  const auto count = static_cast<std::int64_t>(linears.size()) / 3;
  TORCH_CHECK(count > 0 && linears.size() % 3 == 0,
              "[tenon::pack_mixture_v1] need gate, up, down of each expert; found ", linears.size(), " linears");
  TORCH_CHECK(active > 0 && active <= count, "[tenon::pack_mixture_v1] ", active, " active of ", count, " experts");
  PackedMixture mixture{router.detach().contiguous(), active, {}, {}};
  for (std::size_t i = 0; i < linears.size(); i += 3) {
    const PackedFeedForward one{as_linear(linears.get(i)), as_linear(linears.get(i + 1)),
                                as_linear(linears.get(i + 2))};
    mixture.experts.push_back(one);
    const at::Tensor& up = mixture.experts[0].up.weight;
    TORCH_CHECK(router.dim() == 2 && router.size(0) == count && router.size(1) == up.size(1) &&
                    one.gate->weight.sizes() == up.sizes() && one.up.weight.sizes() == up.sizes() &&
                    one.down.weight.sizes() == up.t().sizes(),
                "[tenon::pack_mixture_v1] expert ", i / 3, " or the router has another shape than the first expert");
    TORCH_CHECK(!one.gate->a && !one.up.a && !one.down.a, "[tenon::pack_mixture_v1] expert ", i / 3,
                " has a change of low rank");
  }
  pack_kernels(mixture);
  auto handle = c10::make_intrusive<PackedHandle>();
  handle->mixture = std::move(mixture);
  return handle;
}

PackedPointer pack_run_v1(c10::List<PackedPointer> blocks) {
  auto handle = c10::make_intrusive<PackedHandle>();
  for (const PackedPointer& block : blocks) {
    TORCH_CHECK(!block->blocks.empty(), "[tenon::pack_run_v1] one of the handles is no packed block");
    handle->blocks.insert(handle->blocks.end(), block->blocks.begin(), block->blocks.end());
  }
  check_run(handle->blocks);
  pack_kernels(*handle);
  return handle;
}

at::Tensor linear_v1(const at::Tensor& x, const PackedPointer& packed) {
  const PackedLinear& one = as_linear(packed);
  if (x.dim() == 2) return check_rows("linear_v1", x, one.weight.size(1)), linear(x, one);
  TORCH_CHECK(x.dim() > 0, "[tenon::linear_v1] found a single number, need rows");
  const at::Tensor x_NC = x.dim() == 1 ? x.unsqueeze(0) : x.flatten(0, -2);
  check_rows("linear_v1", x_NC, one.weight.size(1));
  std::vector<std::int64_t> sizes = x.sizes().vec();
  sizes.back() = one.weight.size(0);
  return linear(x_NC, one).view(sizes);
}

at::Tensor mixture_v1(const at::Tensor& x_NC, const PackedPointer& packed) {
  TORCH_CHECK(packed->mixture, "[tenon::mixture_v1] this handle is no packed mixture");
  check_rows("mixture_v1", x_NC, packed->mixture->router.size(1));
  return mixture(x_NC, *packed->mixture);
}

at::Tensor layer_norm_v1(const at::Tensor& x, const at::Tensor& weight_C, const at::Tensor& bias_C, double eps) {
  check_layer_norm(x, weight_C, bias_C);
  return layer_norm(x, weight_C, bias_C, eps);
}

at::Tensor rope_v1(const at::Tensor& x_NHD, std::int64_t spans, std::int64_t span_count, double theta) {
  check_rope(x_NHD, spans_at(spans, span_count));
  return rope(x_NHD, spans_at(spans, span_count), theta);
}

at::Tensor attention_v1(const at::Tensor& q_NHD, const at::Tensor& k_NGD, const at::Tensor& v_NGD, std::int64_t spans,
                        std::int64_t span_count, std::int64_t slot) {
  check_attention(q_NHD, k_NGD, v_NGD, spans_at(spans, span_count));
  return attention(q_NHD, k_NGD, v_NGD, spans_at(spans, span_count), slot);
}

at::Tensor run_v1(const at::Tensor& x_NC, const PackedPointer& run, std::int64_t spans, std::int64_t span_count,
                  std::int64_t slot) {
  TORCH_CHECK(!run->blocks.empty(), "[tenon::run_v1] this handle is no packed run");
  check_rows("run_v1", x_NC, run->blocks[0].q.weight.size(1));
  check_spans("run_v1", spans_at(spans, span_count), x_NC.size(0));
  if (!run->kernels.empty()) return packed_run(x_NC, *run, spans_at(spans, span_count), slot);
  return run_blocks(x_NC, run->blocks, spans_at(spans, span_count), slot);
}

} // namespace

#define PACKED "__torch__.torch.classes.tenon.Packed"

TORCH_LIBRARY(tenon, library) {
  library.class_<PackedHandle>("Packed");
  library.def("pack_linear_v1(Tensor weight, Tensor? bias, Tensor? a, Tensor? b, float scale) -> " PACKED);
  library.def("pack_block_v2(" PACKED
              "[] linears, Tensor attention_norm, Tensor? attention_norm_bias, Tensor ffn_norm, Tensor? ffn_norm_bias, "
              "Tensor? q_norm, Tensor? k_norm, int heads, int kv_heads, int head_dim, float norm_eps, "
              "float rope_theta) -> " PACKED);
  library.def("pack_mixture_v1(Tensor router, " PACKED "[] linears, int active) -> " PACKED);
  library.def("pack_run_v1(" PACKED "[] blocks) -> " PACKED);
  library.def("linear_v1(Tensor x, " PACKED " packed) -> Tensor");
  library.def("mixture_v1(Tensor x, " PACKED " packed) -> Tensor");
  library.def("rms_norm_v1(Tensor x, Tensor weight, float eps) -> Tensor");
  library.def("silu_multiply_v1(Tensor gate, Tensor up) -> Tensor");
  library.def("rotate_v1(Tensor x, Tensor cos, Tensor sin) -> Tensor");
  library.def("trainable_linear_v1(Tensor x, Tensor weight, Tensor? bias) -> Tensor");
  library.def("causal_attention_v1(Tensor q, Tensor k, Tensor v) -> Tensor");
  library.def("layer_norm_v1(Tensor x, Tensor weight, Tensor bias, float eps) -> Tensor");
  library.def("rope_v1(Tensor x, int spans, int span_count, float theta) -> Tensor");
  library.def("attention_v1(Tensor q, Tensor k, Tensor v, int spans, int span_count, int slot) -> Tensor");
  library.def("run_v1(Tensor x, " PACKED " run, int spans, int span_count, int slot) -> Tensor");
}

TORCH_LIBRARY_IMPL(tenon, CompositeExplicitAutograd, library) {
  library.impl("pack_linear_v1", pack_linear_v1);
  library.impl("pack_block_v2", pack_block_v2);
  library.impl("pack_mixture_v1", pack_mixture_v1);
  library.impl("pack_run_v1", pack_run_v1);
  library.impl("linear_v1", linear_v1);
  library.impl("mixture_v1", mixture_v1);
  library.impl("silu_multiply_v1", silu_multiply);
  library.impl("rotate_v1", rotate);
  library.impl("causal_attention_v1", causal_attention);
  library.impl("trainable_linear_v1", trainable_linear);
  library.impl("rms_norm_v1", differentiable_rms_norm);
  library.impl("layer_norm_v1", layer_norm_v1);
  library.impl("rope_v1", rope_v1);
  library.impl("attention_v1", attention_v1);
  library.impl("run_v1", run_v1);
}

TORCH_LIBRARY_IMPL(tenon, Autograd, library) {
  library.impl("rms_norm_v1", differentiable_rms_norm);
  library.impl("silu_multiply_v1", silu_multiply);
  library.impl("rotate_v1", rotate);
  library.impl("causal_attention_v1", causal_attention);
  library.impl("trainable_linear_v1", trainable_linear);
}

} // namespace tenon
