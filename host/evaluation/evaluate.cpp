#include "host/evaluation/evaluate.hpp"

#include "host/evaluation/arms.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tenon {
namespace {

constexpr std::int64_t kRowsAtOnce = 1024; // of the trunk and the experts
const char* const kUnit = "evaluation";

// `wanted` of `there` blocks, evenly spread over the text.
std::vector<std::size_t> spread(std::size_t there, std::int64_t wanted) {
  const std::size_t count = wanted > 0 ? std::min(there, static_cast<std::size_t>(wanted)) : there;
  std::vector<std::size_t> out(count);
  for (std::size_t i = 0; i < count; ++i) out[i] = i * there / count;
  return out;
}

void check_corpus(const EvaluationCorpus& corpus, const Composition& composition, const EvaluationOptions& options) {
  const auto fail = [&](Code code, const std::string& message, const std::string& remedy) {
    throw Error(code, kUnit, corpus.name + ": " + message, remedy);
  };
  const auto& packages = composition.packages();
  const auto is_role = [&](const ExpertPackage& package) { return package.entry.name == corpus.role; };
  if (!corpus.role.empty() && corpus.role != "general" && std::none_of(packages.begin() + 1, packages.end(), is_role))
    fail(Code::usage, "found the role \"" + corpus.role + "\", which is no expert of this composition",
         "name an expert, or general");
  if (corpus.tokens.tokenizer_digest() != composition.model().tokenizer().digest())
    fail(Code::incompatible,
         "found tokens of tokenizer " + corpus.tokens.tokenizer_digest() + ", the model has " +
             composition.model().tokenizer().digest(),
         "give the text itself, or a shard made for this model");
  if (corpus.tokens.block_count(static_cast<std::size_t>(options.sequence_length)) == 0)
    fail(Code::usage,
         fmt::format("found {} tokens, need at least one block of {}", corpus.tokens.tokens().size(),
                     options.sequence_length),
         "give more text, or a smaller --sequence-length");
}

// What one corpus adds up to, block after block.
class Tally {
 public:
  explicit Tally(std::vector<std::string> experts)
      : experts_(std::move(experts)), strength_(experts_.size(), 0.0), strongest_(experts_.size(), 0) {}

  void add(const std::string& arm, const std::vector<double>& blocks) {
    auto found = std::find_if(arms_.begin(), arms_.end(), [&](const ArmScore& score) { return score.arm == arm; });
    if (found == arms_.end()) found = arms_.insert(arms_.end(), ArmScore{arm, {}, {}, {}});
    found->block_nll.insert(found->block_nll.end(), blocks.begin(), blocks.end());
  }

  void add_loads(const at::Tensor& w_NE, const Batch& batch) {
    for (const BatchRows& rows : batch.rows) {
      const at::Tensor w_TE = w_NE.narrow(0, rows.offset + 1, rows.length - 1);
      const at::Tensor sums_E = w_TE.sum(0, false, at::kDouble), best_T = w_TE.argmax(1);
      for (std::size_t slot = 0; slot < experts_.size(); ++slot) {
        strength_[slot] += sums_E[static_cast<std::int64_t>(slot)].item<double>();
        strongest_[slot] += best_T.eq(static_cast<std::int64_t>(slot)).sum().item<std::int64_t>();
      }
      positions_ += rows.length - 1;
    }
  }

  void finish(CorpusScore& score) {
    const std::vector<double> base = arms_.front().block_nll; // make_arms puts the base first
    for (ArmScore& arm : arms_) {
      std::vector<double> difference(base.size());
      std::transform(arm.block_nll.begin(), arm.block_nll.end(), base.begin(), difference.begin(), std::minus<>());
      arm.nll = estimate(arm.block_nll);
      arm.versus_base = estimate(difference);
      if (!std::isfinite(arm.nll.mean))
        throw Error(Code::numeric, kUnit, score.name + ", " + arm.arm + ": the score is not finite");
    }
    const auto positions = static_cast<double>(positions_);
    for (std::size_t slot = 0; slot < experts_.size(); ++slot)
      score.loads.push_back(
          {experts_[slot], strength_[slot] / positions, static_cast<double>(strongest_[slot]) / positions});
    score.tokens = positions_;
    score.arms = std::move(arms_);
  }

 private:
  std::vector<std::string> experts_;
  std::vector<ArmScore> arms_;
  std::vector<double> strength_;
  std::vector<std::int64_t> strongest_;
  std::int64_t positions_ = 0;
};

Batch batch_of(const Shard& shard, std::span<const std::size_t> blocks, std::int64_t length) {
  at::Tensor tokens_BT = at::empty({static_cast<std::int64_t>(blocks.size()), length}, at::kLong);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const auto block = shard.block(blocks[i], static_cast<std::size_t>(length));
    std::copy(block.begin(), block.end(), tokens_BT[static_cast<std::int64_t>(i)].data_ptr<std::int64_t>());
  }
  return Batch::whole(tokens_BT);
}

std::vector<double> means_of_blocks(const at::Tensor& nll_BT) {
  const at::Tensor mean_B = nll_BT.mean(1).contiguous();
  return {mean_B.data_ptr<double>(), mean_B.data_ptr<double>() + mean_B.numel()};
}

// Scores of strengths over one batch; equal strengths are scored once.
class Scorer {
 public:
  Scorer(const Head& head, const std::vector<at::Tensor>& outputs, const Batch& batch)
      : head_(head), outputs_(outputs), batch_(batch) {}

  std::vector<double> operator()(const at::Tensor& w_NE) {
    for (const auto& [known, score] : done_)
      if (known.equal(w_NE)) return score;
    return done_.emplace_back(w_NE, means_of_blocks(next_token_nll(head_, mix(w_NE, outputs_), batch_))).second;
  }

 private:
  const Head& head_;
  const std::vector<at::Tensor>& outputs_;
  const Batch& batch_;
  std::vector<std::pair<at::Tensor, std::vector<double>>> done_;
};

void score_batch(Composition& composition, const Batch& batch, const EvaluationOptions& options, Tally& tally,
                 Work& work) {
  at::NoGradGuard no_grad;
  const at::Tensor h_NC = composition.model().trunk().forward(batch);
  const std::vector<at::Tensor> outputs = dense_outputs(composition.experts(), h_NC, batch);
  Scorer scorer(composition.model().head(), outputs, batch);
  for (const Arm& arm : make_arms(composition, h_NC, batch, {options.random_rows, options.seed, options.removals})) {
    std::vector<double> mean(batch.rows.size(), 0.0);
    for (const at::Tensor& w_NE : arm.strengths_NE) {
      const std::vector<double> score = scorer(w_NE);
      for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += score[i] / static_cast<double>(arm.strengths_NE.size());
    }
    tally.add(arm.name, mean);
    if (arm.name != "composed") continue;
    tally.add_loads(arm.strengths_NE[0], batch);
    const Work here = sparse_work(arm.strengths_NE[0], composition.experts(), batch);
    work.dense_rows += here.dense_rows;
    work.run_rows += here.run_rows;
  }
}

std::optional<double> gain_kept(const CorpusScore& score) {
  if (score.role.empty() || score.role == "general") return std::nullopt;
  const double base = score.arm("base").nll.mean, alone = score.arm("alone:" + score.role).nll.mean;
  if (!(alone < base)) return std::nullopt;
  return (base - score.arm("composed").nll.mean) / (base - alone);
}

std::vector<ArmScore> pool_arms(const std::vector<CorpusScore>& corpora) {
  std::vector<ArmScore> out;
  for (const ArmScore& first : corpora.front().arms) {
    std::vector<Estimate> nll, versus;
    for (const CorpusScore& corpus : corpora) {
      nll.push_back(corpus.arm(first.arm).nll);
      versus.push_back(corpus.arm(first.arm).versus_base);
    }
    out.push_back({first.arm, pool(nll), pool(versus), {}});
  }
  return out;
}

const ArmScore& find_arm(const std::vector<ArmScore>& arms, const std::string& name) {
  for (const ArmScore& arm : arms)
    if (arm.arm == name) return arm;
  throw Error(Code::bug, kUnit, "there is no arm " + name);
}

} // namespace

const ArmScore& CorpusScore::arm(const std::string& wanted) const { return find_arm(arms, wanted); }
const ArmScore& Evaluation::pooled_arm(const std::string& wanted) const { return find_arm(pooled, wanted); }

Evaluation evaluate(Composition& composition, const std::vector<EvaluationCorpus>& corpora,
                    const EvaluationOptions& options) {
  if (options.sequence_length < 2)
    throw Error(Code::usage, kUnit, fmt::format("found sequence length {}, need at least 2", options.sequence_length));
  if (corpora.empty()) throw Error(Code::usage, kUnit, "found no corpus, need at least one", "give --data NAME=PATH");
  Evaluation out;
  out.sequence_length = options.sequence_length;
  for (const ExpertPackage& package : composition.packages()) out.experts.push_back(package.entry.name);

  std::vector<std::vector<std::size_t>> blocks;
  std::int64_t total = 0, done = 0;
  for (const EvaluationCorpus& corpus : corpora) {
    check_corpus(corpus, composition, options);
    blocks.push_back(
        spread(corpus.tokens.block_count(static_cast<std::size_t>(options.sequence_length)), options.blocks));
    total += static_cast<std::int64_t>(blocks.back().size());
  }
  Work everywhere;
  const auto at_once = static_cast<std::size_t>(std::max<std::int64_t>(1, kRowsAtOnce / options.sequence_length));
  for (std::size_t i = 0; i < corpora.size(); ++i) {
    CorpusScore score{corpora[i].name,
                      corpora[i].role,
                      corpora[i].tokens.digest(),
                      static_cast<std::int64_t>(blocks[i].size()),
                      0,
                      {},
                      {},
                      0,
                      {}};
    Tally tally(out.experts);
    Work work;
    for (std::size_t first = 0; first < blocks[i].size(); first += at_once) {
      if (options.interrupted && options.interrupted())
        throw Error(Code::interrupted, kUnit, "stopped; nothing was kept");
      const auto some = std::span(blocks[i]).subspan(first, std::min(at_once, blocks[i].size() - first));
      score_batch(composition, batch_of(corpora[i].tokens, some, options.sequence_length), options, tally, work);
      done += static_cast<std::int64_t>(some.size());
      if (options.progress) options.progress(done, total);
    }
    tally.finish(score);
    score.gain_kept = gain_kept(score);
    score.work_skipped = work.skipped();
    everywhere.dense_rows += work.dense_rows;
    everywhere.run_rows += work.run_rows;
    out.corpora.push_back(std::move(score));
  }
  out.pooled = pool_arms(out.corpora);
  out.work_skipped = everywhere.skipped();
  for (std::size_t slot = 0; slot < out.experts.size(); ++slot)
    if (composition.experts().masked(slot)) out.masked.push_back(out.experts[slot]);
  return out;
}

} // namespace tenon
