// Registration of the kernels as LibTorch operators. Names carry versions and are never reused: a plugin's facts list
// those it calls, and a host that lacks one refuses the plugin before its code runs.
#include "kernels/transformer.hpp"

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

PackedPointer pack_linear_v1(const at::Tensor& weight, const OptionalTensor& bias, const OptionalTensor& a,
                             const OptionalTensor& b, double scale) {
  const auto plain = [](const OptionalTensor& tensor) { return tensor ? OptionalTensor(tensor->detach()) : tensor; };
  auto handle = c10::make_intrusive<PackedHandle>();
  handle->linear = PackedLinear{weight.detach(), plain(bias), plain(a), plain(b), scale};
  return handle;
}

PackedPointer pack_block_v1(c10::List<PackedPointer> linears, const at::Tensor& attention_norm,
                            const at::Tensor& ffn_norm, std::int64_t heads, std::int64_t kv_heads,
                            std::int64_t head_dim, double norm_eps, double rope_theta) {
  TORCH_CHECK(linears.size() == 7, "[tenon::pack_block_v1] need q, k, v, o, gate, up, down; found ", linears.size());
  const auto take = [&](std::size_t i) { return as_linear(linears.get(i)); };
  auto handle = c10::make_intrusive<PackedHandle>();
  handle->blocks.push_back({take(0), take(1), take(2), take(3), take(4), take(5), take(6), attention_norm.detach(),
                            ffn_norm.detach(), heads, kv_heads, head_dim, norm_eps, rope_theta});
  return handle;
}

PackedPointer pack_run_v1(c10::List<PackedPointer> blocks) {
  auto handle = c10::make_intrusive<PackedHandle>();
  for (const PackedPointer& block : blocks)
    handle->blocks.insert(handle->blocks.end(), block->blocks.begin(), block->blocks.end());
  TORCH_CHECK(!handle->blocks.empty(), "[tenon::pack_run_v1] need at least one block");
  return handle;
}

at::Tensor linear_v1(const at::Tensor& x_NC, const PackedPointer& packed) { return linear(x_NC, as_linear(packed)); }

at::Tensor rope_v1(const at::Tensor& x_NHD, std::int64_t spans, std::int64_t span_count, double theta) {
  return rope(x_NHD, spans_at(spans, span_count), theta);
}

at::Tensor attention_v1(const at::Tensor& q_NHD, const at::Tensor& k_NGD, const at::Tensor& v_NGD, std::int64_t spans,
                        std::int64_t span_count, std::int64_t slot) {
  return attention(q_NHD, k_NGD, v_NGD, spans_at(spans, span_count), slot);
}

at::Tensor run_v1(const at::Tensor& x_NC, const PackedPointer& run, std::int64_t spans, std::int64_t span_count,
                  std::int64_t slot) {
  TORCH_CHECK(!run->blocks.empty(), "[tenon::run_v1] this handle is no packed run");
  return run_blocks(x_NC, run->blocks, spans_at(spans, span_count), slot);
}

} // namespace

#define PACKED "__torch__.torch.classes.tenon.Packed"

TORCH_LIBRARY(tenon, library) {
  library.class_<PackedHandle>("Packed");
  library.def("pack_linear_v1(Tensor weight, Tensor? bias, Tensor? a, Tensor? b, float scale) -> " PACKED);
  library.def("pack_block_v1(" PACKED
              "[] linears, Tensor attention_norm, Tensor ffn_norm, int heads, int kv_heads, "
              "int head_dim, float norm_eps, float rope_theta) -> " PACKED);
  library.def("pack_run_v1(" PACKED "[] blocks) -> " PACKED);
  library.def("linear_v1(Tensor x, " PACKED " packed) -> Tensor");
  library.def("rms_norm_v1(Tensor x, Tensor weight, float eps) -> Tensor");
  library.def("rope_v1(Tensor x, int spans, int span_count, float theta) -> Tensor");
  library.def("attention_v1(Tensor q, Tensor k, Tensor v, int spans, int span_count, int slot) -> Tensor");
  library.def("run_v1(Tensor x, " PACKED " run, int spans, int span_count, int slot) -> Tensor");
}

TORCH_LIBRARY_IMPL(tenon, CompositeExplicitAutograd, library) {
  library.impl("pack_linear_v1", pack_linear_v1);
  library.impl("pack_block_v1", pack_block_v1);
  library.impl("pack_run_v1", pack_run_v1);
  library.impl("linear_v1", linear_v1);
  library.impl("rms_norm_v1", rms_norm);
  library.impl("rope_v1", rope_v1);
  library.impl("attention_v1", attention_v1);
  library.impl("run_v1", run_v1);
}

} // namespace tenon
