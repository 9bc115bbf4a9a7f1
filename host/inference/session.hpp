// A session: one sequence in a composition, read and continued.
//
// Tokens are appended first and run when logits are asked for: a prompt in chunks, with logits for its last position
// only. What has been run is remembered, so that a conversation costs its new tokens alone.
// A call that fails leaves the session at what had been run before.
// Thread: one; sessions over one composition take turns, or run together in one step (step.hpp).
#pragma once

#include "host/composition/composition.hpp"

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace tenon {

struct SessionOptions {
  std::int64_t prefill_chunk = 512;
  std::int64_t context = 0;               // most tokens of a sequence, as context_of() says
  std::function<bool()> interrupted = {}; // asked between chunks
  // Of a text longer than a chunk: tokens that were run, and all that are to be, after every chunk.
  std::function<void(std::int64_t done, std::int64_t total)> progress = {};
  std::vector<bool> excluded = {}; // slots that take no part: as if the composition were without them
};

// Tokens and time, prompts (more than one token at once) and single steps apart.
struct Speed {
  std::int64_t prefill_tokens = 0, decode_tokens = 0;
  double prefill_seconds = 0, decode_seconds = 0;
  double prefill_rate() const {
    return prefill_seconds > 0 ? static_cast<double>(prefill_tokens) / prefill_seconds : 0;
  }
  double decode_rate() const { return decode_seconds > 0 ? static_cast<double>(decode_tokens) / decode_seconds : 0; }
};

class Session {
 public:
  // Borrows the composition.
  explicit Session(Composition& composition, SessionOptions options = {});

  // Errors: usage (more than the context holds, both numbers named; an id outside the vocabulary). Runs nothing yet.
  void append(std::span<const std::int32_t> tokens);
  // Logits of the token after the last one, (V), borrowed until the next call. Requires: not empty.
  // Errors: plugin (strict), interrupted.
  std::span<const float> logits();

  const std::vector<std::int32_t>& tokens() const { return tokens_; }
  std::int64_t room() const { return context_ - static_cast<std::int64_t>(tokens_.size()); }
  std::int64_t context() const { return context_; }

  // An independent copy of what has been run; it shares memory with this one for as long as both hold it.
  Session fork() const;
  // Back to `length` tokens. Requires: no more than there are.
  void truncate(std::size_t length);

  // The strengths (E) at a position that has been run; a masked expert's share counts for the base.
  std::vector<float> strengths(std::size_t position) const;
  std::size_t positions_run() const { return static_cast<std::size_t>(strengths_.length()); }
  // It has read further than it has run, and waits for its experts to catch up.
  bool held() const { return held_TE_.defined(); }
  const Speed& speed() const { return speed_; }
  Composition& composition() const { return *composition_; }

  const SessionOptions& options() const { return options_; }

 private:
  friend class Step;
  friend class SessionFile;
  Session(const Session& other, Sequence sequence);
  void back_to(std::int64_t length);

  Composition* composition_;
  SessionOptions options_;
  std::int64_t context_;
  Sequence sequence_;
  std::vector<std::int32_t> tokens_; // the first positions_run() of them have been run
  RowBuffer strengths_;              // of every position run
  at::Tensor held_TE_;               // strengths of positions read and not yet run; undefined where there are none
  at::Tensor logits_V_;              // of the last position run; undefined when they are not known
  Speed speed_;
};

// The longest sequence: what is asked for, or with 0 what the model was made for; never more than the positions that a
// model has learned.
std::int64_t context_of(const Model& model, std::int64_t asked = 0);
// What to do where a text is longer.
std::string context_remedy(const Model& model);

} // namespace tenon
