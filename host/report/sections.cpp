#include "host/report/sections.hpp"

#include "host/report/html.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tenon {
namespace {

constexpr std::size_t kColors = 8; // of experts; the base has its own

// Four digits or so: more say nothing that the interval leaves standing.
std::string number(double value) { return fmt::format("{:.{}f}", value, value < 100 ? 2 : value < 1000 ? 1 : 0); }

} // namespace

std::string color_class(std::size_t expert) {
  if (expert == 0) return "x0";
  return fmt::format("x{}{}", (expert - 1) % kColors + 1, expert > kColors ? " again" : "");
}

std::string color_class(const Evaluation& evaluation, const std::string& expert) {
  for (std::size_t i = 0; i < evaluation.experts.size(); ++i)
    if (evaluation.experts[i].name == expert) return color_class(i);
  return "x0";
}

std::string arm_name(const Evaluation& evaluation, const std::string& arm) {
  const std::string alone = "alone:";
  if (!arm.starts_with(alone)) return html_text(arm);
  const std::string expert = arm.substr(alone.size());
  return fmt::format("<i class=\"swatch {}\"></i>{}", color_class(evaluation, expert), html_text(expert));
}

std::string legend(const Evaluation& evaluation, bool all) {
  std::string items;
  for (std::size_t i = 0; i < evaluation.experts.size(); ++i)
    if (all || evaluation.experts[i].composed)
      items +=
          fmt::format("<li><i class=\"swatch {}\"></i>{}</li>", color_class(i), html_text(evaluation.experts[i].name));
  return "<ul class=\"legend\">" + items + "</ul>";
}

std::string section(const std::string& id, const std::string& heading, const std::string& words,
                    const std::string& inside) {
  return fmt::format(
      "<section id=\"{0}\" aria-labelledby=\"{0}-heading\"><h2 id=\"{0}-heading\">{1}</h2>"
      "<p class=\"words\">{2}</p>{3}</section>\n",
      id, heading, words, inside);
}

std::string wide_table(const std::string& header_cells, const std::string& rows, const std::string& label) {
  return fmt::format(
      "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"{}\"><table><thead><tr>{}</tr></thead>"
      "<tbody>{}</tbody></table></div>",
      html_text(label), header_cells, rows);
}

const ArmScore* arm_or_null(const std::vector<ArmScore>& arms, const std::string& name) {
  const auto found = std::find_if(arms.begin(), arms.end(), [&](const ArmScore& arm) { return arm.arm == name; });
  return found == arms.end() ? nullptr : &*found;
}

std::string with_interval(const std::string& shown, const std::string& low, const std::string& high) {
  return fmt::format("{}<small>{} to {}</small>", shown, low, high);
}

std::string perplexity_cell(const ArmScore* arm) {
  if (!arm) return "";
  const std::string shown = number(std::exp(arm->nll.mean));
  return arm->nll.low ? with_interval(shown, number(std::exp(*arm->nll.low)), number(std::exp(*arm->nll.high))) : shown;
}

double percent_of(double nats) { return 100 * std::expm1(nats); }

std::string change_cell(const Estimate& difference) {
  const std::string shown = fmt::format("{:+.1f}%", percent_of(difference.mean));
  if (!difference.low) return shown;
  return with_interval(shown, fmt::format("{:+.1f}", percent_of(*difference.low)),
                       fmt::format("{:+.1f}", percent_of(*difference.high)));
}

} // namespace tenon
