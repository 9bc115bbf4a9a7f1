#include "host/evaluation/report.hpp"

#include <fmt/format.h>

#include <boost/json/value_from.hpp>
#include <cmath>

namespace tenon {
namespace {

json::value interval(const Estimate& estimate, bool exponent) {
  if (!estimate.low) return nullptr;
  const auto shown = [&](double value) { return exponent ? std::exp(value) : value; };
  return json::array{shown(*estimate.low), shown(*estimate.high)};
}

json::object score_json(const ArmScore& arm) {
  return {{"nll", arm.nll.mean},
          {"nll_95", interval(arm.nll, false)},
          {"perplexity", std::exp(arm.nll.mean)},
          {"perplexity_95", interval(arm.nll, true)},
          {"versus_base", arm.versus_base.mean},
          {"versus_base_95", interval(arm.versus_base, false)}};
}

json::object arms_json(const std::vector<ArmScore>& arms) {
  json::object out;
  for (const ArmScore& arm : arms) out[arm.arm] = score_json(arm);
  return out;
}

json::object corpus_json(const CorpusScore& corpus) {
  json::object loads;
  for (const Load& load : corpus.loads)
    loads[load.expert] = {{"mean_strength", load.mean_strength}, {"share_strongest", load.share_strongest}};
  return {{"name", corpus.name},
          {"role", corpus.role},
          {"digest", corpus.digest},
          {"blocks", corpus.blocks},
          {"tokens", corpus.tokens},
          {"work_skipped", corpus.work_skipped},
          {"gain_kept", corpus.gain_kept ? json::value(*corpus.gain_kept) : json::value(nullptr)},
          {"arms", arms_json(corpus.arms)},
          {"loads", loads}};
}

std::string number(double value) { return value < 1000 ? fmt::format("{:.2f}", value) : fmt::format("{:.0f}", value); }

std::string perplexity_text(const ArmScore& arm) {
  const std::string mean = number(std::exp(arm.nll.mean));
  if (!arm.nll.low) return mean;
  return mean + " [" + number(std::exp(*arm.nll.low)) + ", " + number(std::exp(*arm.nll.high)) + "]";
}

std::string versus_text(const ArmScore& arm) {
  if (arm.arm == "base") return "";
  const auto percent = [](double nats) { return 100 * (std::exp(nats) - 1); };
  std::string text = fmt::format("{:+.1f}%", percent(arm.versus_base.mean));
  if (arm.versus_base.low)
    text += fmt::format(" [{:+.1f}, {:+.1f}]", percent(*arm.versus_base.low), percent(*arm.versus_base.high));
  return text;
}

ReportTable perplexities(const Evaluation& evaluation) {
  ReportTable table{"Perplexity with 95% interval", {"arm"}, {}};
  for (const CorpusScore& corpus : evaluation.corpora) table.header.push_back(corpus.name);
  table.header.push_back("pooled");
  table.header.push_back("pooled, against base");
  for (const ArmScore& pooled : evaluation.pooled) {
    std::vector<std::string> row = {pooled.arm};
    for (const CorpusScore& corpus : evaluation.corpora) row.push_back(perplexity_text(corpus.arm(pooled.arm)));
    row.push_back(perplexity_text(pooled));
    row.push_back(versus_text(pooled));
    table.rows.push_back(std::move(row));
  }
  return table;
}

ReportTable loads(const Evaluation& evaluation) {
  ReportTable table{"Load: share of positions where an expert is strongest (mean strength)", {"corpus"}, {}};
  for (const std::string& expert : evaluation.experts) table.header.push_back(expert);
  table.header.push_back("gain kept");
  table.header.push_back("work skipped");
  for (const CorpusScore& corpus : evaluation.corpora) {
    std::vector<std::string> row = {corpus.name};
    for (const Load& load : corpus.loads)
      row.push_back(fmt::format("{:.2f} ({:.2f})", load.share_strongest, load.mean_strength));
    row.push_back(corpus.gain_kept ? fmt::format("{:.0f}%", 100 * *corpus.gain_kept) : "");
    row.push_back(fmt::format("{:.0f}%", 100 * corpus.work_skipped));
    table.rows.push_back(std::move(row));
  }
  return table;
}

} // namespace

json::object to_json(const Evaluation& evaluation, const std::vector<EvaluationVerdict>* verdicts) {
  json::array corpora, judged;
  for (const CorpusScore& corpus : evaluation.corpora) corpora.push_back(corpus_json(corpus));
  json::object out = {{"schema", 1},
                      {"experts", json::value_from(evaluation.experts)},
                      {"sequence_length", evaluation.sequence_length},
                      {"work_skipped", evaluation.work_skipped},
                      {"masked", json::value_from(evaluation.masked)},
                      {"corpora", corpora},
                      {"pooled", arms_json(evaluation.pooled)}};
  if (!verdicts) return out;
  bool passed = true;
  for (const EvaluationVerdict& one : *verdicts) {
    passed = passed && one.passed;
    judged.push_back(json::object{{"rule", one.rule},
                                  {"subject", one.subject},
                                  {"passed", one.passed},
                                  {"found", one.found},
                                  {"need", one.need}});
  }
  out["verdicts"] = judged;
  out["passed"] = passed;
  return out;
}

std::vector<ReportTable> tables(const Evaluation& evaluation, const std::vector<EvaluationVerdict>* verdicts) {
  std::vector<ReportTable> out = {perplexities(evaluation)};
  if (evaluation.experts.size() > 1) out.push_back(loads(evaluation));
  if (!verdicts) return out;
  ReportTable judged{"Verdicts", {"rule", "on", "verdict", "found", "need"}, {}};
  for (const EvaluationVerdict& one : *verdicts)
    judged.rows.push_back({one.rule, one.subject, one.passed ? "passed" : "FAILED", one.found, one.need});
  out.push_back(std::move(judged));
  return out;
}

} // namespace tenon
