#include "host/training/evidence.hpp"

#include "host/training/losses.hpp"
#include "host/training/trainer.hpp"
#include "registry/base/error.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <numeric>

namespace tenon {
namespace {

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// The 97.5% point of Student's t, by Cornish and Fisher's expansion around the normal (Abramowitz and Stegun 26.7.5);
// exact to three digits from five degrees of freedom on.
double student_975(double freedom) {
  const double z = 1.959963984540054, z3 = z * z * z, z5 = z3 * z * z, z7 = z5 * z * z;
  return z + (z3 + z) / (4 * freedom) + (5 * z5 + 16 * z3 + 3 * z) / (96 * freedom * freedom) +
         (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / (384 * freedom * freedom * freedom);
}

double block_loss(const Subject& subject, const VocabularyLoss& loss, const at::Tensor& m_NC, const Batch& batch,
                  const at::Tensor& scored_K) {
  const at::Tensor features_KC = subject.model->head().features(m_NC, batch).index_select(0, scored_K);
  return loss.cross_entropy_into(features_KC, batch.tokens_N.index_select(0, scored_K + 1), at::Tensor());
}

void measure_block(const Subject& subject, const Streams& streams, const VocabularyLoss& loss, std::int64_t i,
                   const Row& row, HeldOutLosses& out) {
  const Statistics& statistics = subject.model->statistics();
  const Batch batch = Batch::whole(streams.tokens_T(i).unsqueeze(0));
  const auto spans = batch.spans([](Sequence& sequence) -> ModuleState& { return sequence.experts[0]; });
  const at::Tensor h = streams.h_TC(i), base = streams.base_TC(i), y = subject.expert->forward(h, base, spans);
  const at::Tensor n = Normalization{statistics.mean_C, statistics.deviation_C}.apply(h), scored = streams.scored(i);
  const at::Tensor w = mixture_strengths(n, row.r_C, at::full({1}, row.b, at::kFloat), streams.length());
  at::Tensor alone = at::ones_like(w);
  alone[0].zero_();
  out.base.push_back(block_loss(subject, loss, base, batch, scored));
  out.alone.push_back(block_loss(subject, loss, mix(y, base, alone), batch, scored));
  out.mixture.push_back(block_loss(subject, loss, mix(y, base, w), batch, scored));
  out.mean_strength += w.narrow(0, 0, streams.text_length(i)).mean().item<double>();
  out.tokens += scored.size(0);
}

// How much lower b's perplexity is than a's, in percent, with its interval.
json::object gain_json(const std::vector<double>& base, const std::vector<double>& other) {
  const Interval nats = paired_difference(base, other);
  const auto percent = [](double difference) { return 100.0 * (1.0 - std::exp(difference)); };
  return {{"percent", percent(nats.mean)}, {"interval95", json::array{percent(nats.high), percent(nats.low)}}};
}

} // namespace

HeldOutLosses measure_held_out(const Subject& subject, const Streams& held_out, const Row& row, std::int64_t blocks,
                               const TrainingHooks& hooks) {
  at::NoGradGuard no_grad;
  subject.expert->prepare(TENON_INFERENCE);
  const VocabularyLoss loss(subject.model->head().unembedding_VC());
  const std::int64_t count = std::min(blocks, held_out.size());
  HeldOutLosses out;
  hooks.say_begin("held-out text", count * held_out.length(), "tokens");
  for (std::int64_t i = 0; i < count; ++i) {
    if (hooks.stopped())
      throw Error(Code::interrupted, "train", "stopped while measuring the expert",
                  "run the same command again to go on");
    measure_block(subject, held_out, loss, i, row, out);
    hooks.say_update((i + 1) * held_out.length());
  }
  hooks.say_end();
  out.mean_strength /= static_cast<double>(count);
  return out;
}

Interval paired_difference(const std::vector<double>& a, const std::vector<double>& b) {
  const auto n = static_cast<double>(a.size());
  std::vector<double> difference(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) difference[i] = b[i] - a[i];
  const double mean = mean_of(difference);
  double squares = 0.0;
  for (const double each : difference) squares += (each - mean) * (each - mean);
  const double half = student_975(n - 1) * std::sqrt(squares / (n - 1) / n);
  return {mean, mean - half, mean + half};
}

json::object evidence_json(const HeldOutLosses& losses, const std::string& data_digest) {
  const auto perplexity = [](const std::vector<double>& nats) { return std::exp(mean_of(nats)); };
  return {{"kind", "held-out perplexity"},
          {"data", data_digest},
          {"blocks", losses.base.size()},
          {"tokens", losses.tokens},
          {"perplexity",
           {{"base", perplexity(losses.base)},
            {"alone", perplexity(losses.alone)},
            {"mixture", perplexity(losses.mixture)}}},
          {"lower_than_base",
           {{"alone", gain_json(losses.base, losses.alone)}, {"mixture", gain_json(losses.base, losses.mixture)}}},
          {"mean_strength", losses.mean_strength}};
}

Profile profile_of(const Streams& streams, const Normalization& normalization) {
  at::NoGradGuard no_grad;
  at::Tensor sum, squares;
  Profile profile;
  for (std::int64_t i = 0; i < streams.size(); ++i) {
    const at::Tensor n = normalization.apply(streams.h_TC(i).narrow(0, 1, streams.text_length(i) - 1)).to(at::kDouble);
    sum = sum.defined() ? sum + n.sum(0) : n.sum(0);
    squares = squares.defined() ? squares + n.square().sum(0) : n.square().sum(0);
    profile.count += n.size(0);
  }
  const auto count = static_cast<double>(profile.count);
  const at::Tensor mean = sum / count;
  profile.mean_C = mean.to(at::kFloat);
  profile.deviation_C = (squares / count - mean.square()).clamp_min(0).sqrt().to(at::kFloat);
  return profile;
}

void write_profile(const std::filesystem::path& path, const Profile& profile) {
  write_weights(path, {{"mean", profile.mean_C}, {"deviation", profile.deviation_C}},
                {{"count", std::to_string(profile.count)}});
}

at::Tensor sample_positions(const Streams& streams, const Normalization& normalization, std::int64_t positions) {
  at::NoGradGuard no_grad;
  const std::int64_t all = streams.size() * (streams.length() - 1);
  std::vector<at::Tensor> rows;
  for (std::int64_t i = 0; i < streams.size(); ++i) {
    const std::int64_t a_block = streams.text_length(i) - 1;
    at::Tensor n = normalization.apply(streams.h_TC(i).narrow(0, 1, a_block));
    if (all > positions) {
      const std::int64_t share = (i + 1) * positions / streams.size() - i * positions / streams.size(),
                         take = std::min(share, a_block);
      const at::Tensor at_positions =
          (at::arange(take, at::kLong) * a_block).floor_divide(std::max<std::int64_t>(take, 1));
      n = n.index_select(0, at_positions);
    }
    rows.push_back(n);
  }
  return rows.empty() ? at::empty({0, normalization.mean_C.size(0)}) : at::cat(rows);
}

} // namespace tenon
