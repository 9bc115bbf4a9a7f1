// tenon.mixture, tenon.mixture_middle: many small perceptrons, of which a position goes through a few. An expert that
// holds much and computes little; the output at a position depends on that position alone.
//
//   block(x) = sum over the `active` best e of w_e * down_e(silu(gate_e(x)) * up_e(x)),
//   w = softmax over their scores router(x)
//
// Sources and equations: tenon/nn/mixture.hpp.
#include <tenon/native.hpp>
#include <tenon/nn/mixture.hpp>
#include <tenon/nn/residual_expert.hpp>

namespace {

tenon::nn::MixtureOptions options(const tenon::Setup& setup) {
  const auto number = [&](const char* name) { return setup.config.at(name).integer(); };
  return {setup.model.at("width").integer(), number("inner_width"), number("experts"), number("active"),
          setup.config.at("balance").number()};
}

class MixtureBlock : public tenon::nn::Mixture {
 public:
  MixtureBlock(const tenon::Setup& setup, std::uint32_t) : Mixture(options(setup)) {}

  tenon::Tensor forward(const tenon::Tensor& x_NC, c10::ArrayRef<tenon::Span>) { return Mixture::forward(x_NC); }
  void add_state(tenon::StateLayout&, const std::string&) const {}
  std::vector<tenon::Tensor> last() const {
    std::vector<tenon::Tensor> out;
    for (const auto& expert : experts) out.push_back(expert->down->weight);
    return out;
  }
  void begin() {}
};

} // namespace

TENON_PLUGIN(tenon::architecture<tenon::nn::OnBase<MixtureBlock>>("tenon.mixture"),
             tenon::architecture<tenon::nn::AsMiddle<MixtureBlock>>("tenon.mixture_middle"));
