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
  double y = 7;
  for (const Mark& mark : marks) {
    inside += mark_svg(mark, scale, y);
    words += fmt::format("{}{} {:+.1f}%", words.empty() ? "" : ", ", mark.kind, percent_of(mark.change->mean));
    y += 10;
  }
  return fmt::format(
      "<svg class=\"strip\" role=\"img\" aria-label=\"{0}\" width=\"{1}\" height=\"{2}\" viewBox=\"0 0 {1} {2}\">"
      "<title>{0}</title>{3}</svg>",
      html_text(words), kStripWidth, kStripHeight, inside);
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

std::string row(const std::string& first_cell, const std::vector<ArmScore>& arms, const std::string& role,
                const std::optional<double>& kept, const Evaluation& evaluation, const Scale& scale) {
  std::string cells = first_cell;
  const auto add = [&](const std::string& inside) { cells += "<td>" + inside + "</td>"; };
  add(perplexity_cell(arm_or_null(arms, "base")));
  if (evaluation.best_single.empty()) return "<tr>" + cells + "</tr>";
  add(perplexity_cell(arm_or_null(arms, "alone:" + role)));
  add("<b>" + perplexity_cell(arm_or_null(arms, "composed")) + "</b>");
  add(strip(marks_of(arms, role, evaluation), scale));
  add(kept ? fmt::format("{:.0f}%", 100 * *kept) : "");
  for (const Column& column : columns_of(evaluation)) add(perplexity_cell(arm_or_null(arms, column.arm)));
  return "<tr>" + cells + "</tr>";
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
  Scale scale;
  for (const CorpusScore& corpus : evaluation.corpora) scale.take(marks_of(corpus.arms, corpus.role, evaluation));
  scale.take(marks_of(evaluation.pooled, "", evaluation));
  std::string header = "<th scope=\"col\">text</th><th scope=\"col\">base</th>", rows;
  if (!evaluation.best_single.empty()) {
    for (const char* heading : {"its expert alone", "composed", "change against base", "gain kept"})
      header += fmt::format("<th scope=\"col\">{}</th>", heading);
    for (const Column& column : columns_of(evaluation))
      header += "<th scope=\"col\">" + html_text(column.heading) + "</th>";
  }
  for (const CorpusScore& corpus : evaluation.corpora)
    rows += row(name_cell(corpus.name, corpus.role, evaluation), corpus.arms, corpus.role, corpus.gain_kept, evaluation,
                scale);
  if (evaluation.corpora.size() > 1)
    rows += row("<th scope=\"row\">all of them<small>equal weights</small></th>", evaluation.pooled, "", {}, evaluation,
                scale);
  return section("gains", "Gains",
                 "Perplexity of held-out text, lower is better, with 95% intervals over blocks. Gain kept: how much of "
                 "what its expert gains alone, in log-perplexity, the composition keeps.",
                 (evaluation.best_single.empty() ? "" : kKey) + wide_table(header, rows, "Gains"));
}

} // namespace tenon
