// tenon.memory: the base, corrected by what was stored for the nearest states of a text. Built in one pass.
//
//   q = P n(h) / |P n(h)|,  s_j = q . key_j,  a = softmax(s / T) over the k nearest entries and one null entry of score
//   s_0 y = base + sum_j a_j c_j
//
// An entry is a position of the text: its state as key, and as c_j a step against the gradient of the next-token loss
// towards the base's output there. So the correction is the estimate, by Nadaraya and Watson's regression, of how the
// base's output should move given h: one step of functional gradient descent (Friedman 2001, Greedy function
// approximation, algorithm 1). Retrieval by states is kNN-LM's (Khandelwal et al. 2020, arXiv 1911.00172, equation 2),
// applied to the residual stream instead of the output's distribution. P whitens: the principal components of the
// entries' states, each scaled to one variance.
#include <tenon/native.hpp>
#include <tenon/nn/linear.hpp>

#include <algorithm>
#include <cmath>

namespace {

using tenon::Tensor;
namespace operators = tenon::operators;

constexpr std::int64_t kRowsAtOnce = 256; // bounds the (rows, entries) scores
constexpr double kFloor = 1e-3;           // of the largest variance, added to each before it is divided by

Tensor unit(const Tensor& x_ND) { return x_ND / x_ND.norm(2, {1}, true).clamp_min(1e-12); }

class Memory : public tenon::PassExpert {
 public:
  explicit Memory(const tenon::Setup& setup)
      : PassExpert(setup),
        capacity_(setup.config.at("capacity").integer()),
        neighbors_(setup.config.at("neighbors").integer()),
        temperature_(setup.config.at("temperature").number()),
        null_score_(setup.config.at("null_score").number()) {
    const std::int64_t width = setup.model.at("width").integer(),
                       key_width = std::min(setup.config.at("key_width").integer(), width);
    project_ = register_module("project", std::make_shared<tenon::nn::Linear>(width, key_width));
    project_->weight.set_requires_grad(false);
    keys_ = register_parameter("keys", at::zeros({capacity_, key_width}), false);
    values_ = register_parameter("values", at::zeros({capacity_, width}), false);
    count_ = register_parameter("count", at::zeros({1}), false);
  }

  Tensor forward(const tenon::Input& in) override {
    const std::int64_t count = stored();
    if (count == 0) return in.base_NC;
    Tensor y_NC = in.base_NC.clone();
    for (std::int64_t row = 0; row < y_NC.size(0); row += kRowsAtOnce) {
      const std::int64_t rows = std::min(kRowsAtOnce, y_NC.size(0) - row);
      y_NC.narrow(0, row, rows).add_(correction(in.h_NC.narrow(0, row, rows), count));
    }
    return y_NC;
  }

  // Nothing stored: at birth it is the base.
  void initialize(const tenon::Random&) override {
    for (auto& parameter : named_parameters()) parameter.value().zero_();
  }

  void train(bool on = true) override {
    packed_keys_ = tenon::Packed();
    Expert::train(on);
  }

  // Which positions are kept is drawn at random, so that entries are a fair sample of the text.
  void begin(std::uint64_t seed, std::int64_t positions) override {
    initialize(tenon::Random(seed));
    states_.clear();
    seen_ = 0;
    kept_ = at::ones({positions}, at::kBool);
    if (positions <= capacity_) return;
    Tensor draw = at::empty({positions});
    tenon::Random(seed).normal("kept positions", draw, 1.0);
    kept_.zero_().index_fill_(0, std::get<1>(draw.topk(capacity_)), true);
  }

  void observe(const tenon::Observation& seen) override {
    const std::int64_t rows = seen.h_NC.size(0), count = stored();
    if (seen_ + rows > kept_.size(0))
      throw tenon::Failure(TENON_BAD_ARGUMENT, "found more positions than begin was told of");
    const Tensor kept_K = kept_.narrow(0, seen_, rows).nonzero().squeeze(1);
    seen_ += rows;
    states_.push_back(normalize(seen.h_NC.index_select(0, kept_K)));
    values_.narrow(0, count, kept_K.size(0)).copy_(seen.gradient_NC.index_select(0, kept_K)).neg_();
    count_.add_(static_cast<double>(kept_K.size(0)));
  }

  void finish() override {
    const std::int64_t count = stored();
    if (count == 0) return;
    const Tensor n_MC = at::cat(states_);
    states_.clear();
    project_->weight.copy_(whitening(n_MC));
    keys_.narrow(0, 0, count).copy_(unit(project_->forward(n_MC)));
  }

  void scale(double factor) override { values_.mul_(factor); }

 private:
  // Entries there are; what the file says is not taken on trust.
  std::int64_t stored() const {
    const double count = count_.item<double>();
    if (!(count >= 0.0 && count <= static_cast<double>(capacity_) && count == std::floor(count)))
      throw tenon::Failure(TENON_BAD_TENSOR,
                           "found a count of " + std::to_string(count) + ", need 0 to " + std::to_string(capacity_));
    return static_cast<std::int64_t>(count);
  }

  // P (D,C): the first D principal components of the states, about the mean of general text.
  Tensor whitening(const Tensor& n_MC) const {
    const Tensor n_CM = n_MC.t().contiguous();
    const Tensor moment_CC = operators::linear(n_CM, operators::pack_linear(n_CM)) / static_cast<double>(n_MC.size(0));
    const auto [variance_C, component_CC] = at::linalg_eigh(moment_CC); // ascending, components in columns
    const std::int64_t first = n_MC.size(1) - keys_.size(1);
    const Tensor variance_D = variance_C.narrow(0, first, keys_.size(1));
    const Tensor scale_D = (variance_D + kFloor * variance_C.max()).rsqrt();
    return (component_CC.narrow(1, first, keys_.size(1)) * scale_D).t().contiguous();
  }

  Tensor correction(const Tensor& h_NC, std::int64_t count) {
    if (packed_keys_.isNone()) packed_keys_ = operators::pack_linear(keys_.narrow(0, 0, count));
    const std::int64_t rows = h_NC.size(0), near = std::min(neighbors_, count);
    const Tensor score_NM = operators::linear(unit(project_->forward(normalize(h_NC))), packed_keys_);
    const auto [score_NK, entry_NK] = score_NM.topk(near);
    const Tensor null_N1 = at::full({rows, 1}, null_score_);
    const Tensor a_NK = at::softmax(at::cat({score_NK, null_N1}, 1) / temperature_, 1).narrow(1, 0, near);
    const Tensor offset_N = at::arange(0, rows * near, near, at::kLong);
    return std::get<0>(
        at::embedding_bag(values_, entry_NK.reshape({-1}), offset_N, false, 0, false, a_NK.reshape({-1})));
  }

  const std::int64_t capacity_, neighbors_;
  const double temperature_, null_score_;
  std::shared_ptr<tenon::nn::Linear> project_;
  Tensor keys_, values_, count_;
  tenon::Packed packed_keys_;
  // During a pass.
  std::vector<Tensor> states_; // n(h) of the entries
  Tensor kept_;                // of all positions
  std::int64_t seen_ = 0;
};

} // namespace

TENON_PLUGIN(tenon::architecture<Memory>("tenon.memory"));
