#include "kernels/cpu/attention.hpp"
#include "kernels/gradient_nodes.hpp"
#include "kernels/gradients.hpp"
#include "kernels/threads.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <atomic>
#include <vector>

namespace tenon {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor wide(const at::Tensor& x) { return x.to(at::kFloat).contiguous(); }

cpu::HeadShape shape_of(const at::Tensor& q_BTHD, const at::Tensor& k_BTGD) {
  return {q_BTHD.size(2), k_BTGD.size(2), q_BTHD.size(3)};
}

// task(index, memory), the last first, by whichever of LibTorch's threads is free; memory: so many numbers of the
// thread's own.
template <class Task>
void for_tasks(std::int64_t tasks, std::int64_t memory_size, const Task& task) {
  std::atomic<std::int64_t> left{tasks};
  parallel_for(0, std::min<std::int64_t>(tasks, at::get_num_threads()), 1, [&](std::int64_t, std::int64_t) {
    cpu::Arena arena;
    auto* memory = arena.take<float>(memory_size);
    for (std::int64_t next; (next = --left) >= 0;) task(next, memory);
  });
}

struct Attended {
  at::Tensor y_BTHD, log_sum_BTH;
};

Attended attended(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const at::Tensor q_BTHD = wide(q), k_BTGD = wide(k), v_BTGD = wide(v);
  const cpu::HeadShape shape = shape_of(q, k);
  const std::int64_t batch = q.size(0), length = q.size(1), chunks = (length + cpu::kChunk - 1) / cpu::kChunk;
  const Attended out{at::empty_like(q_BTHD), at::empty({batch, length, shape.heads})};
  std::vector<const float*> keys, values;
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t first = 0; first < length; first += cpu::kChunk) {
      keys.push_back(k_BTGD.data_ptr<float>() + (b * length + first) * shape.kv_width());
      values.push_back(v_BTGD.data_ptr<float>() + (b * length + first) * shape.kv_width());
    }
  const auto span = [&](std::int64_t b) {
    return cpu::AttentionSpan{b * length, length, 0, keys.data() + b * chunks, values.data() + b * chunks};
  };
  const std::int64_t tasks = cpu::attention_tasks(shape, span(0));
  for_tasks(batch * tasks, cpu::attention_memory(shape), [&](std::int64_t task, float* memory) {
    cpu::attend_task(*cpu::engine().kernels, shape, q_BTHD.data_ptr<float>(), span(task / tasks), task % tasks, memory,
                     out.y_BTHD.data_ptr<float>(), out.log_sum_BTH.data_ptr<float>());
  });
  return out;
}

struct CausalAttentionNode : torch::autograd::Function<CausalAttentionNode> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    const Attended out = attended(q, k, v);
    const at::Tensor y = out.y_BTHD.to(q.scalar_type());
    context->save_for_backward({q, k, v, y, out.log_sum_BTH});
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    first_order_only();
    const auto saved = context->get_saved_variables();
    const at::Tensor q = wide(saved[0]), k = wide(saved[1]), v = wide(saved[2]), y = wide(saved[3]), log_sum = saved[4],
                     d_y = wide(gradients[0]);
    const at::Tensor d_q = at::empty_like(q), d_k_BTHD = at::empty_like(q), d_v_BTHD = at::empty_like(q);
    const cpu::HeadShape shape = shape_of(q, k);
    const std::int64_t length = q.size(1), heads = shape.heads;
    for_tasks(q.size(0) * heads, cpu::attention_gradient_memory(shape, length), [&](std::int64_t task, float* memory) {
      const auto of = [&](const at::Tensor& x) { return x.data_ptr<float>() + task / heads * x.stride(0); };
      cpu::attention_gradient_task(
          *cpu::engine().kernels,
          {shape, length, of(q), of(k), of(v), of(y), of(log_sum), of(d_y), of(d_q), of(d_k_BTHD), of(d_v_BTHD)},
          task % heads, memory);
    });
    const auto shared = [&](const at::Tensor& d_BTHD, const at::Tensor& x) {
      return d_BTHD.view({q.size(0), length, shape.kv_heads, -1, shape.depth}).sum(3).to(x.scalar_type());
    };
    return {d_q.to(saved[0].scalar_type()), shared(d_k_BTHD, saved[1]), shared(d_v_BTHD, saved[2])};
  }
};

} // namespace

at::Tensor causal_attention(const at::Tensor& q_BTHD, const at::Tensor& k_BTGD, const at::Tensor& v_BTGD) {
  TORCH_CHECK(q_BTHD.dim() == 4 && k_BTGD.dim() == 4 && k_BTGD.sizes() == v_BTGD.sizes() &&
                  q_BTHD.size(0) == k_BTGD.size(0) && q_BTHD.size(1) == k_BTGD.size(1) &&
                  q_BTHD.size(3) == k_BTGD.size(3) && q_BTHD.numel() > 0 && k_BTGD.numel() > 0 &&
                  q_BTHD.size(2) % k_BTGD.size(2) == 0,
              "[tenon::causal_attention_v1] need q (B,T,H,D), k and v (B,T,G,D), H a multiple of G; found ",
              q_BTHD.sizes(), ", ", k_BTGD.sizes(), " and ", v_BTGD.sizes());
  if (is_ours(q_BTHD) && is_ours(k_BTGD) && is_ours(v_BTGD)) {
    if (gradient_flows(q_BTHD) || gradient_flows(k_BTGD) || gradient_flows(v_BTGD))
      return CausalAttentionNode::apply(q_BTHD, k_BTGD, v_BTGD);
    return attended(q_BTHD, k_BTGD, v_BTGD).y_BTHD.to(q_BTHD.scalar_type());
  }
  const auto by_head = [&](const at::Tensor& x) {
    return x.repeat_interleave(q_BTHD.size(2) / x.size(2), 2).transpose(1, 2);
  };
  return at::scaled_dot_product_attention(by_head(q_BTHD), by_head(k_BTGD), by_head(v_BTGD), {}, 0.0,
                                          /*is_causal=*/true)
      .transpose(1, 2);
}

} // namespace tenon
