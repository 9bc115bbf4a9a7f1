#include "host/evaluation/evaluate.hpp"

#include "host/evaluation/arms.hpp"
#include "host/evaluation/choice_scores.hpp"
#include "host/evaluation/replay.hpp"
#include "host/evaluation/scorer.hpp"
#include "host/evaluation/tally.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <set>

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

// `wanted` of the blocks, from the middle of each of as many stretches.
std::vector<std::size_t> shown_of(const std::vector<std::size_t>& blocks, std::int64_t wanted) {
  std::vector<std::size_t> out;
  const std::size_t count = std::min(blocks.size(), static_cast<std::size_t>(std::max<std::int64_t>(wanted, 0)));
  for (std::size_t i = 0; i < count; ++i) out.push_back(blocks[(2 * i + 1) * blocks.size() / (2 * count)]);
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
  check_tokenizer(corpus, composition.model());
  if (corpus.tokens.block_count(static_cast<std::size_t>(options.sequence_length)) == 0)
    fail(Code::usage,
         fmt::format("found {} tokens, need at least one block of {}", corpus.tokens.tokens().size(),
                     options.sequence_length),
         "give more text, or a smaller --sequence-length");
  if (const std::size_t packed = corpus.tokens.packed_length();
      packed != 0 && packed != static_cast<std::size_t>(options.sequence_length))
    fail(Code::usage,
         fmt::format("found dialogues packed in blocks of {} tokens, asked for blocks of {}", packed,
                     options.sequence_length),
         fmt::format("use --sequence-length {}, or give the dialogues themselves", packed));
}

void check_input(const Composition& composition, const EvaluationInput& input, const EvaluationOptions& options) {
  if (options.sequence_length < 2)
    throw Error(Code::usage, kUnit, fmt::format("found sequence length {}, need at least 2", options.sequence_length));
  if (input.corpora.empty() && input.choices.empty())
    throw Error(Code::usage, kUnit, "found nothing to measure on, need a corpus or questions",
                "give --data NAME=PATH or --choices FILE");
  for (const EvaluationCorpus& corpus : input.corpora) check_corpus(corpus, composition, options);
  std::set<std::string> names;
  for (const ExpertPackage& package : composition.packages()) names.insert(package.entry.name);
  for (const VersusExpert& one : input.versus)
    if (!names.insert(one.name).second)
      throw Error(Code::usage, kUnit, "found the name " + one.name + " twice",
                  "give --versus another name: NAME=EXPERT");
}

EvaluatedExpert evaluated(const ExpertPackage& package, const std::string& name, bool is_base, bool composed) {
  EvaluatedExpert out{name, package.entry.title(), package.manifest.architecture, ExpertForm::base, composed, 0, {}};
  const std::vector<ExpertParameter> parameters = package.expert->parameters();
  const bool shares = std::any_of(parameters.begin(), parameters.end(),
                                  [](const ExpertParameter& parameter) { return parameter.shared.has_value(); });
  if (!is_base) out.form = package.expert->uses_base_output() || shares ? ExpertForm::on_base : ExpertForm::replacing;
  for (const FileRecord& file : package.entry.files_with_role("weights"))
    out.state_bytes += static_cast<std::int64_t>(file.size_bytes);
  const json::value* tokens = package.manifest.provenance.if_contains("training_tokens");
  if (tokens && tokens->is_int64()) out.training_tokens = tokens->as_int64();
  return out;
}

std::vector<EvaluatedExpert> evaluated_experts(const Composition& composition, const EvaluationInput& input) {
  std::vector<EvaluatedExpert> out;
  for (const ExpertPackage& package : composition.packages())
    out.push_back(evaluated(package, package.entry.name, out.empty(), true));
  for (const VersusExpert& one : input.versus) out.push_back(evaluated(one.package, one.name, false, false));
  return out;
}

Batch batch_of(const Shard& shard, std::span<const std::size_t> blocks, std::int64_t length) {
  at::Tensor tokens_BT = at::empty({static_cast<std::int64_t>(blocks.size()), length}, at::kLong);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const auto block = shard.block(blocks[i], static_cast<std::size_t>(length));
    std::copy(block.begin(), block.end(), tokens_BT[static_cast<std::int64_t>(i)].data_ptr<std::int64_t>());
  }
  return Batch::whole(tokens_BT);
}

Counted counted_of(const Shard& shard, std::span<const std::size_t> blocks, std::int64_t length) {
  Counted out{at::zeros({static_cast<std::int64_t>(blocks.size()), length - 1}, at::kDouble), {}};
  double* next = out.next_BT.data_ptr<double>();
  for (const std::size_t block : blocks) {
    const std::size_t first = block * static_cast<std::size_t>(length);
    out.text.push_back(static_cast<std::int64_t>(shard.block_text(block, static_cast<std::size_t>(length))));
    for (std::int64_t t = 1; t < length; ++t) *next++ = shard.counts(first + static_cast<std::size_t>(t)) ? 1.0 : 0.0;
  }
  return out;
}

// One evaluation of corpora: what stays the same from batch to batch.
class CorpusScorer {
 public:
  CorpusScorer(Composition& composition, const EvaluationInput& input, const EvaluationOptions& options)
      : composition_(composition),
        options_(options),
        arm_options_{options.random_rows, options.seed, true, options.removals, {}} {
    for (const VersusExpert& one : input.versus) {
      arm_options_.versus.push_back(one.name);
      versus_.push_back(one.package.expert);
    }
  }

  void score(const EvaluationCorpus& corpus, std::span<const std::size_t> blocks, Tally& tally, Work& work) {
    at::NoGradGuard no_grad;
    const Batch batch = batch_of(corpus.tokens, blocks, options_.sequence_length);
    const Counted counted = counted_of(corpus.tokens, blocks, options_.sequence_length);
    const at::Tensor h_NC = composition_.model().trunk().forward(batch);
    const auto outputs = dense_outputs(composition_.experts(), h_NC, batch, versus_);
    std::vector<Arm> arms = make_arms(composition_, h_NC, batch, arm_options_);
    if (options_.replay) arms.push_back({"replayed", {options_.replay->blocks(corpus.name, blocks)}});
    tally.add(batch, blocks, counted, arms, losses(arms, outputs, batch), composition_.model().tokenizer());
    for (const Arm& arm : arms) {
      if (arm.name != "composed") continue;
      work += sparse_work(arm.strengths_NE[0], composition_.experts(), batch);
    }
  }

 private:
  // Of each arm, (B,T-1): the mean over its strengths.
  std::vector<at::Tensor> losses(const std::vector<Arm>& arms, const std::vector<at::Tensor>& outputs,
                                 const Batch& batch) const {
    std::vector<at::Tensor> mixes, out;
    for (const Arm& arm : arms)
      for (const at::Tensor& w_NE : arm.strengths_NE) mixes.push_back(mix(w_NE, outputs));
    const std::vector<at::Tensor> nll_P = Scorer(composition_.model().head(), batch)(mixes);
    std::size_t next = 0;
    for (const Arm& arm : arms) {
      at::Tensor sum_P = nll_P[next++];
      for (std::size_t i = 1; i < arm.strengths_NE.size(); ++i) sum_P = sum_P + nll_P[next++];
      const auto sequences = static_cast<std::int64_t>(batch.rows.size());
      out.push_back((sum_P / static_cast<double>(arm.strengths_NE.size())).view({sequences, -1}));
    }
    return out;
  }

  Composition& composition_;
  const EvaluationOptions& options_;
  ArmOptions arm_options_;
  LoadedExperts versus_;
};

std::optional<double> gain_kept(const CorpusScore& score) {
  if (score.role.empty() || score.role == "general") return std::nullopt;
  const double base = score.arm("base").nll.mean, alone = score.arm("alone:" + score.role).nll.mean;
  if (!(alone < base)) return std::nullopt;
  return (base - score.arm("composed").nll.mean) / (base - alone);
}

template <class Select>
Estimate pooled(const std::vector<CorpusScore>& corpora, Select&& select) {
  std::vector<Estimate> all;
  for (const CorpusScore& corpus : corpora) all.push_back(select(corpus));
  return pool(all);
}

void pool_corpora(Evaluation& out) {
  if (out.corpora.empty()) return;
  for (const ArmScore& first : out.corpora.front().arms)
    out.pooled.push_back({first.arm,
                          pooled(out.corpora, [&](const auto& one) { return one.arm(first.arm).nll; }),
                          pooled(out.corpora, [&](const auto& one) { return one.arm(first.arm).versus_base; }),
                          {}});
  for (const EvaluatedExpert& expert : out.experts) {
    if (!expert.composed || expert.form == ExpertForm::base) continue;
    const std::string arm = "alone:" + expert.name;
    if (out.best_single.empty() || out.pooled_arm(arm).nll.mean < out.pooled_arm(out.best_single).nll.mean)
      out.best_single = arm;
  }
  if (out.corpora.front().regret)
    out.regret = Regret{pooled(out.corpora, [](const auto& one) { return one.regret->corpus; }),
                        pooled(out.corpora, [](const auto& one) { return one.regret->token; })};
}

const ArmScore& find_arm(const std::vector<ArmScore>& arms, const std::string& name) {
  for (const ArmScore& arm : arms)
    if (arm.arm == name) return arm;
  throw Error(Code::bug, kUnit, "there is no arm " + name);
}

// Scores every corpus; returns the work over all of them.
Work score_corpora(Composition& composition, const EvaluationInput& input, const EvaluationOptions& options,
                   Evaluation& out) {
  std::vector<std::vector<std::size_t>> blocks;
  std::int64_t total = 0, done = 0;
  for (const EvaluationCorpus& corpus : input.corpora) {
    const std::size_t there = corpus.tokens.block_count(static_cast<std::size_t>(options.sequence_length));
    blocks.push_back(spread(there, options.blocks));
    total += static_cast<std::int64_t>(blocks.back().size());
  }
  std::vector<std::string> names;
  for (const ExpertPackage& package : composition.packages()) names.push_back(package.entry.name);
  CorpusScorer scorer(composition, input, options);
  Work everywhere;
  const auto at_once = static_cast<std::size_t>(std::max<std::int64_t>(1, kRowsAtOnce / options.sequence_length));
  for (std::size_t i = 0; i < input.corpora.size(); ++i) {
    const EvaluationCorpus& corpus = input.corpora[i];
    CorpusScore score;
    score.name = corpus.name, score.role = corpus.role, score.digest = corpus.tokens.digest();
    score.blocks = static_cast<std::int64_t>(blocks[i].size());
    Tally tally(names, shown_of(blocks[i], options.passages));
    Work work;
    for (std::size_t first = 0; first < blocks[i].size(); first += at_once) {
      if (options.interrupted && options.interrupted())
        throw Error(Code::interrupted, kUnit, "stopped; nothing was kept");
      const auto some = std::span(blocks[i]).subspan(first, std::min(at_once, blocks[i].size() - first));
      scorer.score(corpus, some, tally, work);
      done += static_cast<std::int64_t>(some.size());
      if (options.progress) options.progress("blocks", done, total);
    }
    tally.finish(score);
    score.gain_kept = gain_kept(score);
    score.work_skipped = work.skipped();
    everywhere += work;
    out.corpora.push_back(std::move(score));
  }
  return everywhere;
}

} // namespace

void check_tokenizer(const EvaluationCorpus& corpus, const Model& model) {
  if (corpus.tokens.tokenizer_digest() == model.tokenizer().digest()) return;
  throw Error(Code::incompatible, kUnit,
              corpus.name + ": found tokens of tokenizer " + corpus.tokens.tokenizer_digest() + ", the model has " +
                  model.tokenizer().digest(),
              "give the text itself, or a shard made for this model");
}

const char* form_name(ExpertForm form) {
  switch (form) {
    case ExpertForm::base: return "base";
    case ExpertForm::on_base: return "on the base";
    case ExpertForm::replacing: return "replacing";
  }
  return "";
}

const ArmScore& CorpusScore::arm(const std::string& wanted) const { return find_arm(arms, wanted); }
const ArmScore& Evaluation::pooled_arm(const std::string& wanted) const { return find_arm(pooled, wanted); }

const EvaluatedExpert* Evaluation::expert(const std::string& wanted) const {
  for (const EvaluatedExpert& one : experts)
    if (one.name == wanted) return &one;
  return nullptr;
}

Evaluation evaluate(Composition& composition, const EvaluationInput& input, const EvaluationOptions& options) {
  check_input(composition, input, options);
  Evaluation out;
  out.sequence_length = options.sequence_length;
  out.experts = evaluated_experts(composition, input);
  out.work_skipped = score_corpora(composition, input, options, out).skipped();
  pool_corpora(out);
  for (const ChoiceSet& set : input.choices)
    out.choices.push_back(score_choices(composition, input.versus, set, options));
  for (std::size_t slot = 0; slot < composition.packages().size(); ++slot)
    if (composition.experts().masked(slot)) out.masked.push_back(out.experts[slot].name);
  return out;
}

} // namespace tenon
