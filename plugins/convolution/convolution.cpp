// tenon.convolution, tenon.convolution_middle: gated causal convolutions. The output at a position depends on the last
// few positions: depth d and kernel size k see 1 + d (k - 1) of them.
//
//   block(x) = out(CausalConv(value(x) * sigmoid(gate(x))))
//
// Source: Wu et al. 2019 (arXiv 1901.10430), section 3 and figure 2b (a gated linear unit, a depthwise convolution, a
// product), the gate being Dauphin et al. 2017 (arXiv 1612.08083), equation 1.
#include <tenon/native.hpp>
#include <tenon/nn/causal_conv.hpp>
#include <tenon/nn/residual_expert.hpp>

namespace {

constexpr std::int64_t kWindow = 64; // as plugin.json says

std::int64_t checked_kernel(const tenon::Config& config) {
  const std::int64_t depth = config.at("depth").integer(), kernel = config.at("kernel_size").integer(),
                     sees = 1 + depth * (kernel - 1);
  if (sees > kWindow)
    throw tenon::Failure(TENON_BAD_CONFIG, "depth " + std::to_string(depth) + " and kernel_size " +
                                               std::to_string(kernel) + " see " + std::to_string(sees) +
                                               " positions, need " + std::to_string(kWindow) +
                                               " at most, the window of this architecture; lower one of them");
  return kernel;
}

class ConvolutionBlock : public torch::nn::Module {
 public:
  ConvolutionBlock(const tenon::Setup& setup, std::uint32_t slot) {
    const std::int64_t width = setup.model.at("width").integer(),
                       inner_width = setup.config.at("inner_width").integer();
    value_ = register_module("value", std::make_shared<tenon::nn::Linear>(width, inner_width));
    gate_ = register_module("gate", std::make_shared<tenon::nn::Linear>(width, inner_width));
    conv_ = register_module("conv",
                            std::make_shared<tenon::nn::CausalConv>(inner_width, checked_kernel(setup.config), slot));
    out_ = register_module("out", std::make_shared<tenon::nn::Linear>(inner_width, width));
  }

  tenon::Tensor forward(const tenon::Tensor& x_NC, c10::ArrayRef<tenon::Span> spans) {
    return out_->forward(conv_->forward(value_->forward(x_NC) * gate_->forward(x_NC).sigmoid(), spans));
  }
  void add_state(tenon::StateLayout& layout, const std::string& prefix) const { conv_->add_state(layout, prefix); }
  std::vector<tenon::Tensor> last() const { return {out_->weight}; }
  void begin() {}

 private:
  std::shared_ptr<tenon::nn::Linear> value_, gate_, out_;
  std::shared_ptr<tenon::nn::CausalConv> conv_;
};

} // namespace

TENON_PLUGIN(tenon::architecture<tenon::nn::OnBase<ConvolutionBlock>>("tenon.convolution"),
             tenon::architecture<tenon::nn::AsMiddle<ConvolutionBlock>>("tenon.convolution_middle"));
