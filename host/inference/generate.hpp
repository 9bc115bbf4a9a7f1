// Continues a session token by token, until something says stop.
// Thread: that of the session.
#pragma once

#include "host/inference/sampling.hpp"
#include "host/inference/session.hpp"
#include "host/inference/stop_filter.hpp"

#include <functional>
#include <string>
#include <vector>

namespace tenon {

struct GenerateOptions {
  std::int64_t max_tokens = 256;
  SamplingOptions sampling;
  std::vector<std::string> stops;     // text that ends the answer and is not part of it
  std::vector<std::int32_t> stop_ids; // tokens that do the same
  bool skip_special = true;           // special tokens leave no text
  std::function<bool()> interrupted = {};
};

enum class Finish { stop_token, stop_string, max_tokens, context, interrupted };
const char* finish_name(Finish finish); // "stop-token", ...

struct Generation {
  std::vector<std::int32_t> tokens; // the stop token included
  std::string text;
  Finish finish = Finish::max_tokens;
  std::string stop; // the stop string that came
};

// What is written, token by token: the half of generation that runs no model.
// emit gets every piece of text as soon as it is sure: whole UTF-8 characters, never a part of a stop string.
// Piece::token counts generated tokens from 0; token i was written at position (prompt length - 1 + i).
class Writing {
 public:
  // Borrows the tokenizer. Errors: those of Sampler.
  Writing(const Tokenizer& tokenizer, GenerateOptions options, std::function<void(const Piece&)> emit = {});

  // The next token, drawn from these logits. Requires: not finished. Errors: those of Sampler.
  std::int32_t take(std::span<const float> logits_V);
  void end(Finish why);
  bool finished() const { return finished_; }
  const Generation& made() const { return made_; }

 private:
  void write(const std::vector<Piece>& pieces);

  GenerateOptions options_;
  std::function<void(const Piece&)> emit_;
  std::size_t vocab_;
  Sampler sampler_;
  StreamDecoder decoder_;
  StopFilter filter_;
  Generation made_;
  bool finished_ = false;
};

// emit: as above.
// Requires: the session is not empty. Errors: those of Session and Sampler.
Generation generate(Session& session, const GenerateOptions& options,
                    const std::function<void(const Piece&)>& emit = {});

} // namespace tenon
