#include "host/training/pass.hpp"

#include "registry/base/error.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>

namespace tenon {
namespace {

constexpr int kMaxDoublings = 16, kSections = 8;
constexpr int kMostTrials = 1 + kMaxDoublings + 2 + kSections; // the first step, and where the sections begin
constexpr double kFirstShare = 0.05;                           // of the base's size: where the search begins

std::vector<tenon_span> whole_span(const Batch& batch) {
  return batch.spans([](Sequence& sequence) -> ModuleState& { return sequence.experts[0]; });
}

void check_stop(const TrainingHooks& hooks) {
  if (hooks.stopped())
    throw Error(Code::interrupted, "train", "stopped during the pass; nothing of it is kept",
                "run the same command again: the pass starts over");
}

// What the expert changes in each block that was held back, and what that does to the loss.
class HeldBack {
 public:
  HeldBack(const Subject& subject, const VocabularyLoss& loss, const Streams& domain, std::int64_t blocks)
      : subject_(subject), loss_(loss), domain_(domain) {
    at::NoGradGuard no_grad;
    double base = 0.0, correction = 0.0;
    for (std::int64_t i = 0; i < blocks; ++i) {
      const Batch batch = Batch::whole(domain.tokens_T(i).unsqueeze(0));
      const at::Tensor base_TC = domain.base_TC(i);
      at::Tensor correction_TC = subject.expert->forward(domain.h_TC(i), base_TC, whole_span(batch)) - base_TC;
      correction_TC[0].zero_(); // position 0 is the base's
      base += base_TC.square().sum().item<double>();
      correction += correction_TC.square().sum().item<double>();
      corrections_.push_back(correction_TC);
    }
    if (!std::isfinite(correction))
      throw Error(Code::plugin, subject.expert->title(), "its correction after the pass is not finite");
    first_step_ = correction > 0.0 ? kFirstShare * std::sqrt(base / correction) : 0.0;
  }

  double first_step() const { return first_step_; } // 0: the expert corrects nothing

  // Nats a token with the correction multiplied by `step`.
  double loss(double step) const {
    at::NoGradGuard no_grad;
    double sum = 0.0;
    for (std::size_t i = 0; i < corrections_.size(); ++i) {
      const auto block = static_cast<std::int64_t>(i);
      const Batch batch = Batch::whole(domain_.tokens_T(block).unsqueeze(0));
      const at::Tensor m_TC = domain_.base_TC(block) + corrections_[i] * step;
      const at::Tensor scored_K = domain_.scored(block);
      const at::Tensor features_KC = subject_.model->head().features(m_TC, batch).index_select(0, scored_K);
      sum += loss_.cross_entropy_into(features_KC, batch.tokens_N.index_select(0, scored_K + 1), at::Tensor());
    }
    return sum / static_cast<double>(corrections_.size());
  }

 private:
  const Subject& subject_;
  const VocabularyLoss& loss_;
  const Streams& domain_;
  std::vector<at::Tensor> corrections_;
  double first_step_ = 0.0;
};

// What is observed of a block: the positions that count for the loss, but for position 0, which is the base's.
at::Tensor observed_positions(const Streams& domain, std::int64_t i) {
  const at::Tensor scored_K = domain.scored(i);
  return scored_K.masked_select(scored_K.gt(0));
}

void observe_blocks(const Subject& subject, const VocabularyLoss& loss, const Streams& domain, std::int64_t first,
                    const TrainingHooks& hooks) {
  const std::int64_t length = domain.length();
  hooks.say_begin("pass over the text", (domain.size() - first) * length, "tokens");
  for (std::int64_t i = first; i < domain.size(); ++i) {
    check_stop(hooks);
    const at::Tensor tokens_T = domain.tokens_T(i), base_TC = domain.base_TC(i);
    const at::Tensor gradient_TC = correction_gradient(*subject.model, loss, tokens_T, base_TC, domain.scored(i));
    const at::Tensor positions_K = observed_positions(domain, i);
    const auto inner = [&](const at::Tensor& x) { return x.index_select(0, positions_K); };
    if (positions_K.size(0) > 0)
      subject.expert->observe(
          {inner(domain.h_TC(i)), inner(base_TC), inner(gradient_TC), tokens_T.index_select(0, positions_K + 1)});
    hooks.say_update((i - first + 1) * length);
  }
  hooks.say_end();
}

} // namespace

at::Tensor correction_gradient(const Model& model, const VocabularyLoss& loss, const at::Tensor& tokens_T,
                               const at::Tensor& base_TC, const at::Tensor& scored_K) {
  const Batch batch = Batch::whole(tokens_T.unsqueeze(0));
  at::Tensor m_TC = base_TC.detach().clone().requires_grad_(true);
  const at::Tensor features_KC = model.head().features_with_gradient(m_TC, batch).index_select(0, scored_K);
  const at::Tensor mean = loss.cross_entropy(features_KC, tokens_T.index_select(0, scored_K + 1));
  (mean * static_cast<double>(scored_K.size(0))).backward();
  const at::Tensor gradient_TC = m_TC.grad();
  if (!std::isfinite(mean.item<double>()) || !at::isfinite(gradient_TC).all().item<bool>())
    throw Error(Code::numeric, "train", "the gradient of a block towards the base's output is not finite",
                "verify the model: tenon verify");
  return gradient_TC;
}

StepLength search_step(const std::function<double(double)>& loss, double at_zero, double first) {
  StepLength best{0.0, at_zero};
  if (!(first > 0.0)) return best;
  const auto value = [&](double step) {
    const double found = loss(step);
    if (found < best.loss) best = {step, found};
    return found;
  };
  const double factor = value(first) < at_zero ? 2.0 : 0.5;
  double step = first;
  for (int i = 0; i < kMaxDoublings; ++i) {
    const double before = best.loss;
    const bool lower = value(step *= factor) < before;
    if (!lower && best.step > 0.0) break; // past the valley
  }
  if (best.step == 0.0) return best;
  // The lowest now lies between half and twice the best step.
  constexpr double kGolden = 0.6180339887498949;
  double low = std::log(best.step / 2), high = std::log(best.step * 2);
  double a = high - kGolden * (high - low), b = low + kGolden * (high - low);
  double at_a = value(std::exp(a)), at_b = value(std::exp(b));
  for (int i = 0; i < kSections; ++i) {
    if (at_a < at_b) {
      high = b, b = a, at_b = at_a;
      a = high - kGolden * (high - low), at_a = value(std::exp(a));
    } else {
      low = a, a = b, at_a = at_b;
      b = low + kGolden * (high - low), at_b = value(std::exp(b));
    }
  }
  return best;
}

PassReport learn_in_a_pass(const TrainingPlan& plan, const Subject& subject, const Streams& domain,
                           const TrainingHooks& hooks) {
  const std::int64_t held_back = plan.pass.held_back_blocks, observed = domain.size() - held_back;
  if (observed < 1)
    throw Error(Code::usage, "train",
                fmt::format("found {} blocks of text, need more than the {} held back for the step length",
                            domain.size(), held_back),
                "give more text with --data, or --set pass.held_back_blocks=...");
  const VocabularyLoss loss(subject.model->head().unembedding_VC());
  PassReport report;
  for (std::int64_t i = held_back; i < domain.size(); ++i) report.positions += observed_positions(domain, i).size(0);
  subject.expert->prepare(TENON_TRAINING);
  subject.expert->begin_pass(static_cast<std::uint64_t>(plan.train.seed), report.positions);
  observe_blocks(subject, loss, domain, held_back, hooks);
  subject.expert->finish_pass();

  subject.expert->prepare(TENON_INFERENCE);
  const HeldBack measure(subject, loss, domain, held_back);
  report.base_loss = measure.loss(0.0);
  hooks.say_begin("step length", kMostTrials, "trials at most");
  std::int64_t trials = 0;
  const StepLength found = search_step(
      [&](double step) {
        check_stop(hooks);
        hooks.say_update(++trials);
        return measure.loss(step);
      },
      report.base_loss, measure.first_step());
  hooks.say_end();
  report.step_length = found.step;
  report.loss = found.loss;
  subject.expert->prepare(TENON_TRAINING);
  subject.expert->scale_correction(found.step);
  return report;
}

} // namespace tenon
