// tenon.state_space, tenon.state_space_middle: selective diagonal state spaces (Mamba). All positions at once in
// training; in inference one step a position, of the same cost however long the text.
//
//   (x', z) = in_proj(x);   block(x) = out_proj(SelectiveScan(silu(CausalConv(x'))) * silu(z))
//
// Source: Gu and Dao 2023 (arXiv 2312.00752), section 3.4 and figure 3; the scan's equations stand in
// tenon/nn/selective_scan.hpp. The rank of the step is the paper's: width / 16, rounded up.
#include <tenon/native.hpp>
#include <tenon/nn/causal_conv.hpp>
#include <tenon/nn/residual_expert.hpp>
#include <tenon/nn/selective_scan.hpp>

namespace {

using tenon::nn::Linear;

class StateSpaceBlock : public torch::nn::Module {
 public:
  StateSpaceBlock(const tenon::Setup& setup, std::uint32_t slot) {
    const std::int64_t width = setup.model.at("width").integer(),
                       inner_width = setup.config.at("inner_width").integer(),
                       kernel_size = setup.config.at("kernel_size").integer(),
                       state_size = setup.config.at("state_size").integer(), dt_rank = (width + 15) / 16;
    in_proj_ = register_module("in_proj", std::make_shared<Linear>(width, 2 * inner_width));
    conv_ = register_module("conv", std::make_shared<tenon::nn::CausalConv>(inner_width, kernel_size, slot));
    scan_ =
        register_module("scan", std::make_shared<tenon::nn::SelectiveScan>(inner_width, state_size, dt_rank, slot + 1));
    out_proj_ = register_module("out_proj", std::make_shared<Linear>(inner_width, width));
  }

  tenon::Tensor forward(const tenon::Tensor& x_NC, c10::ArrayRef<tenon::Span> spans) {
    const auto halves = in_proj_->forward(x_NC).chunk(2, -1);
    const tenon::Tensor y_NF = scan_->forward(at::silu(conv_->forward(halves[0], spans)), spans);
    return out_proj_->forward(y_NF * at::silu(halves[1]));
  }
  void add_state(tenon::StateLayout& layout, const std::string& prefix) const {
    conv_->add_state(layout, prefix);
    scan_->add_state(layout, prefix);
  }
  std::vector<tenon::Tensor> last() const { return {out_proj_->weight}; }
  void begin() { scan_->spread_time_scales(); }

 private:
  std::shared_ptr<Linear> in_proj_, out_proj_;
  std::shared_ptr<tenon::nn::CausalConv> conv_;
  std::shared_ptr<tenon::nn::SelectiveScan> scan_;
};

} // namespace

TENON_PLUGIN(tenon::architecture<tenon::nn::OnBase<StateSpaceBlock>>("tenon.state_space"),
             tenon::architecture<tenon::nn::AsMiddle<StateSpaceBlock>>("tenon.state_space_middle"));
