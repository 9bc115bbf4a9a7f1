// Traces a composition over texts: scores, strengths, choices and losses of every token, into one file.
//
// Texts are read in the blocks that an evaluation scores, and the shorter stretch behind the last whole one, too. Only
// chosen experts run, as in generation. Format: host/formats/trace_file.hpp. Thread: one, as the composition's.
#pragma once

#include "host/evaluation/replay.hpp"

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace tenon {

struct TraceOptions {
  std::int64_t sequence_length = 256;
  const Replay* replay = nullptr; // its strengths in place of the router's; scores remain the router's. Borrowed
  std::function<void(std::int64_t done, std::int64_t total)> progress = {}; // in tokens
  std::function<bool()> interrupted = {};
};

struct TracedCorpus {
  std::string name, digest;
  std::int64_t tokens = 0, documents = 0, predictions = 0;
  double nll = 0;          // mean over predictions, nats
  std::vector<Load> loads; // by slot, the first token of each block left out
};

struct TraceResult {
  std::vector<TracedCorpus> corpora;
  std::vector<Work> work; // by slot
  std::vector<std::string> masked;
};

// Memory: a few blocks, however long the texts. Errors: as evaluate(), though a corpus shorter than a block is one;
// usage (a corpus name twice). The file appears whole or not at all.
TraceResult trace(Composition& composition, const std::vector<EvaluationCorpus>& corpora,
                  const std::filesystem::path& path, const TraceOptions& options);

} // namespace tenon
