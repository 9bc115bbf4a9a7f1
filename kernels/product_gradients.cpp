#include "kernels/cpu/engine.hpp"
#include "kernels/gradient_nodes.hpp"
#include "kernels/gradients.hpp"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>

namespace tenon {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

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

bool narrow_products_are_fast() { return cpu::engine().kernels->tier == cpu::Tier::avx512; }

at::Tensor rounded(const at::Tensor& x) { return x.to(at::kBFloat16).to(at::kFloat); }

at::Tensor narrow_product(const at::Tensor& a_NK, const at::Tensor& b_MK) {
  const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  return at::mm(rounded(a_NK), rounded(b_MK).t());
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
  if (narrow && !narrow_products_are_fast() && x.numel() > 0 && is_ours(x) && is_ours(weight_FC))
    return narrow_linear(x, weight_FC, bias_F.value_or(at::Tensor()));
  return at::linear(x, weight_FC, bias_F);
}

} // namespace tenon
