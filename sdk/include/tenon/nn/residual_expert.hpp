// ResidualExpert: a stack of blocks as an expert, in units of n(h),
//   x_0 = n(h),  x_{i+1} = x_i + block_i(RmsNorm_i(x_i)),  g = x_depth - x_0
// in either of two forms, an architecture each (deviation: that of h, which brings g back to h's units):
//   OnBase    y = base + deviation * g, g exactly zero at birth; the facts say "uses": ["base.output"]
//   AsMiddle  y = h + deviation * g, in the place of the model's own middle
//
// A Block is a torch::nn::Module with
//   Block(const Setup& setup, std::uint32_t slot)              its state begins at this slot
//   Tensor forward(const Tensor& x_NC, c10::ArrayRef<Span>)    (N,C)
//   void add_state(StateLayout& layout, const std::string& prefix) const
//   std::vector<Tensor> last() const                           weights of the products its result comes from
//   void begin()                                               values at birth, where the usual ones will not do
// The configuration's "depth" says how many. Thread: as Expert.
#pragma once

#include <tenon/nn/linear.hpp>
#include <tenon/nn/rms_norm.hpp>

namespace tenon::nn {

template <class Block, bool on_base>
class ResidualExpert : public Expert {
 public:
  explicit ResidualExpert(const Setup& setup) : Expert(setup), deviation_C_(setup.h_deviation_C) {
    const std::int64_t depth = setup.config.at("depth").integer(), width = setup.model.at("width").integer();
    const auto list = register_module("blocks", std::make_shared<torch::nn::Module>("blocks"));
    for (std::int64_t i = 0; i < depth; ++i) {
      const auto block = std::make_shared<Block>(setup, static_cast<std::uint32_t>(layout_.entries().size()));
      norms_.push_back(block->register_module("norm", std::make_shared<RmsNorm>(width, 1e-5)));
      blocks_.push_back(list->register_module(std::to_string(i), block));
      block->add_state(layout_, "blocks." + std::to_string(i) + ".");
    }
  }

  Tensor forward(const Input& in) override {
    const at::AutoGradMode gradients(is_training() && at::GradMode::is_enabled()); // else states would keep the past
    const Tensor n_NC = normalize(in.h_NC);
    Tensor g_NC;
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      const Tensor x_NC = g_NC.defined() ? n_NC + g_NC : n_NC;
      const Tensor more_NC = blocks_[i]->forward(norms_[i]->forward(x_NC), in.spans);
      g_NC = g_NC.defined() ? g_NC + more_NC : more_NC;
    }
    return (on_base ? in.base_NC : in.h_NC) + deviation_C_ * g_NC;
  }

  StateLayout state_layout() const override { return layout_; }

  void initialize(const Random& random) override {
    Expert::initialize(random);
    for (const auto& block : blocks_) {
      block->begin();
      if (!on_base) continue;
      for (Tensor& weight : block->last()) weight.zero_();
    }
  }

 private:
  Tensor deviation_C_;
  StateLayout layout_;
  std::vector<std::shared_ptr<Block>> blocks_;
  std::vector<std::shared_ptr<RmsNorm>> norms_;
};

template <class Block>
using OnBase = ResidualExpert<Block, true>;
template <class Block>
using AsMiddle = ResidualExpert<Block, false>;

} // namespace tenon::nn
