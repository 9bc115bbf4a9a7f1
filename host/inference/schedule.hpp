// Continuous batching: requests join and leave between steps, and all that are under way take each step together.
//
// Each step, every answer being written gets its next token; what is left of prefill_chunk rows goes to prompts being
// read, in equal shares; experts that have more than prefill_chunk rows to catch up do so over several steps, shared
// equally, too. So nobody waits longer than a step for what others are doing, save for two things: a place, or memory
// for its state, is waited for in order of arrival; and a request whose prompt begins like one being read waits for
// that beginning and takes it over. A text that begins like one known, live or just finished, goes on from a fork of
// it. A request that cannot be run ends alone, with its error, and the others go on. Thread: that of the composition.
#pragma once

#include "host/inference/generate.hpp"
#include "host/inference/state_size.hpp"
#include "host/inference/step.hpp"
#include "registry/base/error.hpp"

#include <chrono>
#include <deque>
#include <memory>
#include <optional>

namespace tenon {

struct ScheduleOptions {
  std::int64_t max_sequences = 8;   // under way at once
  std::int64_t prefill_chunk = 512; // most rows of prompts in a step
  std::uint64_t budget_bytes = 0;   // most memory for states, finished ones kept for reuse included; 0: no limit
  std::int64_t context = 0;         // as SessionOptions
  bool reuse = true;                // go on from texts that begin alike
};

struct BatchRequest {
  std::string id;
  std::vector<std::int32_t> prompt;
  GenerateOptions options;         // `interrupted` is not asked: cancel() does that
  std::vector<bool> excluded = {}; // slots that take no part; empty: none
};

// How strongly one slot spoke over the positions that gave the generated tokens.
struct SlotShare {
  std::int64_t strongest = 0;
  double mean_strength = 0;
};

struct Answer {
  std::string id;
  Generation made; // finish: `interrupted` where it was cancelled
  std::int64_t prompt_tokens = 0, reused_tokens = 0;
  double waited_seconds = 0, first_token_seconds = 0, seconds = 0; // since it was submitted
  std::vector<SlotShare> shares;
  std::optional<Error> error; // what ended it alone: a fault, or logits that no token can be drawn from

  double tokens_per_second() const; // after the first
};

class Scheduler {
 public:
  // Borrows the composition.
  Scheduler(Composition& composition, ScheduleOptions options);
  ~Scheduler();

  // Errors: usage (an empty prompt; more tokens than the context, or more state than the budget can hold; a token
  // outside the vocabulary; an id twice; sampling options out of range).
  void submit(BatchRequest request);
  // It ends before the next step, with what it has. Returns whether it was still waiting or under way.
  bool cancel(const std::string& id);
  void cancel_all();

  // Runs one step; returns what ended in it. Errors: those of step() that meet all who are under way alike.
  std::vector<Answer> step();
  bool idle() const { return waiting_.empty() && members_.empty(); }

  std::size_t waiting() const { return waiting_.size(); }
  std::size_t running() const { return members_.size(); }
  std::int64_t tokens_written() const { return tokens_written_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Waiting {
    BatchRequest request;
    Clock::time_point submitted;
    bool cancelled = false;
  };
  struct Member;
  struct Finished {
    Session session;
    std::size_t faults; // as a member's
    std::uint64_t reserved_bytes;
  };

  bool limited() const { return options_.budget_bytes > 0; }
  std::int64_t most_tokens(const BatchRequest& request) const;
  void check_size(const BatchRequest& request) const;
  void end_cancelled();
  void admit();
  void join(Waiting& waiting, std::uint64_t need);
  bool make_room(std::uint64_t bytes);
  bool ready_to_read(Member& member);
  std::vector<StepPart> plan();
  void run(const std::vector<StepPart>& parts);
  void run_each(const std::vector<StepPart>& parts);
  void fail(const Session& session, const Error& error);
  void write_next(Member& member);
  std::vector<Answer> take_finished();
  Answer answer(Member& member) const;
  void keep(Member& member);
  std::size_t faults() const;

  Composition& composition_;
  ScheduleOptions options_;
  std::int64_t context_;
  StateSize state_size_;
  std::deque<Waiting> waiting_;
  std::vector<std::unique_ptr<Member>> members_; // in order of arrival
  std::deque<Finished> finished_;                // oldest first
  std::uint64_t reserved_bytes_ = 0;             // of members and finished; 0 without a limit
  std::int64_t tokens_written_ = 0;
};

} // namespace tenon
