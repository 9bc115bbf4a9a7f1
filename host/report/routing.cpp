// How the router spread the load, and how far that is from choosing in hindsight; and the verdicts.
#include "host/report/html.hpp"
#include "host/report/sections.hpp"

#include <fmt/format.h>

namespace tenon {
namespace {

constexpr double kBarWidth = 240, kBarHeight = 18;

std::string load_bar(const CorpusScore& corpus) {
  std::string inside, words;
  double x = 0;
  for (std::size_t slot = 0; slot < corpus.loads.size(); ++slot) {
    const Load& load = corpus.loads[slot];
    const std::string said = fmt::format("{}: strongest at {:.1f}%, mean strength {:.3f}", load.expert,
                                         100 * load.share_strongest, load.mean_strength);
    words += (words.empty() ? "" : "; ") + said;
    const double width = kBarWidth * load.share_strongest;
    if (width > 0)
      inside +=
          fmt::format("<rect class=\"part {}\" x=\"{:.2f}\" width=\"{:.2f}\" height=\"{}\"><title>{}</title></rect>",
                      color_class(slot), x, width, kBarHeight, html_text(said));
    x += width;
  }
  return fmt::format(
      "<svg class=\"bar\" role=\"img\" aria-label=\"{0}\" width=\"{1}\" height=\"{2}\" viewBox=\"0 0 {1} "
      "{2}\">{3}</svg>",
      html_text(words), kBarWidth, kBarHeight, inside);
}

std::string nats_cell(const Estimate& estimate) {
  const std::string shown = fmt::format("{:+.3f}", estimate.mean);
  if (!estimate.low) return shown;
  return with_interval(shown, fmt::format("{:+.3f}", *estimate.low), fmt::format("{:+.3f}", *estimate.high));
}

std::string own_share(const CorpusScore& corpus) {
  for (const Load& load : corpus.loads)
    if (load.expert == corpus.role) return fmt::format("{:.1f}%", 100 * load.share_strongest);
  return "";
}

} // namespace

std::string routing_section(const ReportInput& input) {
  const Evaluation& evaluation = input.evaluation;
  if (evaluation.best_single.empty()) return "";
  std::string rows;
  for (const CorpusScore& corpus : evaluation.corpora)
    rows += "<tr><th scope=\"row\">" + html_text(corpus.name) + "</th><td>" + load_bar(corpus) + "</td><td>" +
            own_share(corpus) + "</td><td>" + fmt::format("{:.0f}%", 100 * corpus.work_skipped) + "</td><td>" +
            arm_name(evaluation, corpus.corpus_oracle) + "</td><td>" + nats_cell(corpus.regret->corpus) + "</td><td>" +
            nats_cell(corpus.regret->token) + "</td></tr>";
  const std::string header =
      "<th scope=\"col\">text</th><th scope=\"col\">load: who is strongest, by positions</th>"
      "<th scope=\"col\">its own expert</th><th scope=\"col\">work skipped</th>"
      "<th scope=\"col\">best, in hindsight</th><th scope=\"col\">regret to that</th>"
      "<th scope=\"col\">to the best of each token</th>";
  return section(
      "routing", "Routing",
      "Regret: how many nats a token the composition loses against a choice made in hindsight; below 0, mixing "
      "is better than any such choice. Skipped work is skipped exactly: the result is that of running everything.",
      legend(evaluation, false) + wide_table(header, rows, "Routing"));
}

std::string verdicts_section(const ReportInput& input) {
  if (!input.verdicts) return "";
  std::string rows;
  for (const EvaluationVerdict& one : *input.verdicts)
    rows +=
        fmt::format("<tr><td class=\"{0}\">{0}</td><th scope=\"row\">{1}</th><td>{2}</td><td>{3}</td><td>{4}</td></tr>",
                    one.passed ? "passed" : "failed", html_text(one.rule), html_text(one.subject), html_text(one.found),
                    html_text(one.need));
  return section("verdicts", "Verdicts", "What a good composition must show, and whether this one does.",
                 wide_table("<th scope=\"col\">verdict</th><th scope=\"col\">rule</th><th scope=\"col\">on</th>"
                            "<th scope=\"col\">found</th><th scope=\"col\">need</th>",
                            rows, "Verdicts"));
}

} // namespace tenon
