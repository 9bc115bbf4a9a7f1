// The one evaluation: the demo, the benches and `tenon eval` all call it.
//
// How well a composition predicts each corpus, beside what else could have been done with the same parts:
//   base            the model's own middle everywhere
//   composed        the router's strengths
//   alone:NAME      one expert everywhere (strength 1), of the composition or only compared with
//   uniform         every expert alike, the base included
//   random          the router with rows of random directions, norms, biases and prior unchanged; mean of several
//   without:NAME    the router without this expert; the prior stays
//   replayed        the strengths that a trace recorded (options.replay)
//   oracle:corpus   the best of base and the composition's experts for each corpus, in hindsight
//   oracle:token    the best of them for each token, in hindsight
// In every arm position 0 takes the base, as in training. Scores are over blocks of T tokens, T-1 predictions each;
// of dialogues, only predictions of answers count.
// Trunk and experts run once a block, densely; arms differ only in how outputs are mixed, and those that mix a block to
// the same bits are scored once.
// Thread: one, as the composition's.
#pragma once

#include "host/composition/composition.hpp"
#include "host/evaluation/scores.hpp"
#include "host/formats/choices.hpp"
#include "host/formats/shards.hpp"

#include <functional>
#include <string>
#include <vector>

namespace tenon {

struct EvaluationCorpus {
  std::string name;
  std::string role; // the name of the expert whose domain it is, "general", or "" where it is only measured
  Shard tokens;
};

// An expert that is no part of the composition, scored alone beside its parts: a plain adapter of equal size, one
// expert trained on everything.
struct VersusExpert {
  std::string name;
  ExpertPackage package;
};

struct EvaluationInput {
  std::vector<EvaluationCorpus> corpora;
  std::vector<ChoiceSet> choices;
  std::vector<VersusExpert> versus;
};

class Replay;

struct EvaluationOptions {
  std::int64_t sequence_length = 256;
  std::int64_t blocks = 0;        // of each corpus, evenly spread; 0: all
  std::int64_t random_rows = 3;   // how many random routers
  std::uint64_t seed = 0;         // of the random rows
  bool removals = true;           // each expert removed in turn
  std::int64_t passages = 0;      // blocks of each corpus kept token by token
  const Replay* replay = nullptr; // of every corpus: its strengths as one more arm. Borrowed
  std::function<void(const std::string& what, std::int64_t done, std::int64_t total)> progress = {};
  std::function<bool()> interrupted = {};
};

// Errors: incompatible, both tokenizers named.
void check_tokenizer(const EvaluationCorpus& corpus, const Model& model);

// Errors: usage (a corpus too small, a role that is no expert, a name given twice, a question too long), incompatible
// (another tokenizer), plugin (strict; any fault of one compared with), numeric (a score that is not finite),
// interrupted.
Evaluation evaluate(Composition& composition, const EvaluationInput& input, const EvaluationOptions& options);

} // namespace tenon
