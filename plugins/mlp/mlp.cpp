// tenon.mlp, tenon.mlp_middle: multilayer perceptrons. The output at a position depends on that position alone, so the
// host runs them only where the router chooses them.
//
//   block(x) = down(silu(gate(x)) * up(x))
//
// Source: Shazeer 2020 (arXiv 2002.05202), equation 6.
#include <tenon/native.hpp>
#include <tenon/nn/residual_expert.hpp>
#include <tenon/nn/swiglu.hpp>

namespace {

class MlpBlock : public tenon::nn::SwiGlu {
 public:
  MlpBlock(const tenon::Setup& setup, std::uint32_t)
      : SwiGlu(setup.model.at("width").integer(), setup.config.at("inner_width").integer()) {}

  tenon::Tensor forward(const tenon::Tensor& x_NC, c10::ArrayRef<tenon::Span>) { return SwiGlu::forward(x_NC); }
  void add_state(tenon::StateLayout&, const std::string&) const {}
  std::vector<tenon::Tensor> last() const { return {down->weight}; }
  void begin() {}
};

} // namespace

TENON_PLUGIN(tenon::architecture<tenon::nn::OnBase<MlpBlock>>("tenon.mlp"),
             tenon::architecture<tenon::nn::AsMiddle<MlpBlock>>("tenon.mlp_middle"));
