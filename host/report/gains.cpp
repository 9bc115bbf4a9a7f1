// What was gained, text by text: perplexities with intervals, and a strip that shows the change against the base.
#include "host/report/html.hpp"
#include "host/report/sections.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tenon {
namespace {

constexpr double kStripWidth = 220, kStripHeight = 34, kMargin = 8;

// One mark of a strip.
struct Mark {
  std::string kind; // "alone", "composed", "oracle"
  std::string color;
  const Estimate* change;
};

std::vector<Mark> marks_of(const std::vector<ArmScore>& arms, const std::string& role, const Evaluation& evaluation) {
  std::vector<Mark> out;
  if (const ArmScore* alone = arm_or_null(arms, "alone:" + role))
    out.push_back({"alone", color_class(evaluation, role), &alone->versus_base});
  if (const ArmScore* composed = arm_or_null(arms, "composed")) out.push_back({"composed", "", &composed->versus_base});
  if (const ArmScore* oracle = arm_or_null(arms, "oracle:token")) out.push_back({"oracle", "", &oracle->versus_base});
  return out;
}

// The same for every strip of the table, in percent; 0, the base, is always in it.
class Scale {
 public:
  void take(const std::vector<Mark>& marks) {
    for (const Mark& mark : marks)
      for (const double nats :
           {mark.change->low.value_or(mark.change->mean), mark.change->high.value_or(mark.change->mean)})
        low_ = std::min(low_, percent_of(nats)), high_ = std::max(high_, percent_of(nats));
  }
  // Nothing above 100% is drawn to scale: it would leave no room for the rest.
  double x(double nats) const {
    const double high = std::min(high_, 100.0), at = std::clamp(percent_of(nats), low_, high);
    return kMargin + (kStripWidth - 2 * kMargin) * (at - low_) / std::max(high - low_, 1e-9);
  }
  double low() const { return low_; }

 private:
  double low_ = -1, high_ = 1;
};

std::string mark_svg(const Mark& mark, const Scale& scale, double y) {
  const double x = scale.x(mark.change->mean);
  std::string out;
  if (mark.change->low)
    out += fmt::format("<path class=\"whisker {0} {1}\" d=\"M{2:.1f} {4}H{3:.1f}\"/>", mark.kind, mark.color,
                       scale.x(*mark.change->low), scale.x(*mark.change->high), y);
  if (mark.kind == "alone")
    return out + fmt::format("<circle class=\"dot alone {}\" cx=\"{:.1f}\" cy=\"{}\" r=\"4.5\"/>", mark.color, x, y);
  if (mark.kind == "composed")
    return out + fmt::format("<path class=\"dot composed\" d=\"M{:.1f} {}l5.5 5.5l-5.5 5.5l-5.5 -5.5z\"/>", x, y - 5.5);
  return out + fmt::format("<path class=\"dot oracle\" d=\"M{:.1f} {}v10\"/>", x, y - 5);
}

std::string strip(const std::vector<Mark>& marks, const Scale& scale) {
  std::string words, inside = fmt::format("<path class=\"zero\" d=\"M{:.1f} 0V{}\"/>", scale.x(0), kStripHeight);
  for (const Mark& mark : marks) {
    inside += mark_svg(mark, scale, mark.kind == "alone" ? 7 : mark.kind == "composed" ? 17 : 27);
    words += fmt::format("{}{} {:+.1f}%", words.empty() ? "" : ", ", mark.kind, percent_of(mark.change->mean));
  }
  return fmt::format(
      "<svg class=\"strip\" role=\"img\" aria-label=\"{0}\" width=\"{1}\" height=\"{2}\" viewBox=\"0 0 {1} {2}\">"
      "<title>{0}</title>{3}</svg>",
      html_text(words), kStripWidth, kStripHeight, inside);
}

// What the strips' left end and their line mean, for the head of their column.
std::string axis(const Scale& scale) {
  const double zero = scale.x(0), room = 50;
  std::string inside;
  if (zero > kMargin + room) inside = fmt::format("<text x=\"{}\" y=\"10\">{:+.0f}%</text>", kMargin, scale.low());
  inside += fmt::format("<text class=\"{}\" x=\"{:.1f}\" y=\"10\">0</text>",
                        zero > kStripWidth - 2 * kMargin ? "end" : "middle", zero);
  return fmt::format("<svg aria-hidden=\"true\" width=\"{0}\" height=\"12\" viewBox=\"0 0 {0} 12\">{1}</svg>",
                     kStripWidth, inside);
}

struct Column {
  std::string arm, heading;
};

std::vector<Column> columns_of(const Evaluation& evaluation) {
  const std::vector<Column> all = {
      {"oracle:corpus", "best of each text"},
      {"oracle:token", "best of each token"},
      {evaluation.best_single,
       "best single" + (evaluation.best_single.empty() ? "" : ": " + evaluation.best_single.substr(6))},
      {"uniform", "uniform"},
      {"random", "random rows"}};
  std::vector<Column> out;
  for (const Column& column : all)
    if (arm_or_null(evaluation.pooled, column.arm)) out.push_back(column);
  return out;
}

std::string name_cell(const std::string& name, const std::string& role, const Evaluation& evaluation) {
  std::string below;
  if (role == "general")
    below = "<small>general text</small>";
  else if (!role.empty())
    below = fmt::format("<small><i class=\"swatch {}\"></i>{}'s own</small>", color_class(evaluation, role),
                        html_text(role));
  return "<th scope=\"row\">" + html_text(name) + below + "</th>";
}

std::string cell(const std::string& inside) { return "<td>" + inside + "</td>"; }

// A text, or all of them.
struct Row {
  std::string name_cell, role;
  const std::vector<ArmScore>* arms;
  std::optional<double> kept;
};

std::vector<Row> rows_of(const Evaluation& evaluation) {
  std::vector<Row> out;
  for (const CorpusScore& corpus : evaluation.corpora)
    out.push_back({name_cell(corpus.name, corpus.role, evaluation), corpus.role, &corpus.arms, corpus.gain_kept});
  if (out.size() > 1)
    out.push_back({"<th scope=\"row\">all of them<small>equal weights</small></th>", "", &evaluation.pooled, {}});
  return out;
}

std::string headings(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out += "<th scope=\"col\">" + name + "</th>";
  return out;
}

std::string gains_table(const Evaluation& evaluation) {
  const std::vector<Row> all = rows_of(evaluation);
  if (evaluation.best_single.empty()) {
    std::string rows;
    for (const Row& one : all)
      rows += "<tr>" + one.name_cell + cell(perplexity_cell(arm_or_null(*one.arms, "base"))) + "</tr>";
    return wide_table(headings({"text", "base"}), rows, "Gains");
  }
  Scale scale;
  for (const Row& one : all) scale.take(marks_of(*one.arms, one.role, evaluation));
  std::string rows;
  for (const Row& one : all)
    rows += "<tr>" + one.name_cell + cell(perplexity_cell(arm_or_null(*one.arms, "base"))) +
            cell(perplexity_cell(arm_or_null(*one.arms, "alone:" + one.role))) +
            cell("<b>" + perplexity_cell(arm_or_null(*one.arms, "composed")) + "</b>") +
            cell(strip(marks_of(*one.arms, one.role, evaluation), scale)) +
            cell(one.kept ? fmt::format("{:.0f}%", 100 * *one.kept) : "") + "</tr>";
  return wide_table(
      headings({"text", "base", "its expert alone", "composed", "change against base" + axis(scale), "gain kept"}),
      rows, "Gains");
}

// What the composition is compared with, beside what each expert does alone.
std::string others_table(const Evaluation& evaluation) {
  const std::vector<Column> columns = columns_of(evaluation);
  if (evaluation.best_single.empty() || columns.empty()) return "";
  std::vector<std::string> names = {"text", "composed"};
  for (const Column& column : columns) names.push_back(html_text(column.heading));
  std::string rows;
  for (const Row& one : rows_of(evaluation)) {
    rows += "<tr>" + one.name_cell + cell("<b>" + perplexity_cell(arm_or_null(*one.arms, "composed")) + "</b>");
    for (const Column& column : columns) rows += cell(perplexity_cell(arm_or_null(*one.arms, column.arm)));
    rows += "</tr>";
  }
  return "<h3>Other ways to choose<small>the best of each text and token are found in hindsight</small></h3>" +
         wide_table(headings(names), rows, "Other ways to choose");
}

const char* const kKey = R"(<ul class="legend key">
<li><svg width="14" height="14"><circle class="dot alone" cx="7" cy="7" r="4.5"/></svg>its own expert alone</li>
<li><svg width="14" height="14"><path class="dot composed" d="M7 1.5l5.5 5.5l-5.5 5.5l-5.5 -5.5z"/></svg>composed</li>
<li><svg width="14" height="14"><path class="dot oracle" d="M7 2v10"/></svg>best of each token, in hindsight</li>
<li><svg width="14" height="14"><path class="zero" d="M7 0v14"/></svg>base</li></ul>)";

} // namespace

std::string gains_section(const ReportInput& input) {
  const Evaluation& evaluation = input.evaluation;
  if (evaluation.corpora.empty()) return "";
  return section("gains", "Gains",
                 "Perplexity of held-out text, lower is better, with 95% intervals over blocks. Gain kept: how much of "
                 "what its expert gains alone, in log-perplexity, the composition keeps.",
                 (evaluation.best_single.empty() ? "" : kKey) + gains_table(evaluation) + others_table(evaluation));
}

} // namespace tenon
