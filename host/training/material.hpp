// What an expert is made from: its own text, held-out text and general text, each with what trunk and base say about
// it; and the row that tells the first from the last. Thread: one.
#pragma once

#include "host/formats/corpus.hpp"
#include "host/routing/router.hpp"
#include "host/training/evidence.hpp"
#include "host/training/streams.hpp"
#include "host/training/subject.hpp"

#include <optional>

namespace tenon {

class Material {
 public:
  // Borrows all of them.
  Material(const Loader& loader, const TrainingPlan& plan, const Subject& subject, const TrainingHooks& hooks)
      : loader_(loader), plan_(plan), subject_(subject), hooks_(hooks) {}

  // Errors: of prepare_corpus.
  CorpusSplit read_text() const;
  // At most so many blocks; which ones is a random choice that a larger number only adds to.
  Streams domain(const CorpusSplit& text, std::int64_t blocks) const;
  Streams held_out(const CorpusSplit& text) const;
  // The same sample for every expert of a model, so that it is computed once for all; none where the plan has no use
  // for it. Errors: usage (too little calibration text).
  std::optional<Streams> general() const;
  // Fitted as log-odds, or zero where the plan leaves it to the language-model loss. Errors: of fit_row.
  Row first_row(const Streams& domain, const std::optional<Streams>& general) const;
  Profile profile(const Streams& domain) const;

  // For expert.json: which text, and what became of it. Paths are the maker's own affair: names alone.
  json::object provenance(const CorpusSplit& text) const;

 private:
  Streams streams(const Shard& shard, std::vector<std::uint32_t> order, const std::string& order_name,
                  const std::string& what) const;
  Streams sampled(const Shard& shard, std::int64_t blocks, const std::string& what) const;
  Normalization normalization() const;

  const Loader& loader_;
  const TrainingPlan& plan_;
  const Subject& subject_;
  const TrainingHooks& hooks_;
};

} // namespace tenon
