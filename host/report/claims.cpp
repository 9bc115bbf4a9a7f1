// What each expert claims for itself: alone, on every text; and what it costs.
#include "host/evaluation/results.hpp"
#include "host/report/html.hpp"
#include "host/report/sections.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tenon {
namespace {

// The largest change that is shown in full colour; beyond it nothing gets darker.
constexpr double kFullColor = 0.7;

std::string heat_cell(const Estimate& change, bool own) {
  const bool sure = change.low && (*change.high < 0 || *change.low > 0);
  const double share = std::sqrt(std::min(1.0, std::abs(change.mean) / kFullColor));
  return fmt::format("<td class=\"heat {}{}\" style=\"--m:{:.2f}\">{}</td>",
                     !sure             ? "unsure"
                     : change.mean < 0 ? "better"
                                       : "worse",
                     own ? " own" : "", sure ? share : 0.0, change_cell(change));
}

std::string claims_row(const EvaluatedExpert& expert, const Evaluation& evaluation) {
  std::string cells =
      fmt::format("<th scope=\"row\"><i class=\"swatch {}\"></i>{}<small>{}{}</small></th><td>{}</td><td>{}</td>",
                  color_class(evaluation, expert.name), html_text(expert.name), html_text(expert.architecture),
                  expert.composed ? "" : ", only compared with", bytes_text(expert.state_bytes),
                  expert.training_tokens ? count_text(*expert.training_tokens) : "unknown");
  for (const CorpusScore& corpus : evaluation.corpora)
    cells += heat_cell(corpus.arm("alone:" + expert.name).versus_base, corpus.role == expert.name);
  return "<tr>" + cells + "</tr>";
}

std::string claims_table(const Evaluation& evaluation, ExpertForm form, const std::string& label) {
  std::string header =
                  "<th scope=\"col\">expert</th><th scope=\"col\">state</th><th scope=\"col\">training tokens</th>",
              rows;
  for (const CorpusScore& corpus : evaluation.corpora)
    header += "<th scope=\"col\">" + html_text(corpus.name) + "</th>";
  for (const EvaluatedExpert& expert : evaluation.experts)
    if (expert.form == form) rows += claims_row(expert, evaluation);
  return rows.empty() ? "" : "<h3>" + label + "</h3>" + wide_table(header, rows, label);
}

std::string accuracy_cells(const ChoiceAccuracy& accuracy, bool base) {
  const auto percent = [](double share) { return fmt::format("{:.1f}", 100 * share); };
  std::string difference;
  if (!base) difference = fmt::format("{:+.1f}", 100 * accuracy.versus_base.mean);
  if (!base && accuracy.versus_base.low)
    difference = with_interval(difference, fmt::format("{:+.1f}", 100 * *accuracy.versus_base.low),
                               fmt::format("{:+.1f}", 100 * *accuracy.versus_base.high));
  return "<td>" + with_interval(percent(accuracy.share) + "%", percent(accuracy.low), percent(accuracy.high)) +
         "</td><td>" + difference + "</td>";
}

} // namespace

std::string claims_section(const ReportInput& input) {
  const Evaluation& evaluation = input.evaluation;
  if (evaluation.corpora.empty()) return "";
  const std::string inside = claims_table(evaluation, ExpertForm::on_base, "On the base") +
                             claims_table(evaluation, ExpertForm::replacing, "Replacing the base");
  if (inside.empty()) return "";
  return section(
      "claims", "Each expert alone",
      "How an expert used everywhere changes the perplexity of each text: <span class=\"word better\">lower is "
      "better</span>, <span class=\"word worse\">higher is worse</span>; colourless where the 95% interval holds "
      "0. Framed: the expert's own domain. State is what the expert stores beside the base.",
      inside);
}

std::string choices_section(const ReportInput& input) {
  std::string inside;
  for (const ChoiceScore& set : input.evaluation.choices) {
    std::string rows;
    for (const ChoiceArm& arm : set.arms)
      rows += "<tr><th scope=\"row\">" + arm_name(input.evaluation, arm.arm) + "</th>" +
              accuracy_cells(arm.plain, arm.arm == "base") + accuracy_cells(arm.normalised, arm.arm == "base") +
              "</tr>";
    inside += fmt::format("<h3>{}<small>{} questions, {:.1f}% by chance</small></h3>", html_text(set.name),
                          set.questions, 100 * set.chance) +
              wide_table(
                  "<th scope=\"col\">used</th><th scope=\"col\">plain</th><th scope=\"col\">points against base</th>"
                  "<th scope=\"col\">by bytes</th><th scope=\"col\">points against base</th>",
                  rows, set.name);
  }
  if (inside.empty()) return "";
  return section(
      "choices", "Multiple choice",
      "How often the right choice is the likeliest, with Wilson's 95% interval: by the likelihood of its tokens, "
      "and by that likelihood per byte.",
      inside);
}

} // namespace tenon
