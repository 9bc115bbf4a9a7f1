// tenon.recurrent, tenon.recurrent_middle: LSTM or GRU layers. Each sequence is read once, in order; what came before
// is one vector (two for an LSTM) a layer, however long the text.
//
//   block(x) = out(h),  h from LSTM or GRU cells over the x of this sequence
//
// Sources and equations: tenon/nn/recurrent.hpp.
#include <tenon/native.hpp>
#include <tenon/nn/recurrent.hpp>
#include <tenon/nn/residual_expert.hpp>

namespace {

class RecurrentBlock : public torch::nn::Module {
 public:
  RecurrentBlock(const tenon::Setup& setup, std::uint32_t slot) {
    const std::int64_t width = setup.model.at("width").integer(),
                       inner_width = setup.config.at("inner_width").integer();
    const auto kind = setup.config.at("cell").text() == "lstm" ? tenon::nn::Cell::lstm : tenon::nn::Cell::gru;
    cell_ = register_module("cell", std::make_shared<tenon::nn::Recurrent>(width, inner_width, kind, slot));
    out_ = register_module("out", std::make_shared<tenon::nn::Linear>(inner_width, width));
  }

  tenon::Tensor forward(const tenon::Tensor& x_NC, c10::ArrayRef<tenon::Span> spans) {
    return out_->forward(cell_->forward(x_NC, spans));
  }
  void add_state(tenon::StateLayout& layout, const std::string& prefix) const { cell_->add_state(layout, prefix); }
  std::vector<tenon::Tensor> last() const { return {out_->weight}; }
  void begin() { cell_->open_forget_gate(); }

 private:
  std::shared_ptr<tenon::nn::Recurrent> cell_;
  std::shared_ptr<tenon::nn::Linear> out_;
};

} // namespace

TENON_PLUGIN(tenon::architecture<tenon::nn::OnBase<RecurrentBlock>>("tenon.recurrent"),
             tenon::architecture<tenon::nn::AsMiddle<RecurrentBlock>>("tenon.recurrent_middle"));
