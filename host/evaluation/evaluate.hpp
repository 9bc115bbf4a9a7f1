// The one evaluation: the demo, the benches and `tenon eval` all call it.
//
// How well a composition predicts each corpus, beside what else could have been done with the same parts:
//   base            the model's own middle everywhere
//   alone:NAME      one expert everywhere (strength 1)
//   composed        the router's strengths
//   uniform         every expert alike, the base included
//   random          the router with rows of random directions, norms, biases and prior unchanged; mean of several
//   without:NAME    the router without this expert; the prior stays
// In every arm position 0 takes the base, as in training. Scores are over blocks of T tokens, T-1 predictions each.
// Trunk and experts run once a block, densely; arms differ only in how outputs are mixed.
// Thread: one, as the composition's.
#pragma once

#include "host/composition/composition.hpp"
#include "host/evaluation/estimate.hpp"
#include "host/formats/shards.hpp"

#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace tenon {

struct EvaluationCorpus {
  std::string name;
  std::string role; // the name of the expert whose domain it is, "general", or "" where it is only measured
  Shard tokens;
};

struct EvaluationOptions {
  std::int64_t sequence_length = 256;
  std::int64_t blocks = 0;                                                  // of each corpus, evenly spread; 0: all
  std::int64_t random_rows = 3;                                             // how many random routers
  std::uint64_t seed = 0;                                                   // of the random rows
  bool removals = true;                                                     // each expert removed in turn
  std::function<void(std::int64_t done, std::int64_t total)> progress = {}; // in blocks
  std::function<bool()> interrupted = {};
};

// Negative log-likelihood per token, in nats.
struct ArmScore {
  std::string arm;
  Estimate nll;
  Estimate versus_base; // paired, block by block: below 0 is better than the base
  std::vector<double> block_nll;
};

// How much an expert was used by the router, position 0 left out.
struct Load {
  std::string expert;
  double mean_strength = 0, share_strongest = 0;
};

struct CorpusScore {
  std::string name, role, digest;
  std::int64_t blocks = 0, tokens = 0;
  std::vector<ArmScore> arms;
  std::vector<Load> loads;
  double work_skipped = 0;         // share of expert work that sparse execution leaves out
  std::optional<double> gain_kept; // (base - composed) / (base - own expert alone), in nats; of an expert's own domain

  const ArmScore& arm(const std::string& name) const; // Errors: bug
};

// One thing a good composition must show.
struct EvaluationVerdict {
  std::string rule, subject; // "gain", "setmm"
  bool passed = false;
  std::string found, need;
};

struct Evaluation {
  std::vector<std::string> experts; // slot 0 the base
  std::int64_t sequence_length = 0;
  std::vector<CorpusScore> corpora;
  std::vector<ArmScore> pooled; // every corpus with equal weight; without block_nll
  std::vector<std::string> masked;
  double work_skipped = 0;

  const ArmScore& pooled_arm(const std::string& name) const; // Errors: bug
};

// Errors: usage (a corpus too small, a role that is no expert), incompatible (another tokenizer), plugin (strict),
// numeric (a score that is not finite), interrupted.
Evaluation evaluate(Composition& composition, const std::vector<EvaluationCorpus>& corpora,
                    const EvaluationOptions& options);

// gain     each expert alone lowers its own corpus's perplexity by at least 10%, interval of the difference below 0
// kept     composed keeps at least 80% of that gain in log-perplexity
// general  composed is at most 1% worse than base on general text
// pooled   composed beats uniform and random rows
// Rules without a corpus to show them on are left out. Errors: usage, if that leaves none.
std::vector<EvaluationVerdict> judge(const Evaluation& evaluation);

} // namespace tenon
