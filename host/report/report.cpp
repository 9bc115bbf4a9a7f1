#include "host/report/report.hpp"

#include "host/evaluation/results.hpp"
#include "host/report/html.hpp"
#include "host/report/page.hpp"
#include "host/report/sections.hpp"
#include "registry/base/sha256.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tenon {
namespace {

std::string tile(const std::string& big, const std::string& words) {
  return "<li><b>" + big + "</b><span>" + words + "</span></li>";
}

std::string tiles(const ReportInput& input) {
  const Evaluation& evaluation = input.evaluation;
  std::string out;
  if (!evaluation.best_single.empty()) {
    const ArmScore &base = evaluation.pooled_arm("base"), &composed = evaluation.pooled_arm("composed");
    out += tile(fmt::format("{:+.1f}%", percent_of(composed.versus_base.mean)),
                fmt::format("perplexity over all texts, from {:.1f} to {:.1f}", std::exp(base.nll.mean),
                            std::exp(composed.nll.mean)));
    for (const CorpusScore& corpus : evaluation.corpora)
      if (corpus.role == "general")
        out += tile(fmt::format("{:+.1f}%", percent_of(corpus.arm("composed").versus_base.mean)),
                    "on general text: " + html_text(corpus.name));
    out += tile(fmt::format("{:.0f}%", 100 * evaluation.work_skipped), "of expert work skipped, exactly");
    if (evaluation.regret)
      out += tile(fmt::format("{:+.3f}", evaluation.regret->corpus.mean), "nats a token behind the best of each text");
  }
  if (input.verdicts) {
    const auto passed =
        std::count_if(input.verdicts->begin(), input.verdicts->end(), [](const auto& one) { return one.passed; });
    out += tile(fmt::format("{} of {}", passed, input.verdicts->size()), "rules of a good composition passed");
  }
  return out.empty() ? "" : "<ul class=\"tiles\">" + out + "</ul>";
}

struct NamedSection {
  const char *id, *words;
  std::string html;
};

} // namespace

std::string report_page(const ReportInput& input) {
  const NamedSection all[] = {
      {"gains", "Gains", gains_section(input)},          {"claims", "Each expert alone", claims_section(input)},
      {"routing", "Routing", routing_section(input)},    {"choices", "Multiple choice", choices_section(input)},
      {"passages", "Passages", passages_section(input)}, {"training", "Training", curves_section(input)},
      {"verdicts", "Verdicts", verdicts_section(input)}, {"lineage", "Lineage", lineage_section(input)}};
  std::string links, sections;
  for (const NamedSection& one : all) {
    if (one.html.empty()) continue;
    links += fmt::format("<li><a href=\"#{}\">{}</a></li>", one.id, one.words);
    sections += one.html;
  }
  const std::string data = html_json(input.data), title = html_text(input.title);
  // Whoever wrote the texts could not know it, so no script of theirs runs, escaped or not.
  const std::string nonce = sha256(data + sections).substr(0, 32);
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
      "script-src 'nonce-{nonce}'; img-src data:; base-uri 'none'; form-action 'none'\">\n"
      "<title>{title}: evaluation</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>{style}</style></head>\n<body>\n"
      "<header><h1>{title}</h1><p class=\"lead\">{summary}</p>{tiles}</header>\n<nav "
      "aria-label=\"Sections\"><ul>{links}</ul></nav>\n"
      "<main>{sections}</main>\n<footer>Made by tenon eval. The page holds all of its numbers as JSON, in the element "
      "<code>#data</code>.</footer>\n<div id=\"tip\" role=\"tooltip\" hidden></div>\n"
      "<script type=\"application/json\" id=\"data\">{data}</script>\n<script "
      "nonce=\"{nonce}\">{script}</script>\n</body></html>\n",
      fmt::arg("nonce", nonce), fmt::arg("title", title), fmt::arg("style", kPageStyle),
      fmt::arg("summary", html_text(input.summary)), fmt::arg("tiles", tiles(input)), fmt::arg("links", links),
      fmt::arg("sections", sections), fmt::arg("data", data), fmt::arg("script", kPageScript));
}

} // namespace tenon
