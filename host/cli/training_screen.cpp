#include "host/cli/training_screen.hpp"

#include "host/cli/interrupt.hpp"

#include <fmt/format.h>

namespace tenon {
namespace {

std::string gain_text(const JsonReader& evidence, const char* which) {
  const JsonReader gain = evidence.at("lower_than_base").at(which);
  return fmt::format("{:.2f} ({:.1f}% lower, 95% interval {:.1f} to {:.1f})",
                     evidence.at("perplexity").at(which).number(), gain.at("percent").number(),
                     gain.at("interval95").at(0).number(), gain.at("interval95").at(1).number());
}

} // namespace

TrainingHooks TrainingScreen::hooks() {
  TrainingHooks hooks;
  hooks.begin = [this](const std::string& what, std::int64_t total, const std::string& unit, std::int64_t first) {
    bar_.emplace(out_, what, total, unit, first);
  };
  hooks.update = [this](std::int64_t done, const std::string& detail) {
    detail_ = detail;
    if (bar_) bar_->update(done, detail);
  };
  hooks.end = [this] {
    if (bar_) bar_->finish(detail_);
    bar_.reset();
  };
  hooks.note = [this](const std::string& line) {
    bar_.reset();
    out_.note(line);
  };
  hooks.stop = [] { return interrupted(); };
  return hooks;
}

void show_evidence(Output& out, const std::string& name, const json::object& evidence) {
  const json::value value = evidence;
  const JsonReader reader(value, "evidence");
  out.line(fmt::format("{}: held-out perplexity", name));
  out.line(fmt::format("  base     {:.2f}", reader.at("perplexity").at("base").number()));
  out.line("  alone    " + gain_text(reader, "alone"));
  out.line("  mixture  " + gain_text(reader, "mixture"));
}

} // namespace tenon
