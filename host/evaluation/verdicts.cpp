#include "host/evaluation/verdicts.hpp"

#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tenon {
namespace {

constexpr double kRounding = 1e-5; // nats: two arms that mix the same outputs differ by less
constexpr double kGain = 0.10, kKept = 0.80, kGeneralLoss = 0.01, kLoad = 0.01;

std::string percent(double share) { return fmt::format("{:.1f}%", 100 * share); }

// By how much perplexity falls.
double fall(const ArmScore& arm) { return 1 - std::exp(arm.versus_base.mean); }

EvaluationVerdict gain_of(const CorpusScore& corpus) {
  const ArmScore& alone = corpus.arm("alone:" + corpus.role);
  const bool sure = alone.versus_base.high && *alone.versus_base.high < 0;
  return {"gain", corpus.name, fall(alone) >= kGain && sure,
          fmt::format("{} alone lowers perplexity by {}{}", corpus.role, percent(fall(alone)),
                      sure ? "" : ", interval holds 0"),
          "at least " + percent(kGain) + ", interval excluding 0"};
}

EvaluationVerdict kept_of(const CorpusScore& corpus) {
  return {
      "kept", corpus.name, corpus.gain_kept && *corpus.gain_kept >= kKept,
      corpus.gain_kept ? "composed keeps " + percent(*corpus.gain_kept) + " of the gain" : "there is no gain to keep",
      "at least " + percent(kKept)};
}

EvaluationVerdict load_of(const CorpusScore& corpus) {
  const auto own = std::find_if(corpus.loads.begin(), corpus.loads.end(),
                                [&](const Load& load) { return load.expert == corpus.role; });
  const double share = own == corpus.loads.end() ? 0.0 : own->share_strongest;
  return {"load", corpus.name, share >= kLoad,
          fmt::format("{} is the strongest at {} of positions{}", corpus.role, percent(share),
                      share >= kLoad ? "" : ", so it counts as not composed"),
          "at least " + percent(kLoad)};
}

EvaluationVerdict general_of(const CorpusScore& corpus) {
  const double worse = -fall(corpus.arm("composed"));
  return {"general", corpus.name, worse <= kGeneralLoss,
          worse > 0 ? "composed is " + percent(worse) + " worse than base"
                    : "composed is " + percent(-worse) + " better than base",
          "at most " + percent(kGeneralLoss) + " worse"};
}

EvaluationVerdict pooled_against(const Evaluation& evaluation, const std::string& other) {
  const double composed = evaluation.pooled_arm("composed").nll.mean, there = evaluation.pooled_arm(other).nll.mean;
  return {"pooled", other, composed < there - kRounding,
          fmt::format("pooled perplexity {:.2f}, {} {:.2f}", std::exp(composed), other, std::exp(there)),
          "composed lower"};
}

} // namespace

std::vector<EvaluationVerdict> judge(const Evaluation& evaluation) {
  std::vector<EvaluationVerdict> out;
  bool domains = false;
  for (const CorpusScore& corpus : evaluation.corpora) {
    if (corpus.role == "general") {
      out.push_back(general_of(corpus));
    } else if (!corpus.role.empty()) {
      domains = true;
      const EvaluatedExpert* expert = evaluation.expert(corpus.role);
      const bool replaces = expert && expert->form == ExpertForm::replacing;
      if (!replaces) out.push_back(gain_of(corpus));
      if (!replaces || corpus.gain_kept) out.push_back(kept_of(corpus));
      out.push_back(load_of(corpus));
    }
  }
  if (out.empty())
    throw Error(Code::usage, "evaluation", "found no corpus with a role, so there is nothing to check",
                "say whose domain a corpus is: --data NAME=PATH:EXPERT, or :general");
  if (domains)
    for (const ArmScore& arm : evaluation.pooled)
      if (arm.arm == "uniform" || arm.arm == "random") out.push_back(pooled_against(evaluation, arm.arm));
  return out;
}

} // namespace tenon
