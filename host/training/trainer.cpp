#include "host/training/trainer.hpp"

#include "host/model/random.hpp"
#include "registry/base/error.hpp"

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>

#include <cmath>

namespace tenon {
namespace {

// bfloat16 products in what the plugin and the head compute meanwhile; parameters stay float32.
class Autocast {
 public:
  explicit Autocast(bool on) : on_(on) {
    if (!on_) return;
    at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
    at::autocast::set_autocast_enabled(at::kCPU, true);
    at::autocast::increment_nesting();
  }
  Autocast(const Autocast&) = delete;
  ~Autocast() {
    if (!on_) return;
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, false);
  }

 private:
  bool on_;
};

// The i-th of the blocks in an endless order: each epoch is a new permutation of all of them.
std::int64_t in_order(std::int64_t i, std::int64_t blocks, std::int64_t seed, const std::string& name) {
  thread_local std::pair<std::string, std::vector<std::uint32_t>> kept;
  const std::string epoch =
      name + "/" + std::to_string(seed) + "/" + std::to_string(blocks) + "/" + std::to_string(i / blocks);
  if (kept.first != epoch)
    kept = {epoch, permutation(RandomStream(static_cast<std::uint64_t>(seed), name + "/" + std::to_string(i / blocks)),
                               static_cast<std::size_t>(blocks))};
  return kept.second[static_cast<std::size_t>(i % blocks)];
}

// Exactly this share of all sequences, spread evenly.
bool is_alone(std::int64_t i, double share) {
  return std::floor(static_cast<double>(i + 1) * share) > std::floor(static_cast<double>(i) * share);
}

std::vector<tenon_span> whole_spans(const Batch& batch) {
  return batch.spans([](Sequence& sequence) -> ModuleState& { return sequence.experts[0]; });
}

NamedTensors with_prefix(const std::string& prefix, const NamedTensors& tensors) {
  NamedTensors out;
  for (const auto& [name, tensor] : tensors) out.emplace_back(prefix + name, tensor);
  return out;
}

void append(NamedTensors& out, const NamedTensors& more) { out.insert(out.end(), more.begin(), more.end()); }

} // namespace

at::Tensor mixture_strengths(const at::Tensor& n_NC, const at::Tensor& r_C, const at::Tensor& b_1,
                             std::int64_t length) {
  at::Tensor not_first_BT = at::ones({n_NC.size(0) / length, length});
  not_first_BT.select(1, 0).zero_();
  return at::sigmoid(n_NC.mv(r_C) + b_1) * not_first_BT.view({-1});
}

at::Tensor mix(const at::Tensor& y_NC, const at::Tensor& base_NC, const at::Tensor& w_N) {
  const at::Tensor w_N1 = w_N.unsqueeze(1);
  return w_N1 * y_NC + (1 - w_N1) * base_NC;
}

Trainer::Trainer(const TrainingPlan& plan, const Subject& subject, Streams domain, std::optional<Streams> general,
                 Row row)
    : plan_(plan),
      subject_(subject),
      domain_(std::move(domain)),
      general_(std::move(general)),
      normalization_{subject.model->statistics().mean_C, subject.model->statistics().deviation_C},
      r_C_(row.r_C.detach().clone()),
      b_1_(at::full({1}, row.b, at::kFloat)),
      head_(plan.train.bfloat16 ? subject.model->head_in_bfloat16() : subject.model->head()),
      loss_(head_.unembedding_VC(), plan.train.bfloat16),
      optimizer_(subject.trainable(), plan.train.weight_decay) {
  if (plan.row.objective != RowObjective::domain) {
    r_C_.set_requires_grad(true);
    b_1_.set_requires_grad(true);
    row_optimizer_.emplace(NamedTensors{{"row.r", r_C_}, {"row.b", b_1_}}, 0.0);
  }
  subject_.expert->prepare(TENON_TRAINING);
}

StepReport Trainer::step(std::int64_t step) {
  StepReport report;
  report.step = step;
  report.general = plan_.is_general_step(step) && general_ && general_->size() > 0;
  optimizer_.clear_gradients();
  if (row_optimizer_) row_optimizer_->clear_gradients();
  const std::int64_t a_step = plan_.train.batch * plan_.train.accumulate,
                     general_before = plan_.general_steps_before(step);
  const std::int64_t first = (report.general ? general_before : step - general_before) * a_step;
  const std::int64_t scored = report.general ? 0 : scored_in_step(first);
  for (std::int64_t i = 0; i < plan_.train.accumulate; ++i) {
    const std::int64_t at = first + i * plan_.train.batch;
    if (report.general) {
      general_loss(general_batch(at), report);
    } else {
      const Micro micro = domain_batch(at);
      domain_loss(micro, static_cast<double>(micro.scored_K.size(0)) / static_cast<double>(scored), report);
    }
  }
  average_gradients();
  update(report);
  return report;
}

// Every batch went back at its full weight, so that what modules add to gradients by themselves counts as a mean, too.
void Trainer::average_gradients() {
  if (plan_.train.accumulate == 1) return;
  const auto average = [&](const NamedTensors& parameters) {
    for (const auto& [name, parameter] : parameters)
      if (parameter.grad().defined()) parameter.mutable_grad().div_(static_cast<double>(plan_.train.accumulate));
  };
  average(optimizer_.parameters());
  if (row_optimizer_) average(row_optimizer_->parameters());
}

Trainer::Micro Trainer::domain_batch(std::int64_t first) const {
  std::vector<std::int64_t> blocks;
  at::Tensor alone_B = at::zeros({plan_.train.batch}, at::kBool);
  for (std::int64_t i = 0; i < plan_.train.batch; ++i) {
    blocks.push_back(in_order(first + i, domain_.size(), plan_.train.seed, "order"));
    if (is_alone(first + i, plan_.train.alone_share)) alone_B[i].fill_(true);
  }
  Micro micro = gather(domain_, blocks);
  micro.alone_B = alone_B;
  return micro;
}

Trainer::Micro Trainer::general_batch(std::int64_t first) const {
  std::vector<std::int64_t> blocks;
  for (std::int64_t i = 0; i < plan_.train.batch; ++i)
    blocks.push_back(in_order(first + i, general_->size(), plan_.train.seed, "general order"));
  Micro micro = gather(*general_, blocks);
  micro.alone_B = at::zeros({plan_.train.batch}, at::kBool);
  return micro;
}

// Every position that counts weighs the same in a step, however they are spread over its batches.
std::int64_t Trainer::scored_in_step(std::int64_t first) const {
  std::int64_t scored = 0;
  for (std::int64_t i = first; i < first + plan_.train.batch * plan_.train.accumulate; ++i)
    scored += domain_.scored(in_order(i, domain_.size(), plan_.train.seed, "order")).size(0);
  return scored;
}

// One block is used where it is mapped; several are put side by side.
Trainer::Micro Trainer::gather(const Streams& streams, const std::vector<std::int64_t>& blocks) const {
  std::vector<at::Tensor> tokens, h, base, scored;
  std::vector<std::uint32_t> numbers;
  for (const std::int64_t block : blocks) {
    numbers.push_back(streams.number(block));
    tokens.push_back(streams.tokens_T(block));
    h.push_back(streams.h_TC(block));
    base.push_back(streams.base_TC(block));
    scored.push_back(streams.scored(block) + static_cast<std::int64_t>(scored.size()) * streams.length());
  }
  return {at::stack(tokens),
          h.size() == 1 ? h[0] : at::cat(h),
          base.size() == 1 ? base[0] : at::cat(base),
          {},
          at::cat(scored),
          numbers};
}

at::Tensor Trainer::middle(const Micro& micro, const Batch& batch) const {
  const std::int64_t length = micro.tokens_BT.size(1);
  at::Tensor w_N = mixture_strengths(normalization_.apply(micro.h_NC), r_C_, b_1_, length);
  at::Tensor alone_BT = micro.alone_B.unsqueeze(1).expand({-1, length}).clone();
  alone_BT.select(1, 0).fill_(false);
  w_N = at::where(alone_BT.reshape({-1}), at::ones({}), w_N);
  const auto spans = whole_spans(batch);
  return mix(subject_.expert->forward(micro.h_NC, micro.base_NC, spans), micro.base_NC, w_N);
}

void Trainer::domain_loss(const Micro& micro, double share, StepReport& report) {
  report.blocks.insert(report.blocks.end(), micro.blocks.begin(), micro.blocks.end());
  const std::int64_t sequences = micro.tokens_BT.size(0), length = micro.tokens_BT.size(1);
  const Batch batch = Batch::whole(micro.tokens_BT);
  at::Tensor features_NC;
  {
    const Autocast autocast(plan_.train.bfloat16);
    features_NC = head_.features_with_gradient(middle(micro, batch), batch);
  }
  const at::Tensor from_KC = features_NC.index_select(0, micro.scored_K),
                   to_K = batch.tokens_N.index_select(0, micro.scored_K + 1);
  const at::Tensor loss = loss_.cross_entropy(from_KC.to(at::kFloat), to_K);
  const double value = loss.item<double>();
  report.loss += value * share;
  // Parts are told only where a batch is all one of them.
  const std::int64_t alone = micro.alone_B.sum().item<std::int64_t>();
  if (alone == sequences) report.alone = value;
  if (alone == 0) report.mixture = value;
  report.tokens += sequences * length;
  backward(loss * (share * static_cast<double>(plan_.train.accumulate)));
}

void Trainer::general_loss(const Micro& micro, StepReport& report) {
  report.blocks.insert(report.blocks.end(), micro.blocks.begin(), micro.blocks.end());
  const Batch batch = Batch::whole(micro.tokens_BT);
  at::Tensor features_NC, base_features_NC;
  {
    const Autocast autocast(plan_.train.bfloat16);
    {
      at::NoGradGuard no_grad; // in the precision of the other side
      base_features_NC = head_.features_with_gradient(micro.base_NC, batch);
    }
    features_NC = head_.features_with_gradient(middle(micro, batch), batch);
  }
  const at::Tensor loss = loss_.divergence(features_NC.to(at::kFloat), base_features_NC.to(at::kFloat));
  const double value = loss.item<double>(), share = plan_.train.kl_weight / static_cast<double>(plan_.train.accumulate);
  report.loss += value * share;
  report.divergence = report.divergence.value_or(0.0) + value / static_cast<double>(plan_.train.accumulate);
  report.tokens += batch.size();
  backward(loss * (share * static_cast<double>(plan_.train.accumulate)));
}

// The plugin's part of it runs outside any thunk, so what it throws is caught here.
void Trainer::backward(const at::Tensor& loss) {
  const double value = loss.item<double>();
  if (!std::isfinite(value))
    throw Error(Code::numeric, "train", "the loss is not finite",
                "lower the learning rate with --set train.learning_rate=..., in a new folder");
  try {
    loss.backward();
  } catch (const c10::Error& problem) {
    throw Error(Code::plugin, subject_.expert->title(),
                std::string("failed in backward: ") + problem.what_without_backtrace());
  } catch (const std::exception& problem) {
    throw Error(Code::plugin, subject_.expert->title(), std::string("failed in backward: ") + problem.what());
  }
}

void Trainer::update(StepReport& report) {
  report.gradient_norm = gradient_norm(optimizer_.parameters());
  report.learning_rate =
      plan_.train.learning_rate * schedule(report.step, plan_.train.steps, plan_.train.warmup, plan_.train.floor);
  if (!std::isfinite(report.gradient_norm))
    throw Error(Code::numeric, "train", "the gradient is not finite",
                "lower the learning rate with --set train.learning_rate=..., in a new folder");
  clip_gradients(optimizer_.parameters(), report.gradient_norm, plan_.train.clip);
  optimizer_.step(report.step + 1, report.learning_rate);
  if (row_optimizer_)
    row_optimizer_->step(report.step + 1, plan_.row.learning_rate * report.learning_rate / plan_.train.learning_rate);
}

Row Trainer::row() const { return {r_C_.detach().clone(), b_1_.item<double>()}; }

NamedTensors Trainer::tensors() const {
  NamedTensors out = with_prefix("parameter/", optimizer_.parameters());
  append(out, optimizer_.state());
  append(out, {{"row/r", r_C_.detach()}, {"row/b", b_1_.detach()}});
  if (row_optimizer_) append(out, row_optimizer_->state());
  return out;
}

} // namespace tenon
