// tenon.transformer: blocks of Llama's kind as a middle. The base of an imported model is one; so is a middle trained
// from nothing, with any number of blocks. The configuration says depth and widths.
#include <tenon/native.hpp>
#include <tenon/nn/transformer.hpp>

namespace {

class TransformerExpert : public tenon::Expert {
 public:
  explicit TransformerExpert(const tenon::Setup& setup)
      : Expert(setup),
        stack_(std::make_shared<tenon::nn::Transformer>(
            tenon::nn::TransformerOptions::from(setup.config, setup.model.at("width").integer()))) {
    for (const auto& child : stack_->named_children()) register_module(child.key(), child.value());
  }

  tenon::Tensor forward(const tenon::Input& in) override { return stack_->forward(in.h_NC, in.spans); }

  tenon::StateLayout state_layout() const override {
    tenon::StateLayout layout;
    stack_->add_state(layout);
    return layout;
  }

  void train(bool on = true) override {
    stack_->train(on);
    Expert::train(on);
  }

 private:
  std::shared_ptr<tenon::nn::Transformer> stack_;
};

} // namespace

TENON_PLUGIN(tenon::architecture<TransformerExpert>("tenon.transformer"));
