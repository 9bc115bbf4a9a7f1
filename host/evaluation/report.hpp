// An evaluation as JSON, and as tables for people.
//
// {"schema": 1, "experts": ["base", ...], "sequence_length": T, "work_skipped": 0..1, "masked": [names],
//  "corpora": [{"name", "role", "digest", "blocks", "tokens", "work_skipped", "gain_kept": number or null,
//               "arms": {ARM: SCORE}, "loads": {EXPERT: {"mean_strength", "share_strongest"}}}],
//  "pooled": {ARM: SCORE},
//  "verdicts": [{"rule", "subject", "passed", "found", "need"}], "passed": bool}     (the last two only with verdicts)
// SCORE: {"nll", "nll_95": [low, high] or null, "perplexity", "perplexity_95": ..., "versus_base", "versus_base_95"};
// nll in nats a token; versus_base is the difference of nll, paired by block.
#pragma once

#include "host/evaluation/evaluate.hpp"
#include "registry/base/json.hpp"

namespace tenon {

json::object to_json(const Evaluation& evaluation, const std::vector<EvaluationVerdict>* verdicts = nullptr);

struct ReportTable {
  std::string title;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
};
// Perplexity per corpus and arm, with intervals; then how the load falls; then the verdicts, if there are any.
std::vector<ReportTable> tables(const Evaluation& evaluation, const std::vector<EvaluationVerdict>* verdicts = nullptr);

} // namespace tenon
