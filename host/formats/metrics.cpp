#include "host/formats/metrics.hpp"

#include "host/formats/json_lines.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"

#include <cmath>

namespace tenon {
namespace {

namespace fs = std::filesystem;

double positive(const JsonReader& value) {
  const double out = value.number();
  if (!(out > 0) || !std::isfinite(out)) value.fail("found a perplexity that is no positive number");
  return out;
}

void read_line(const JsonReader& line, TrainingMetrics& out) {
  const std::int64_t step = line.at("step").integer();
  const std::string kind = line.at("kind").string();
  if (kind == "held-out perplexity") {
    const JsonReader perplexity = line.at("perplexity");
    out.held_out.push_back(
        {step, positive(perplexity.at("base")), positive(perplexity.at("alone")), positive(perplexity.at("mixture"))});
  } else if (kind == "domain" || kind == "general") {
    if (line.at("loss").value().is_null()) return;
    out.steps.push_back({step, line.at("tokens").integer(), line.at("loss").number(), kind == "general"});
  }
}

} // namespace

TrainingMetrics parse_metrics(std::string_view text, const std::string& file) {
  TrainingMetrics out;
  text = text.substr(0, text.rfind('\n') == std::string_view::npos ? 0 : text.rfind('\n') + 1);
  read_json_lines(text, file, "metrics", "give the folder that tenon expert train wrote",
                  [&](const JsonReader& line, std::size_t) { read_line(line, out); });
  return out;
}

TrainingMetrics read_metrics(const fs::path& folder) {
  for (const fs::path& path : {folder / ".run" / "metrics.jsonl", folder / "metrics.jsonl"})
    if (fs::exists(path)) return parse_metrics(read_file(path, std::size_t{1} << 30), path.string());
  throw Error(Code::not_found, "metrics", folder.string() + " holds no metrics.jsonl",
              "give the folder that tenon expert train wrote");
}

} // namespace tenon
