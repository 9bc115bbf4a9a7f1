// What run and chat share: how text is drawn, and how it is shown as it comes.
#pragma once

#include "host/cli/command.hpp"
#include "host/inference/generate.hpp"
#include "host/inference/session_file.hpp"

namespace tenon {

struct GenerationSettings {
  std::int64_t max_tokens = 256, context = 0;
  SamplingOptions sampling;
  bool greedy = false;
  std::vector<std::string> stops;

  GenerateOptions options() const;           // Ctrl-C included
  SessionOptions session(Output& out) const; // which it borrows, to say how far a long text is read
};
void add_generation_options(CLI::App& command, GenerationSettings& settings);
// A word about a context beyond what the model has learned, which is cut to that.
void say_context(const Model& model, const GenerationSettings& settings, Output& out);

// --session and --save-session of run, --resume and --save of chat.
struct SessionFiles {
  std::string from, to;

  // Before anything is loaded. Errors: usage, not_found, environment: nothing can be saved there, or what is there is
  // no session.
  void check() const;
};
// A new session, or the one in the file.
SavedSession open_session(Composition& composition, const GenerationSettings& settings, const SessionFiles& files,
                          Output& out);
void keep_session(const Session& session, const SessionFiles& files, const json::object& note, Output& out);

// How strongly each expert spoke over some positions.
struct ExpertShare {
  std::string expert;
  std::int64_t strongest = 0; // positions where it is the strongest
  double mean_strength = 0;
  double work_skipped = 0; // share of its positions that it was not run over, since the composition was opened
};
std::vector<ExpertShare> expert_shares(const Session& session, std::size_t first, std::size_t last);
json::array masked_json(Composition& composition); // titles of the experts at fault, which take no part any more
std::size_t strongest(const Session& session, std::size_t position);

// "12 tokens at 5.1 tokens/s after 34 at 210; 41% of expert work skipped".
std::string speed_text(const Session& session);
json::object speed_json(const Session& session);

} // namespace tenon
