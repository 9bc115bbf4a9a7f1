#include "host/training/stitches.hpp"

#include "host/training/least_squares.hpp"
#include "registry/base/error.hpp"

#include <ATen/ATen.h>

namespace tenon {
namespace {

struct Pair {
  at::Tensor down_FC, down_F, up_CF, up_C; // parameters of the expert
};

std::optional<Pair> find_stitches(const LoadedExpert& expert) {
  Pair pair;
  for (const ExpertParameter& parameter : expert.parameters()) {
    if (parameter.name == "stitch.down.weight") pair.down_FC = parameter.tensor;
    if (parameter.name == "stitch.down.bias") pair.down_F = parameter.tensor;
    if (parameter.name == "stitch.up.weight") pair.up_CF = parameter.tensor;
    if (parameter.name == "stitch.up.bias") pair.up_C = parameter.tensor;
  }
  const bool whole = pair.down_FC.defined() && pair.down_F.defined() && pair.up_CF.defined() && pair.up_C.defined();
  return whole ? std::optional(pair) : std::nullopt;
}

// One fit of all of its work: over the same blocks, reported as it goes.
class Fit {
 public:
  Fit(const Subject& subject, const Pair& pair, const Streams& domain, const std::optional<Streams>& general,
      const TrainingPlan::Stitch& options, const TrainingHooks& hooks)
      : subject_(subject), pair_(pair), options_(options), hooks_(hooks) {
    const auto take = [&](const Streams& streams) {
      const std::int64_t most = (options.max_positions + streams.length() - 1) / streams.length();
      for (std::int64_t i = 0; i < std::min(most, streams.size()); ++i) blocks_.emplace_back(&streams, i);
    };
    take(domain);
    if (general) take(*general);
  }

  double down();
  double up();

 private:
  template <class Visit>
  void each_block(const std::string& what, Visit&& visit) const;
  at::Tensor blocks_output(const std::string& what, std::int64_t first, std::int64_t count) const;
  static void assign(const at::Tensor& weight, const at::Tensor& bias, const LinearFit& fit) {
    at::Tensor(weight).copy_(fit.weight_FC);
    at::Tensor(bias).copy_(fit.bias_F);
  }

  const Subject& subject_;
  const Pair& pair_;
  const TrainingPlan::Stitch& options_;
  const TrainingHooks& hooks_;
  std::vector<std::pair<const Streams*, std::int64_t>> blocks_;
};

template <class Visit>
void Fit::each_block(const std::string& what, Visit&& visit) const {
  const std::int64_t length = blocks_.empty() ? 0 : blocks_.front().first->length();
  hooks_.say_begin(what, static_cast<std::int64_t>(blocks_.size()) * length, "tokens");
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    if (hooks_.stopped())
      throw Error(Code::interrupted, "train", "stopped while fitting the stitches", "run the same command again");
    visit(*blocks_[i].first, blocks_[i].second);
    hooks_.say_update(static_cast<std::int64_t>(i + 1) * length);
  }
  hooks_.say_end();
}

double Fit::down() {
  const Normalization normalization{subject_.model->statistics().mean_C, subject_.model->statistics().deviation_C};
  const Trunk entrance = subject_.source->entrance();
  LeastSquares squares;
  each_block("stitch down: " + subject_.source->title(), [&](const Streams& streams, std::int64_t i) {
    squares.add(normalization.apply(streams.h_TC(i)), entrance.forward(Batch::whole(streams.tokens_T(i).unsqueeze(0))));
  });
  const LinearFit fit = squares.solve(options_.ridge);
  assign(pair_.down_FC, pair_.down_F, fit);
  return fit.unexplained;
}

// Channels [first, first + count) of what the blocks say at all positions but the first of each block, (N,count): up
// passes them on as they are.
at::Tensor Fit::blocks_output(const std::string& what, std::int64_t first, std::int64_t count) const {
  at::Tensor up_CF(pair_.up_CF), up_C(pair_.up_C);
  up_C.zero_();
  up_CF.zero_().narrow(0, 0, count).narrow(1, first, count).fill_diagonal_(1.0);
  subject_.expert->prepare(TENON_INFERENCE);
  std::vector<at::Tensor> rows;
  each_block(what, [&](const Streams& streams, std::int64_t i) {
    const Batch batch = Batch::whole(streams.tokens_T(i).unsqueeze(0));
    const auto spans = batch.spans([](Sequence& sequence) -> ModuleState& { return sequence.experts[0]; });
    const at::Tensor y_TC = subject_.expert->forward(streams.h_TC(i), {}, spans);
    rows.push_back(y_TC.narrow(0, 1, streams.length() - 1).narrow(1, 0, count).clone());
  });
  return at::cat(rows);
}

double Fit::up() {
  const std::int64_t width = pair_.up_CF.size(0), inner = pair_.up_CF.size(1);
  std::vector<at::Tensor> parts;
  for (std::int64_t first = 0; first < inner; first += width)
    parts.push_back(blocks_output("stitch up", first, std::min(width, inner - first)));
  const at::Tensor y_NF = at::cat(parts, 1);
  LeastSquares squares;
  std::int64_t row = 0;
  for (const auto& [streams, i] : blocks_) {
    const std::int64_t count = streams->length() - 1;
    squares.add(y_NF.narrow(0, row, count), streams->base_TC(i).narrow(0, 1, count));
    row += count;
  }
  const LinearFit fit = squares.solve(options_.ridge);
  assign(pair_.up_CF, pair_.up_C, fit);
  subject_.expert->prepare(TENON_INFERENCE);
  return fit.unexplained;
}

} // namespace

StitchFit fit_stitches(const Subject& subject, const Streams& domain, const std::optional<Streams>& general,
                       const TrainingPlan::Stitch& options, const TrainingHooks& hooks) {
  at::NoGradGuard no_grad;
  const std::optional<Pair> pair = find_stitches(*subject.expert);
  StitchFit out;
  if (!pair) return out;
  Fit fit(subject, *pair, domain, general, options, hooks);
  if (subject.source) out.down = fit.down();
  if (!subject.expert->uses_base_output()) out.up = fit.up();
  return out;
}

} // namespace tenon
