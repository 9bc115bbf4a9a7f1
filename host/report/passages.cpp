// Text coloured by who predicted it, token by token.
#include "host/report/html.hpp"
#include "host/report/sections.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tenon {
namespace {

// Nats by which composed must differ from base to be shown in full colour.
constexpr double kFullDifference = 3.0;

std::string strengths_text(const std::vector<float>& strengths, const Evaluation& evaluation) {
  std::vector<std::size_t> order(strengths.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return strengths[a] > strengths[b]; });
  std::string out;
  for (const std::size_t slot : order) {
    if (strengths[slot] < 0.005f) continue;
    out += fmt::format("{}{} {:.2f}", out.empty() ? "" : ", ", evaluation.experts[slot].name, strengths[slot]);
  }
  return out;
}

// What predicted the token: its colour and how strong, and whether composing made the token likelier.
std::string token_span(const Passage& passage, std::size_t token, const Evaluation& evaluation) {
  const std::string text = html_text(passage.pieces[token]);
  if (token == 0) return "<span class=\"first\" title=\"the first token is given\">" + text + "</span>";
  const std::vector<float>& strengths = passage.strengths[token - 1];
  const auto best = static_cast<std::size_t>(std::max_element(strengths.begin(), strengths.end()) - strengths.begin());
  const double base = passage.nll_base[token - 1], composed = passage.nll_composed[token - 1];
  return fmt::format(
      "<span class=\"{} {}\" style=\"--a:{:.2f};--m:{:.2f}\" title=\"{}; loss {:.2f}, base {:.2f}\">{}</span>",
      color_class(best), composed <= base ? "better" : "worse", strengths[best],
      std::sqrt(std::min(1.0, std::abs(composed - base) / kFullDifference)),
      html_text(strengths_text(strengths, evaluation)), composed, base, text);
}

std::string passage_html(const CorpusScore& corpus, const Passage& passage, const Evaluation& evaluation) {
  std::string text;
  for (std::size_t token = 0; token < passage.pieces.size(); ++token)
    if (!passage.pieces[token].empty()) text += token_span(passage, token, evaluation);
  return fmt::format(
      "<figure><figcaption>{}<small>block {}</small></figcaption><div class=\"passage\" "
      "data-by=\"expert\">{}</div></figure>",
      html_text(corpus.name), passage.block, text);
}

const char* const kSwitch = R"(<div class="switch" role="group" aria-label="Colour by">
<button type="button" data-by="expert" aria-pressed="true">who predicted</button>
<button type="button" data-by="gain" aria-pressed="false">better or worse than the base</button></div>)";

} // namespace

std::string passages_section(const ReportInput& input) {
  std::string inside;
  for (const CorpusScore& corpus : input.evaluation.corpora)
    for (const Passage& passage : corpus.passages) inside += passage_html(corpus, passage, input.evaluation);
  if (inside.empty()) return "";
  return section(
      "passages", "Passages",
      "Held-out text; each token has the colour of the expert that had most say in predicting it, the stronger "
      "the fuller. Point at a token for its strengths and its loss in nats.",
      legend(input.evaluation, false) + kSwitch + inside);
}

} // namespace tenon
