// Training curves: one small chart an expert, all in the same form.
#include "host/evaluation/results.hpp"
#include "host/report/html.hpp"
#include "host/report/sections.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tenon {
namespace {

constexpr double kWidth = 340, kHeight = 200, kLeft = 40, kRight = 12, kTop = 10, kBottom = 30;
constexpr std::size_t kMostPoints = 400; // of a line; more steps are averaged

struct Point {
  double x, y;
};

// From data to the chart's own units, with ticks at round numbers.
struct Axis {
  double low, high, from, to;

  double at(double value) const { return from + (to - from) * (value - low) / std::max(high - low, 1e-12); }
  std::vector<double> ticks() const {
    const double rough = (high - low) / 4, power = std::pow(10.0, std::floor(std::log10(std::max(rough, 1e-12))));
    double step = 10 * power;
    for (const double round : {1.0, 2.0, 5.0})
      if (round * power >= rough) {
        step = round * power;
        break;
      }
    std::vector<double> out;
    for (double value = std::ceil(low / step) * step; value <= high + 1e-9 * step; value += step) out.push_back(value);
    return out;
  }
};

// Loss on the expert's own text over the tokens seen until then.
std::vector<Point> loss_points(const TrainingMetrics& metrics) {
  std::vector<Point> all, out;
  double tokens = 0;
  for (const TrainingMetrics::Step& step : metrics.steps) {
    tokens += static_cast<double>(step.tokens);
    if (!step.general) all.push_back({tokens, step.loss});
  }
  const std::size_t bin = (all.size() + kMostPoints - 1) / kMostPoints;
  for (std::size_t i = 0; i < all.size(); i += bin) {
    Point mean{0, 0};
    const std::size_t count = std::min(bin, all.size() - i);
    for (std::size_t j = i; j < i + count; ++j)
      mean.x += all[j].x / static_cast<double>(count), mean.y += all[j].y / static_cast<double>(count);
    out.push_back(mean);
  }
  return out;
}

// An exponential mean whose start is not biased towards nothing.
std::vector<Point> smoothed(const std::vector<Point>& points) {
  const double keep = 1 - 1 / std::clamp(static_cast<double>(points.size()) / 15, 1.0, 20.0);
  std::vector<Point> out;
  double sum = 0, weight = 0;
  for (const Point& point : points) {
    sum = keep * sum + (1 - keep) * point.y, weight = keep * weight + (1 - keep);
    out.push_back({point.x, sum / weight});
  }
  return out;
}

std::string line(const std::vector<Point>& points, const Axis& x, const Axis& y, const std::string& name) {
  std::string path;
  for (const Point& point : points)
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", x.at(point.x), y.at(point.y));
  return fmt::format("<path class=\"{}\" d=\"{}\"/>", name, path);
}

// Held-out losses in nats: of the base, and of the expert alone, at the end of training.
struct Level {
  std::string words;
  double nats;
};

std::vector<Level> levels_of(const std::string& expert, const Evaluation& evaluation) {
  for (const CorpusScore& corpus : evaluation.corpora)
    if (corpus.role == expert)
      return {{"base, held out", corpus.arm("base").nll.mean},
              {"alone, held out", corpus.arm("alone:" + expert).nll.mean}};
  return {};
}

std::string frame(const Axis& x, const Axis& y) {
  std::string out;
  for (const double tick : y.ticks())
    out += fmt::format(
        "<path class=\"grid\" d=\"M{0} {2:.1f}H{1}\"/><text x=\"{3}\" y=\"{4:.1f}\" class=\"end\">{5:.3g}</text>",
        x.from, x.to, y.at(tick), x.from - 6, y.at(tick) + 3.5, tick);
  for (const double tick : x.ticks())
    out += fmt::format("<text x=\"{:.1f}\" y=\"{}\" class=\"middle\">{}</text>", x.at(tick), kHeight - kBottom + 14,
                       count_text(static_cast<std::int64_t>(std::llround(tick))));
  return out +
         fmt::format("<path class=\"axis\" d=\"M{} {}H{}\"/><text x=\"{}\" y=\"{}\" class=\"end\">tokens seen</text>",
                     x.from, y.from, x.to, x.to, kHeight - 3);
}

std::string chart(const TrainingCurve& curve, const Evaluation& evaluation) {
  const std::vector<Point> points = loss_points(curve.metrics), smooth = smoothed(points);
  if (points.empty()) return "";
  const std::vector<Level> levels = levels_of(curve.name, evaluation);
  double low = points[0].y, high = points[0].y;
  for (const Point& point : points) low = std::min(low, point.y), high = std::max(high, point.y);
  for (const Level& level : levels) low = std::min(low, level.nats), high = std::max(high, level.nats);
  const double pad = std::max(0.05 * (high - low), 1e-3);
  const Axis x{0, points.back().x, kLeft, kWidth - kRight}, y{low - pad, high + pad, kHeight - kBottom, kTop};
  std::string inside = frame(x, y) + line(points, x, y, "raw") + line(smooth, x, y, "smooth");
  for (std::size_t i = 0; i < levels.size(); ++i)
    inside += fmt::format(
        "<path class=\"level{0}\" d=\"M{1} {3:.1f}H{2}\"/><text class=\"end note\" x=\"{2}\" y=\"{4:.1f}\">{5}</text>",
        i == 0 ? "" : " own", x.from, x.to, y.at(levels[i].nats), y.at(levels[i].nats) - 4, levels[i].words);
  for (const TrainingMetrics::HeldOut& one : curve.metrics.held_out) {
    const double tokens =
        points.back().x * static_cast<double>(one.step) / static_cast<double>(curve.metrics.steps.back().step);
    if (const double nats = std::log(one.alone); nats > y.low && nats < y.high && tokens <= x.high)
      inside += fmt::format(
          "<circle class=\"dot\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\"><title>held out after step {}: {:.3f} "
          "nats</title></circle>",
          x.at(tokens), y.at(nats), one.step, nats);
  }
  const std::string words =
      fmt::format("loss of {}: from {:.2f} to {:.2f} nats a token", curve.name, smooth.front().y, smooth.back().y);
  return fmt::format(
      "<figure class=\"chart {0}\"><figcaption><i class=\"swatch {0}\"></i>{1}</figcaption>"
      "<svg role=\"img\" aria-label=\"{2}\" viewBox=\"0 0 {3} {4}\"><title>{2}</title>{5}</svg></figure>",
      color_class(evaluation, curve.name), html_text(curve.name), html_text(words), kWidth, kHeight, inside);
}

} // namespace

std::string curves_section(const ReportInput& input) {
  std::string charts;
  for (const TrainingCurve& curve : input.curves) charts += chart(curve, input.evaluation);
  if (charts.empty()) return "";
  return section(
      "training", "Training",
      "Loss in nats a token over the tokens seen, each expert on its own text: every step, and its running mean.",
      "<div class=\"charts\">" + charts + "</div>");
}

std::string lineage_section(const ReportInput& input) {
  std::string cards;
  for (const LineageCard& card : input.lineage) {
    std::string facts;
    for (const auto& [what, value] : card.facts) {
      const bool digest = value.rfind("sha256:", 0) == 0;
      facts +=
          fmt::format("<dt>{}</dt><dd{}>{}</dd>", html_text(what), digest ? " class=\"digest\"" : "", html_text(value));
    }
    cards += fmt::format("<details><summary><span>{}</span> {}</summary><dl>{}</dl></details>", html_text(card.part),
                         html_text(card.title), facts);
  }
  if (cards.empty()) return "";
  return section("lineage", "Lineage", "Where everything comes from, with the digests that were locked.", cards);
}

json::array to_json(const std::vector<TrainingCurve>& curves) {
  json::array out;
  for (const TrainingCurve& curve : curves) {
    json::array steps, held_out;
    for (const TrainingMetrics::Step& step : curve.metrics.steps)
      steps.push_back(json::array{step.step, step.tokens, step.loss, step.general ? "general" : "domain"});
    for (const TrainingMetrics::HeldOut& one : curve.metrics.held_out)
      held_out.push_back(json::array{one.step, one.base, one.alone, one.mixture});
    out.push_back(json::object{{"name", curve.name}, {"steps", steps}, {"held_out", held_out}});
  }
  return out;
}

} // namespace tenon
