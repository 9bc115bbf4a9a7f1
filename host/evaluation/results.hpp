// An evaluation as JSON, and as tables for people.
//
// {"schema": 1, "sequence_length": T, "work_skipped": 0..1, "masked": [names],
//  "experts": [{"name", "title", "architecture", "form": "base" | "on the base" | "replacing", "composed": bool,
//               "state_bytes", "training_tokens": number or null}],
//  "corpora": [{"name", "role", "digest", "blocks", "tokens", "work_skipped", "gain_kept": number or null,
//               "arms": {ARM: SCORE}, "loads": {EXPERT: {"mean_strength", "share_strongest"}},
//               "corpus_oracle": ARM or null, "regret": REGRET or null,
//               "passages": [{"block", "pieces": [T texts], "strengths": [[E] x T-1], "nll_base": [T-1],
//                             "nll_composed": [T-1]}]}],        (passages only where some were asked for)
//  "pooled": {ARM: SCORE}, "best_single": ARM or null, "regret": REGRET or null,
//  "claims": {EXPERT: {CORPUS: {"percent", "percent_95": [low, high] or null}}},
//  "choices": [{"name", "digest", "questions", "chance", "arms": {ARM: {"plain": ACCURACY, "normalised": ACCURACY}}}],
//  "verdicts": [{"rule", "subject", "passed", "found", "need"}], "passed": bool}     (the last two only with verdicts)
// SCORE: {"nll", "nll_95": [low, high] or null, "perplexity", "perplexity_95": ..., "versus_base", "versus_base_95"};
// nll in nats a token; versus_base is the difference of nll, paired by block.
// REGRET: {"corpus", "corpus_95", "token", "token_95"}: composed minus the oracle, in nats a token.
// ACCURACY: {"accuracy", "accuracy_95", "versus_base", "versus_base_95"}: shares of the questions.
// claims: by how many percent an expert alone changes a corpus's perplexity; below 0 is better than the base.
#pragma once

#include "host/evaluation/verdicts.hpp"
#include "registry/base/json.hpp"

namespace tenon {

json::object to_json(const Evaluation& evaluation, const std::vector<EvaluationVerdict>* verdicts = nullptr);

struct ResultTable {
  std::string title;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
};
// Perplexity per corpus and arm, with intervals; each expert alone, those on the base apart from those that replace it;
// how the load falls; multiple choice; the verdicts. Those with nothing to show are left out.
std::vector<ResultTable> tables(const Evaluation& evaluation, const std::vector<EvaluationVerdict>* verdicts = nullptr);

// The arms of the first table, in its order, each with the words it is called by: "best single: legal".
std::vector<std::pair<std::string, std::string>> shown_arms(const Evaluation& evaluation);

std::string perplexity_text(const ArmScore& arm);    // "22.53 [20.10, 25.20]"
std::string change_text(const Estimate& difference); // of nats, as a change of perplexity: "-76.2% [-77.0, -75.4]"
std::string bytes_text(std::int64_t bytes);          // "1.8 MB"
std::string count_text(std::int64_t count);          // "41.0k"

} // namespace tenon
