// Transformer blocks as a middle, of whatever family the configuration names. tenon.transformer: the base of an
// imported model is one; so is a middle trained from nothing, at the model's width or, between stitches, at any other.
// tenon.imported: the blocks are cut from a model, always between stitches. Each also stands on the base: what it says
// is then added to what the base says, and is zero at birth.
#include <tenon/native.hpp>
#include <tenon/nn/stitch.hpp>
#include <tenon/nn/transformer.hpp>

namespace {

class TransformerExpert : public tenon::RunExpert {
 public:
  explicit TransformerExpert(const tenon::Setup& setup) : TransformerExpert(setup, setup.config.has("width")) {}

  tenon::Tensor forward(const tenon::Input& in) override {
    if (!stitches_) return stack_->forward(in.h_NC, in.spans);
    const tenon::Tensor x_NF = stitches_->down->forward(normalize(in.h_NC));
    return stitches_->up->forward(stack_->forward(x_NF, in.spans));
  }
  std::optional<tenon::Run> run() override {
    return stitches_ ? std::nullopt : std::optional(tenon::Run{stack_->packed()});
  }

  tenon::StateLayout state_layout() const override {
    tenon::StateLayout layout;
    stack_->add_state(layout);
    return layout;
  }

  // Where the widths are one, the blocks read n(h) as it is.
  void initialize(const tenon::Random& random) override {
    Expert::initialize(random);
    if (!stitches_) return;
    tenon::Tensor& down_FC = stitches_->down->weight;
    if (down_FC.size(0) == down_FC.size(1)) down_FC.copy_(at::eye(down_FC.size(0)));
  }

  void train(bool on = true) override {
    stack_->train(on);
    Expert::train(on);
  }

 protected:
  // Stitched where no width is given: to a stream of the model's own width.
  TransformerExpert(const tenon::Setup& setup, bool stitched) : RunExpert(setup) {
    const std::int64_t width = setup.model.at("width").integer(),
                       inner = setup.config.has("width") ? setup.config.at("width").integer() : width;
    stack_ = std::make_shared<tenon::nn::Transformer>(tenon::nn::TransformerOptions::from(setup.config, inner));
    for (const auto& child : stack_->named_children()) register_module(child.key(), child.value());
    if (stitched) stitches_ = register_module("stitch", std::make_shared<tenon::nn::Stitches>(width, inner));
  }

  std::shared_ptr<tenon::nn::Stitches> stitches_; // null: the blocks run on h itself

 private:
  std::shared_ptr<tenon::nn::Transformer> stack_;
};

class TransformerOnBase : public TransformerExpert {
 public:
  explicit TransformerOnBase(const tenon::Setup& setup) : TransformerExpert(setup, true) {}

  tenon::Tensor forward(const tenon::Input& in) override { return in.base_NC + TransformerExpert::forward(in); }

  void initialize(const tenon::Random& random) override {
    TransformerExpert::initialize(random);
    stitches_->up->weight.zero_();
  }
};

} // namespace

TENON_PLUGIN(tenon::architecture<TransformerExpert>("tenon.transformer"),
             tenon::architecture<TransformerOnBase>("tenon.transformer_on_base"),
             tenon::architecture<TransformerExpert>("tenon.imported"),
             tenon::architecture<TransformerOnBase>("tenon.imported_on_base"));
