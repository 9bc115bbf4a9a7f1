#include "kernels/gradients.hpp"

#include "kernels/cpu/engine.hpp"
#include "kernels/gradient_nodes.hpp"
#include "kernels/threads.hpp"
#include "kernels/transformer.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstring>
#include <vector>

namespace tenon {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t kRowBlock = 32; // rows of a task

// each(first, count) for blocks of rows, on LibTorch's threads.
template <class Each>
void for_blocks(std::int64_t rows, const Each& each) {
  parallel_for(0, (rows + kRowBlock - 1) / kRowBlock, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end; ++block)
      each(block * kRowBlock, std::min(kRowBlock, rows - block * kRowBlock));
  });
}

// Rows of float32, or of bfloat16 that are widened on the way in and rounded on the way out.
class RowsOf {
 public:
  explicit RowsOf(const at::Tensor& x)
      : x_(x.contiguous()), narrow_(x.scalar_type() == at::kBFloat16), width_(x.size(-1)), bytes_(x_.data_ptr()) {}

  std::int64_t count() const { return width_ > 0 ? x_.numel() / width_ : 0; }
  std::int64_t width() const { return width_; }
  const at::Tensor& tensor() const { return x_; }

  void read(std::int64_t row, float* to) const {
    if (narrow_)
      cpu::engine().kernels->rows.widen(static_cast<const std::uint16_t*>(bytes_) + row * width_, to, width_);
    else
      std::memcpy(to, static_cast<const float*>(bytes_) + row * width_, static_cast<std::size_t>(width_) * 4);
  }
  void write(std::int64_t row, const float* from) const {
    if (narrow_)
      cpu::engine().kernels->round(from, width_, static_cast<std::uint16_t*>(bytes_) + row * width_);
    else
      std::memcpy(static_cast<float*>(bytes_) + row * width_, from, static_cast<std::size_t>(width_) * 4);
  }

 private:
  at::Tensor x_;
  bool narrow_;
  std::int64_t width_;
  void* bytes_;
};

struct RmsNormNode : torch::autograd::Function<RmsNormNode> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight_C, double eps) {
    context->save_for_backward({x, weight_C});
    context->saved_data["eps"] = eps;
    return rms_norm(x, weight_C, eps);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    first_order_only();
    const auto saved = context->get_saved_variables();
    const at::Tensor x = saved[0].contiguous(), weight_C = saved[1].contiguous(), d = gradients[0].contiguous(),
                     d_x = at::empty_like(x);
    const double eps = context->saved_data["eps"].to<double>();
    const std::int64_t width = x.size(-1), rows = x.numel() / width;
    at::Tensor part_BC; // one sum a block of rows
    if (context->needs_input_grad(1)) part_BC = at::zeros({(rows + kRowBlock - 1) / kRowBlock, width});
    for_blocks(rows, [&](std::int64_t first, std::int64_t count) {
      const std::int64_t at = first * width;
      cpu::engine().kernels->rows.rms_norm_gradient(
          x.data_ptr<float>() + at, weight_C.data_ptr<float>(), d.data_ptr<float>() + at, d_x.data_ptr<float>() + at,
          part_BC.defined() ? part_BC.data_ptr<float>() + first / kRowBlock * width : nullptr, count, width, eps);
    });
    return {d_x, part_BC.defined() ? part_BC.sum(0) : at::Tensor(), at::Tensor()};
  }
};

at::Tensor silu_product(const at::Tensor& gate, const at::Tensor& up) {
  const RowsOf g(gate), u(up), y(at::empty(gate.sizes(), gate.options()));
  for_blocks(g.count(), [&](std::int64_t first, std::int64_t count) {
    thread_local std::vector<float> a, b; // kept: a step in inference asks for no memory
    a.resize(static_cast<std::size_t>(g.width())), b.resize(a.size());
    for (std::int64_t row = first; row < first + count; ++row) {
      g.read(row, a.data()), u.read(row, b.data());
      cpu::engine().kernels->silu_multiply(a.data(), b.data(), g.width());
      y.write(row, a.data());
    }
  });
  return y.tensor();
}

struct SiluMultiplyNode : torch::autograd::Function<SiluMultiplyNode> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate, const at::Tensor& up) {
    context->save_for_backward({gate, up});
    return silu_product(gate, up);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    first_order_only();
    const auto saved = context->get_saved_variables();
    const RowsOf gate(saved[0]), up(saved[1]), d(gradients[0]),
        d_gate(at::empty(gate.tensor().sizes(), saved[0].options())),
        d_up(at::empty(gate.tensor().sizes(), saved[1].options()));
    for_blocks(gate.count(), [&](std::int64_t first, std::int64_t count) {
      std::vector<float> g(static_cast<std::size_t>(gate.width())), u(g), y(g);
      for (std::int64_t row = first; row < first + count; ++row) {
        gate.read(row, g.data()), up.read(row, u.data()), d.read(row, y.data());
        cpu::engine().kernels->silu_gradient(g.data(), u.data(), y.data(), g.data(), u.data(), gate.width());
        d_gate.write(row, g.data()), d_up.write(row, u.data());
      }
    });
    return {d_gate.tensor(), d_up.tensor()};
  }
};

at::Tensor rotated(const at::Tensor& x_BTHD, const at::Tensor& cos_TP, const at::Tensor& sin_TP) {
  const std::int64_t length = x_BTHD.size(1), heads = x_BTHD.size(2), depth = x_BTHD.size(3), pairs = depth / 2;
  const at::Tensor cos = cos_TP.contiguous(), sin = sin_TP.contiguous();
  const RowsOf x(x_BTHD.flatten(2)), y(at::empty({x_BTHD.size(0), length, heads * depth}, x_BTHD.options()));
  for_blocks(x.count(), [&](std::int64_t first, std::int64_t count) {
    std::vector<float> row(static_cast<std::size_t>(x.width()));
    for (std::int64_t i = first; i < first + count; ++i) {
      x.read(i, row.data());
      const std::int64_t angle = i % length * pairs;
      cpu::engine().kernels->rows.rotate(row.data(), cos.data_ptr<float>() + angle, sin.data_ptr<float>() + angle, 1,
                                         heads, depth);
      y.write(i, row.data());
    }
  });
  return y.tensor().view(x_BTHD.sizes());
}

// A rotation's gradient is turned back.
struct RotateNode : torch::autograd::Function<RotateNode> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x_BTHD, const at::Tensor& cos_TP,
                            const at::Tensor& sin_TP) {
    context->save_for_backward({cos_TP, sin_TP});
    return rotated(x_BTHD, cos_TP, sin_TP);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    first_order_only();
    const auto saved = context->get_saved_variables();
    return {rotated(gradients[0], saved[0], saved[1].neg()), at::Tensor(), at::Tensor()};
  }
};

} // namespace

at::Tensor differentiable_rms_norm(const at::Tensor& x, const at::Tensor& weight_C, double eps) {
  TORCH_CHECK(weight_C.dim() == 1 && x.dim() > 0 && x.size(-1) > 0 && x.size(-1) == weight_C.size(0),
              "[tenon::rms_norm_v1] found rows ", x.sizes(), " and a weight ", weight_C.sizes());
  if (x.scalar_type() == at::kBFloat16) return differentiable_rms_norm(x.to(at::kFloat), weight_C, eps);
  if (!is_ours(x)) return x * at::rsqrt(x.square().mean(-1, true) + eps) * weight_C;
  return gradient_flows(x) || gradient_flows(weight_C) ? RmsNormNode::apply(x, weight_C, eps)
                                                       : rms_norm(x, weight_C, eps);
}

at::Tensor silu_multiply(const at::Tensor& gate, const at::Tensor& up) {
  TORCH_CHECK(gate.sizes() == up.sizes() && gate.scalar_type() == up.scalar_type(), "[tenon::silu_multiply_v1] found ",
              gate.scalar_type(), " ", gate.sizes(), " and ", up.scalar_type(), " ", up.sizes(),
              ", need one shape and type");
  if (!is_ours(gate)) return at::silu(gate) * up;
  return gradient_flows(gate) || gradient_flows(up) ? SiluMultiplyNode::apply(gate, up) : silu_product(gate, up);
}

at::Tensor rotate(const at::Tensor& x_BTHD, const at::Tensor& cos_TP, const at::Tensor& sin_TP) {
  TORCH_CHECK(x_BTHD.dim() == 4 && x_BTHD.size(3) % 2 == 0 && cos_TP.sizes() == sin_TP.sizes() &&
                  cos_TP.sizes() == at::IntArrayRef({x_BTHD.size(1), x_BTHD.size(3) / 2}),
              "[tenon::rotate_v1] need x (B,T,H,D) and angles (T,D/2); found ", x_BTHD.sizes(), " and ",
              cos_TP.sizes());
  if (is_ours(x_BTHD))
    return gradient_flows(x_BTHD) ? RotateNode::apply(x_BTHD, cos_TP, sin_TP) : rotated(x_BTHD, cos_TP, sin_TP);
  const auto halves = x_BTHD.chunk(2, -1);
  const at::Tensor cos = cos_TP.unsqueeze(1), sin = sin_TP.unsqueeze(1);
  return at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1);
}

} // namespace tenon
