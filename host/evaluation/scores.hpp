// What an evaluation found, as values: who was scored, how well, and how sure that is.
// Thread: values; any thread.
#pragma once

#include "host/evaluation/estimate.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tenon {

// How an expert comes by its output. on_base: it is given what the base says, or shares the base's weights, and starts
// from being the base. replacing: it stands in the base's place. The two are never pooled.
enum class ExpertForm { base, on_base, replacing };
const char* form_name(ExpertForm form); // "base", "on the base", "replacing"

struct EvaluatedExpert {
  std::string name;         // in the composition; of one that is only compared with, the name it was given
  std::string title;        // "legal 1.0.0"
  std::string architecture; // "tenon.low_rank"
  ExpertForm form = ExpertForm::on_base;
  bool composed = true;                        // false: no part of the composition, only compared with
  std::int64_t state_bytes = 0;                // its own stored weights; what it shares with the base is not counted
  std::optional<std::int64_t> training_tokens; // seen while it was trained, as its package says
};

// Negative log-likelihood per token, in nats.
struct ArmScore {
  std::string arm;
  Estimate nll;
  Estimate versus_base; // paired, block by block: below 0 is better than the base
  std::vector<double> block_nll;
};

// How much an expert was used by the router, position 0 left out.
struct Load {
  std::string expert;
  double mean_strength = 0, share_strongest = 0;
};

// How far the router is from choosing in hindsight: composed minus the oracle, in nats a token, paired by block. Below
// 0, mixing is better than choosing one.
struct Regret {
  Estimate corpus; // against the corpus oracle
  Estimate token;  // against the token oracle
};

// One block, token by token. Lists are of T tokens, or of the T-1 predictions: entry i is about token i + 1.
struct Passage {
  std::int64_t block = 0;
  std::vector<std::string> pieces;           // texts of the tokens, whole characters, UTF-8
  std::vector<std::vector<float>> strengths; // by slot
  std::vector<double> nll_base, nll_composed;
};

struct CorpusScore {
  std::string name, role, digest;
  std::int64_t blocks = 0, tokens = 0;
  std::vector<ArmScore> arms;
  std::vector<Load> loads;
  double work_skipped = 0;         // share of expert work that sparse execution leaves out
  std::optional<double> gain_kept; // (base - composed) / (base - own expert alone), in nats; of an expert's own domain
  std::string corpus_oracle;       // the arm it is: "base", "alone:legal"; "" without experts
  std::optional<Regret> regret;    // none without experts
  std::vector<Passage> passages;

  const ArmScore& arm(const std::string& name) const; // Errors: bug
};

// How often the right choice has the highest log-likelihood: plain, the sum over its tokens; normalised, that sum by
// the choice's bytes (acc and acc_norm of the LM evaluation harness: Gao et al., 2021).
struct ChoiceAccuracy {
  double share = 0;
  double low = 0, high = 0; // 95%, Wilson's score interval
  Estimate versus_base;     // difference of shares, paired by question: above 0 is better than the base
};

struct ChoiceArm {
  std::string arm; // "base", "composed", "alone:legal"
  ChoiceAccuracy plain, normalised;
};

struct ChoiceScore {
  std::string name, digest;
  std::int64_t questions = 0;
  double chance = 0; // the share that guessing would get right
  std::vector<ChoiceArm> arms;
};

struct Evaluation {
  std::vector<EvaluatedExpert> experts; // slot 0 the base, then the composition's, then those compared with
  std::int64_t sequence_length = 0;
  std::vector<CorpusScore> corpora;
  std::vector<ArmScore> pooled; // every corpus with equal weight; without block_nll
  std::string best_single;      // the arm of the composition's best expert over all corpora, in hindsight; "" without
  std::optional<Regret> regret; // pooled
  std::vector<ChoiceScore> choices;
  std::vector<std::string> masked;
  double work_skipped = 0;

  const ArmScore& pooled_arm(const std::string& name) const; // Errors: bug
  const EvaluatedExpert* expert(const std::string& name) const;
};

} // namespace tenon
