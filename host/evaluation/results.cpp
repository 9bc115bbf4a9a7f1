#include "host/evaluation/results.hpp"

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

json::value regret_json(const std::optional<Regret>& regret) {
  if (!regret) return nullptr;
  return json::object{{"corpus", regret->corpus.mean},
                      {"corpus_95", interval(regret->corpus, false)},
                      {"token", regret->token.mean},
                      {"token_95", interval(regret->token, false)}};
}

json::object passage_json(const Passage& passage) {
  return {{"block", passage.block},
          {"pieces", json::value_from(passage.pieces)},
          {"strengths", json::value_from(passage.strengths)},
          {"nll_base", json::value_from(passage.nll_base)},
          {"nll_composed", json::value_from(passage.nll_composed)}};
}

json::value name_or_null(const std::string& name) { return name.empty() ? json::value(nullptr) : json::value(name); }

json::object corpus_json(const CorpusScore& corpus) {
  json::object loads;
  for (const Load& load : corpus.loads)
    loads[load.expert] = {{"mean_strength", load.mean_strength}, {"share_strongest", load.share_strongest}};
  json::object out = {{"name", corpus.name},
                      {"role", corpus.role},
                      {"digest", corpus.digest},
                      {"blocks", corpus.blocks},
                      {"tokens", corpus.tokens},
                      {"work_skipped", corpus.work_skipped},
                      {"gain_kept", corpus.gain_kept ? json::value(*corpus.gain_kept) : json::value(nullptr)},
                      {"arms", arms_json(corpus.arms)},
                      {"loads", loads},
                      {"corpus_oracle", name_or_null(corpus.corpus_oracle)},
                      {"regret", regret_json(corpus.regret)}};
  json::array passages;
  for (const Passage& passage : corpus.passages) passages.push_back(passage_json(passage));
  if (!passages.empty()) out["passages"] = passages;
  return out;
}

json::array experts_json(const Evaluation& evaluation) {
  json::array out;
  for (const EvaluatedExpert& expert : evaluation.experts)
    out.push_back(json::object{
        {"name", expert.name},
        {"title", expert.title},
        {"architecture", expert.architecture},
        {"form", form_name(expert.form)},
        {"composed", expert.composed},
        {"state_bytes", expert.state_bytes},
        {"training_tokens", expert.training_tokens ? json::value(*expert.training_tokens) : json::value(nullptr)}});
  return out;
}

double percent(double nats) { return 100 * (std::exp(nats) - 1); }

json::object claims_json(const Evaluation& evaluation) {
  json::object out;
  for (const EvaluatedExpert& expert : evaluation.experts) {
    if (expert.form == ExpertForm::base) continue;
    json::object claims;
    for (const CorpusScore& corpus : evaluation.corpora) {
      const Estimate& change = corpus.arm("alone:" + expert.name).versus_base;
      json::value bounds = nullptr;
      if (change.low) bounds = json::array{percent(*change.low), percent(*change.high)};
      claims[corpus.name] = {{"percent", percent(change.mean)}, {"percent_95", bounds}};
    }
    out[expert.name] = claims;
  }
  return out;
}

json::object accuracy_json(const ChoiceAccuracy& accuracy) {
  return {{"accuracy", accuracy.share},
          {"accuracy_95", json::array{accuracy.low, accuracy.high}},
          {"versus_base", accuracy.versus_base.mean},
          {"versus_base_95", interval(accuracy.versus_base, false)}};
}

json::array choices_json(const Evaluation& evaluation) {
  json::array out;
  for (const ChoiceScore& set : evaluation.choices) {
    json::object arms;
    for (const ChoiceArm& arm : set.arms)
      arms[arm.arm] = {{"plain", accuracy_json(arm.plain)}, {"normalised", accuracy_json(arm.normalised)}};
    out.push_back(json::object{{"name", set.name},
                               {"digest", set.digest},
                               {"questions", set.questions},
                               {"chance", set.chance},
                               {"arms", arms}});
  }
  return out;
}

std::string number(double value) { return value < 1000 ? fmt::format("{:.2f}", value) : fmt::format("{:.0f}", value); }

std::string nats_text(const Estimate& estimate) {
  std::string text = fmt::format("{:+.3f}", estimate.mean);
  if (estimate.low) text += fmt::format(" [{:+.3f}, {:+.3f}]", *estimate.low, *estimate.high);
  return text;
}

std::vector<std::string> corpus_names(const Evaluation& evaluation, std::vector<std::string> first) {
  for (const CorpusScore& corpus : evaluation.corpora) first.push_back(corpus.name);
  return first;
}

ResultTable perplexities(const Evaluation& evaluation) {
  ResultTable table{"Perplexity with 95% interval", corpus_names(evaluation, {"arm"}), {}};
  table.header.push_back("pooled");
  table.header.push_back("pooled, against base");
  for (const auto& [arm, words] : shown_arms(evaluation)) {
    std::vector<std::string> row = {words};
    for (const CorpusScore& corpus : evaluation.corpora) row.push_back(perplexity_text(corpus.arm(arm)));
    const ArmScore& pooled = evaluation.pooled_arm(arm);
    row.push_back(perplexity_text(pooled));
    row.push_back(arm == "base" ? "" : change_text(pooled.versus_base));
    table.rows.push_back(std::move(row));
  }
  return table;
}

ResultTable alone(const Evaluation& evaluation, ExpertForm form) {
  ResultTable table{form == ExpertForm::replacing
                        ? "Experts that replace the base, each alone: change of perplexity with 95% interval"
                        : "Experts on the base, each alone: change of perplexity with 95% interval",
                    corpus_names(evaluation, {"expert", "architecture", "state", "training tokens"}),
                    {}};
  table.header.push_back("pooled");
  for (const EvaluatedExpert& expert : evaluation.experts) {
    if (expert.form != form) continue;
    const std::string arm = "alone:" + expert.name;
    std::vector<std::string> row = {expert.name + (expert.composed ? "" : " (compared)"), expert.architecture,
                                    bytes_text(expert.state_bytes),
                                    expert.training_tokens ? count_text(*expert.training_tokens) : "unknown"};
    for (const CorpusScore& corpus : evaluation.corpora) row.push_back(change_text(corpus.arm(arm).versus_base));
    row.push_back(change_text(evaluation.pooled_arm(arm).versus_base));
    table.rows.push_back(std::move(row));
  }
  return table;
}

ResultTable loads(const Evaluation& evaluation) {
  ResultTable table{
      "Load: share of positions where an expert is strongest (mean strength); routing regret in nats a token",
      {"corpus"},
      {}};
  for (const Load& load : evaluation.corpora.front().loads) table.header.push_back(load.expert);
  for (const char* more : {"gain kept", "work skipped", "corpus oracle", "regret to it", "regret to the token oracle"})
    table.header.emplace_back(more);
  for (const CorpusScore& corpus : evaluation.corpora) {
    std::vector<std::string> row = {corpus.name};
    for (const Load& load : corpus.loads)
      row.push_back(fmt::format("{:.2f} ({:.2f})", load.share_strongest, load.mean_strength));
    row.push_back(corpus.gain_kept ? fmt::format("{:.0f}%", 100 * *corpus.gain_kept) : "");
    row.push_back(fmt::format("{:.0f}%", 100 * corpus.work_skipped));
    row.push_back(corpus.corpus_oracle);
    row.push_back(corpus.regret ? nats_text(corpus.regret->corpus) : "");
    row.push_back(corpus.regret ? nats_text(corpus.regret->token) : "");
    table.rows.push_back(std::move(row));
  }
  return table;
}

std::string accuracy_text(const ChoiceAccuracy& accuracy) {
  return fmt::format("{:.1f}% [{:.1f}, {:.1f}]", 100 * accuracy.share, 100 * accuracy.low, 100 * accuracy.high);
}

std::string points_text(const Estimate& difference) {
  std::string text = fmt::format("{:+.1f}", 100 * difference.mean);
  if (difference.low) text += fmt::format(" [{:+.1f}, {:+.1f}]", 100 * *difference.low, 100 * *difference.high);
  return text;
}

ResultTable choices(const ChoiceScore& set) {
  ResultTable table{fmt::format("Multiple choice: {}, {} questions, {:.1f}% by chance; accuracy with 95% interval, and "
                                "points against base",
                                set.name, set.questions, 100 * set.chance),
                    {"arm", "plain", "against base", "normalised by bytes", "against base"},
                    {}};
  for (const ChoiceArm& arm : set.arms) {
    const bool base = arm.arm == "base";
    table.rows.push_back({arm.arm, accuracy_text(arm.plain), base ? "" : points_text(arm.plain.versus_base),
                          accuracy_text(arm.normalised), base ? "" : points_text(arm.normalised.versus_base)});
  }
  return table;
}

} // namespace

json::object to_json(const Evaluation& evaluation, const std::vector<EvaluationVerdict>* verdicts) {
  json::array corpora, judged;
  for (const CorpusScore& corpus : evaluation.corpora) corpora.push_back(corpus_json(corpus));
  json::object out = {{"schema", 1},
                      {"experts", experts_json(evaluation)},
                      {"sequence_length", evaluation.sequence_length},
                      {"work_skipped", evaluation.work_skipped},
                      {"masked", json::value_from(evaluation.masked)},
                      {"corpora", corpora},
                      {"pooled", arms_json(evaluation.pooled)},
                      {"best_single", name_or_null(evaluation.best_single)},
                      {"regret", regret_json(evaluation.regret)},
                      {"claims", claims_json(evaluation)},
                      {"choices", choices_json(evaluation)}};
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

std::vector<std::pair<std::string, std::string>> shown_arms(const Evaluation& evaluation) {
  std::vector<std::pair<std::string, std::string>> out, references;
  for (const ArmScore& arm : evaluation.pooled) {
    const std::string& name = arm.arm;
    if (name == "base" || name == "composed")
      out.emplace_back(name, name);
    else if (name == "oracle:corpus")
      out.emplace_back(name, "best of each corpus, in hindsight");
    else if (name == "oracle:token")
      out.emplace_back(name, "best of each token, in hindsight");
    else if (name == "random")
      references.emplace_back(name, "random rows");
    else if (name.rfind("alone:", 0) != 0)
      references.emplace_back(name, name);
  }
  if (!evaluation.best_single.empty())
    out.emplace_back(evaluation.best_single, "best single: " + evaluation.best_single.substr(6));
  out.insert(out.end(), references.begin(), references.end());
  return out;
}

std::string perplexity_text(const ArmScore& arm) {
  const std::string mean = number(std::exp(arm.nll.mean));
  if (!arm.nll.low) return mean;
  return mean + " [" + number(std::exp(*arm.nll.low)) + ", " + number(std::exp(*arm.nll.high)) + "]";
}

std::string change_text(const Estimate& difference) {
  std::string text = fmt::format("{:+.1f}%", percent(difference.mean));
  if (difference.low) text += fmt::format(" [{:+.1f}, {:+.1f}]", percent(*difference.low), percent(*difference.high));
  return text;
}

std::string bytes_text(std::int64_t bytes) {
  const auto value = static_cast<double>(bytes);
  if (bytes < 1000) return fmt::format("{} B", bytes);
  return bytes < 1000000 ? fmt::format("{:.1f} kB", value / 1e3) : fmt::format("{:.1f} MB", value / 1e6);
}

std::string count_text(std::int64_t count) {
  const auto value = static_cast<double>(count);
  if (count < 1000) return std::to_string(count);
  return count < 1000000 ? fmt::format("{:.1f}k", value / 1e3) : fmt::format("{:.1f}M", value / 1e6);
}

std::vector<ResultTable> tables(const Evaluation& evaluation, const std::vector<EvaluationVerdict>* verdicts) {
  std::vector<ResultTable> out;
  if (!evaluation.corpora.empty()) {
    out.push_back(perplexities(evaluation));
    for (const ExpertForm form : {ExpertForm::on_base, ExpertForm::replacing})
      if (ResultTable table = alone(evaluation, form); !table.rows.empty()) out.push_back(std::move(table));
    if (evaluation.corpora.front().loads.size() > 1) out.push_back(loads(evaluation));
  }
  for (const ChoiceScore& set : evaluation.choices) out.push_back(choices(set));
  if (!verdicts) return out;
  ResultTable judged{"Verdicts", {"rule", "on", "verdict", "found", "need"}, {}};
  for (const EvaluationVerdict& one : *verdicts)
    judged.rows.push_back({one.rule, one.subject, one.passed ? "passed" : "FAILED", one.found, one.need});
  out.push_back(std::move(judged));
  return out;
}

} // namespace tenon
