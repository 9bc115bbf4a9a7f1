#include "host/training/material.hpp"

#include "host/model/calibration.hpp"
#include "host/model/random.hpp"
#include "host/training/row_fit.hpp"
#include "registry/base/error.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <numeric>

namespace tenon {
namespace {

namespace fs = std::filesystem;

std::vector<std::uint32_t> all_blocks(const Shard& shard, std::int64_t length) {
  std::vector<std::uint32_t> out(shard.block_count(static_cast<std::size_t>(length)));
  std::iota(out.begin(), out.end(), 0u);
  return out;
}

} // namespace

CorpusSplit Material::read_text() const {
  CorpusOptions options;
  options.sequence_length = plan_.data.sequence_length;
  options.held_out_blocks = plan_.data.held_out_blocks;
  options.held_out_share = plan_.data.held_out_share;
  options.max_tokens = plan_.data.max_tokens;
  options.seed = static_cast<std::uint64_t>(plan_.data.seed);
  options.field = plan_.data.field;
  if (plan_.data.chat) options.chat = ChatTemplate::choose(plan_.data.chat_template, subject_.model->tokenizer());
  const std::vector<fs::path> paths(plan_.data.paths.begin(), plan_.data.paths.end());
  CorpusSplit text = prepare_corpus(paths, subject_.model->tokenizer(), options, loader_.cache() / "corpora");
  hooks_.say(describe(text.report));
  return text;
}

Streams Material::streams(const Shard& shard, std::vector<std::uint32_t> order, const std::string& order_name,
                          const std::string& what) const {
  StreamOptions options;
  options.folder = loader_.cache() / "streams";
  options.what = what;
  options.order = order_name;
  options.bfloat16 = plan_.streams.bfloat16;
  options.budget_bytes = static_cast<std::uint64_t>(plan_.streams.budget_gib * 1024.0 * 1024.0 * 1024.0);
  return Streams::open({shard, plan_.data.sequence_length, std::move(order)}, *subject_.model, *subject_.base.expert,
                       options, hooks_);
}

Streams Material::sampled(const Shard& shard, std::int64_t blocks, const std::string& what) const {
  const RandomStream random(static_cast<std::uint64_t>(plan_.data.seed), "sample");
  return streams(shard, sample(random, all_blocks(shard, plan_.data.sequence_length), blocks),
                 fmt::format("sample {}", plan_.data.seed), what);
}

Streams Material::domain(const CorpusSplit& text, std::int64_t blocks) const {
  return sampled(text.train, blocks, "training text");
}

Streams Material::held_out(const CorpusSplit& text) const {
  return sampled(text.held_out, plan_.evaluate_blocks, "held-out text");
}

std::optional<Streams> Material::general() const {
  const bool needed = plan_.row.objective != RowObjective::ntp || plan_.general_steps_before(plan_.train.steps) > 0;
  if (!needed) return std::nullopt;
  const Shard shard = subject_.model->calibration();
  const auto candidates = calibration_blocks(shard, plan_.data.sequence_length, CalibrationPart::training);
  if (candidates.empty())
    throw Error(Code::usage, subject_.model->manifest().name,
                fmt::format("its calibration text has {} tokens, too few for blocks of {}", shard.tokens().size(),
                            plan_.data.sequence_length),
                "import the model with more calibration text, or --set data.sequence_length=...");
  return streams(shard, sample(RandomStream(0, "sample"), candidates, plan_.general.blocks), "calibration sample",
                 "general text");
}

Normalization Material::normalization() const {
  const Statistics& statistics = subject_.model->statistics();
  return {statistics.mean_C, statistics.deviation_C};
}

Profile Material::profile(const Streams& domain) const { return profile_of(domain, normalization()); }

Row Material::first_row(const Streams& domain, const std::optional<Streams>& general) const {
  if (plan_.row.objective == RowObjective::ntp) return {at::zeros_like(normalization().mean_C), 0.0};
  const RowFit fit = fit_row(sample_positions(domain, normalization(), plan_.row.max_positions),
                             sample_positions(*general, normalization(), plan_.row.max_positions), plan_.row.l2);
  hooks_.say(fmt::format("row: tells this text from general text at {:.1f}% of positions (log-loss {:.3f}, {} rounds)",
                         100.0 * fit.accuracy, fit.loss, fit.iterations));
  return fit.row;
}

json::object Material::provenance(const CorpusSplit& text) const {
  json::array names;
  for (const std::string& path : plan_.data.paths)
    names.emplace_back(fs::path(path).lexically_normal().filename().string());
  return {{"names", names}, {"report", to_json(text.report)}};
}

} // namespace tenon
