// Strengths that a trace recorded, forced upon the composition and the text it was made of.
// Thread: immutable; any.
#pragma once

#include "host/evaluation/evaluate.hpp"
#include "host/formats/trace_file.hpp"

#include <filesystem>
#include <vector>

namespace tenon {

class Replay {
 public:
  // The routing may be another one: that is what a replay compares. Errors: those of reading; incompatible, both sides
  // named: another model, other experts, other texts, another sequence length.
  Replay(const std::filesystem::path& path, const Composition& composition,
         const std::vector<EvaluationCorpus>& corpora, std::int64_t sequence_length);

  // Strengths (n,E) of tokens [first, first + count) of the corpus. Errors: integrity.
  at::Tensor strengths(const std::string& corpus, std::int64_t first, std::int64_t count) const;
  // Of whole blocks, one after another.
  at::Tensor blocks(const std::string& corpus, std::span<const std::size_t> blocks) const;

 private:
  const TraceCorpus& corpus(const std::string& name) const;
  TraceFile file_;
};

// The experts of a composition as a trace names them.
std::vector<TraceExpert> traced_experts(const Composition& composition);

} // namespace tenon
