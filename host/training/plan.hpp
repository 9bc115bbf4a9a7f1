// The plan of a training: one JSON file with a schema. `--set path=value` overrides a field; there is no second way.
//
//   {"architecture": "tenon.low_rank", "model": "smollm2", "config": {"rank": 16}, "data": {"paths": ["docs/"]}}
//
// Everything else has a default. A plan's digest leaves out where the text lies (the text has its own digest), so that
// a moved folder goes on with the same training. Thread: values; any.
#pragma once

#include "registry/base/json.hpp"
#include "registry/manifest.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

enum class RowObjective { domain, ntp, joint };

struct TrainingPlan {
  std::string architecture, model;
  std::string plugin;  // "acme.memory@^1"; empty: whichever plugin has the architecture
  json::object config; // the expert's own
  std::string version, summary, license;

  struct From {
    std::string model;
    Cut layers;
  };
  std::optional<From> from; // where an imported expert's blocks come from

  struct Data {
    std::vector<std::string> paths;
    std::string field, chat_template;
    bool chat; // dialogues, whose answers alone count for the loss
    std::int64_t sequence_length, held_out_blocks, max_tokens, seed;
    double held_out_share;
  } data;
  struct General {
    std::int64_t blocks; // of D_0, at most
  } general;
  struct Row {
    RowObjective objective;
    double l2, learning_rate;
    std::int64_t max_positions; // of each class
  } row;
  struct Train {
    std::int64_t steps, batch, accumulate, warmup, general_every, seed;
    double learning_rate, floor, weight_decay, clip, kl_weight, alone_share;
    bool bfloat16;
  } train;
  struct Stitch {
    double ridge;
    std::int64_t max_positions; // of each text
  } stitch;
  struct Pass {                            // instead of train, for what learns in a pass
    std::int64_t blocks, held_back_blocks; // in all; of them
  } pass;
  struct StreamOptions {
    bool bfloat16;
    double budget_gib;
  } streams;
  std::int64_t checkpoint_every, evaluate_every, evaluate_blocks;

  json::object json;  // all of it, defaults filled in
  json::object given; // as the user gave it

  // Errors: usage, naming each field that breaks the schema.
  static TrainingPlan parse(const json::value& value, const std::string& where);
  std::string digest() const;
  // Fields that were given and that this way of learning does not use are refused by name: a pass has no steps, no
  // learning rate and no row but the log-odds; steps have no pass. Errors: usage.
  void check_used(bool learns_in_a_pass) const;
  // The plan without them.
  json::object used(bool learns_in_a_pass) const;

  // Sequences of the expert's own text that all steps together ask for.
  std::int64_t domain_sequences() const;
  std::int64_t general_steps_before(std::int64_t step) const;
  bool is_general_step(std::int64_t step) const;
};

// Applies "train.steps=100" or "rank=16" to a plan. The value is JSON; what is none, and what is given for a field of
// text, is a string. A name without a dot that is no field of the plan itself belongs to the expert's configuration:
// "rank" is "config.rank". Errors: usage.
void set_field(json::object& plan, std::string_view assignment);

const json::object& plan_schema();

} // namespace tenon
