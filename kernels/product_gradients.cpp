#include "kernels/cpu/engine.hpp"
#include "kernels/cpu/product.hpp"
#include "kernels/gradient_nodes.hpp"
#include "kernels/gradients.hpp"
#include "kernels/threads.hpp"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace tenon {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t kLeastRows = 48; // of a thread

// LibTorch's threads share out the rows, and each computes its own.
cpu::Engine one_thread() {
  static cpu::Pool alone(1);
  return {cpu::engine().kernels, &alone};
}

// Panels [begin, end) of b (M,K), float32 or bfloat16.
void pack_panels(const at::Tensor& b, std::int64_t begin, std::int64_t end, std::int64_t panel, std::byte* packed) {
  const std::int64_t outputs = b.size(0), inputs = b.size(1);
  for (std::int64_t i = begin; i < end; ++i) {
    const std::int64_t first = i * cpu::kPanel, count = std::min(cpu::kPanel, outputs - first);
    const auto numbers = static_cast<std::size_t>(count * inputs);
    const std::span<std::byte> to(packed + i * panel, static_cast<std::size_t>(panel));
    if (b.scalar_type() == at::kFloat)
      cpu::pack(cpu::PackedFormat::bf16, count, inputs, {b.data_ptr<float>() + first * inputs, numbers}, to);
    else
      cpu::pack_blocks(cpu::PackedFormat::bf16, nn::BlockType::BF16, count, inputs,
                       {static_cast<const std::byte*>(b.data_ptr()) + 2 * first * inputs, 2 * numbers}, to);
  }
}

struct NarrowLinearNode : torch::autograd::Function<NarrowLinearNode> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight_FC) {
    context->save_for_backward({x.to(at::kBFloat16), weight_FC});
    context->saved_data["wide"] = x.scalar_type() == at::kFloat;
    const at::Tensor y_NF = narrow_product(x.reshape({-1, x.size(-1)}), weight_FC);
    std::vector<std::int64_t> sizes = x.sizes().vec();
    sizes.back() = weight_FC.size(0);
    return y_NF.to(at::kBFloat16).view(sizes);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    first_order_only();
    const auto saved = context->get_saved_variables();
    const at::Tensor x_NC = saved[0].reshape({-1, saved[0].size(-1)}), weight_FC = saved[1],
                     d_NF = gradients[0].reshape({-1, weight_FC.size(0)});
    at::Tensor d_x, d_weight_FC;
    if (context->needs_input_grad(0))
      d_x = narrow_product(d_NF, weight_FC.t())
                .to(context->saved_data["wide"].to<bool>() ? at::kFloat : at::kBFloat16)
                .view(saved[0].sizes());
    if (context->needs_input_grad(1)) d_weight_FC = narrow_product(d_NF.t(), x_NC.t()).to(weight_FC.scalar_type());
    return {d_x, d_weight_FC};
  }
};

} // namespace

bool narrow_products_are_ours() { return cpu::engine().kernels->tier != cpu::Tier::avx512; }

at::Tensor narrow_product(const at::Tensor& a_NK, const at::Tensor& b_MK) {
  const std::int64_t rows = a_NK.size(0), inputs = b_MK.size(1), outputs = b_MK.size(0);
  const at::Tensor a = a_NK.to(at::kFloat).contiguous(), b = b_MK.contiguous(), y = at::empty({rows, outputs});
  const auto panel = static_cast<std::int64_t>(*cpu::panel_bytes(cpu::PackedFormat::bf16, inputs));
  cpu::Linear linear{{cpu::PackedFormat::bf16, outputs, inputs, nullptr}};
  cpu::Arena memory;
  auto* packed = memory.take<std::byte>(linear.weight.panels() * panel);
  linear.weight.bytes = packed;
  parallel_for(0, linear.weight.panels(), 1,
               [&](std::int64_t begin, std::int64_t end) { pack_panels(b, begin, end, panel, packed); });
  parallel_for(0, rows, kLeastRows, [&](std::int64_t begin, std::int64_t end) {
    const cpu::Engine engine = one_thread();
    cpu::Arena arena;
    const cpu::Rows part =
        cpu::prepare(engine, arena, a.data_ptr<float>() + begin * inputs, end - begin, inputs, cpu::Forms() |= linear);
    const cpu::Product product{&linear, y.data_ptr<float>() + begin * outputs};
    cpu::multiply(engine, arena, part, {&product, 1});
  });
  return y;
}

at::Tensor narrow_linear(const at::Tensor& x, const at::Tensor& weight_FC, const at::Tensor& bias_F) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  const at::Tensor y = NarrowLinearNode::apply(x, weight_FC);
  return bias_F.defined() ? (y + bias_F).to(y.scalar_type()) : y;
}

at::Tensor trainable_linear(const at::Tensor& x, const at::Tensor& weight_FC, const std::optional<at::Tensor>& bias_F) {
  TORCH_CHECK(weight_FC.dim() == 2 && x.dim() > 0 && x.size(-1) == weight_FC.size(1),
              "[tenon::trainable_linear_v1] found rows ", x.sizes(), " and a weight ", weight_FC.sizes());
  TORCH_CHECK(!bias_F || bias_F->sizes() == at::IntArrayRef({weight_FC.size(0)}),
              "[tenon::trainable_linear_v1] found a weight ", weight_FC.sizes(), " and a bias ", bias_F->sizes());
  const bool narrow =
      at::autocast::is_autocast_enabled(at::kCPU) && at::autocast::get_autocast_dtype(at::kCPU) == at::kBFloat16;
  if (narrow && narrow_products_are_ours() && x.numel() > 0 && is_ours(x) && is_ours(weight_FC))
    return narrow_linear(x, weight_FC, bias_F.value_or(at::Tensor()));
  return at::linear(x, weight_FC, bias_F);
}

} // namespace tenon
