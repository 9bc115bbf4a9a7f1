// tenon::RunExpert: what the author of an expert derives from whose inference is one run of blocks over h and nothing
// else. The host may then run several such experts in one call: those that share the base's weights read them once for
// all, each adding its own changes of low rank. And rows that nobody reads it leaves unfinished. "tenon.run/1" in C;
// TENON_PLUGIN makes it.
//
// Thread: one call at a time per expert.
#pragma once

#include <tenon/operators.hpp>

#include <optional>

namespace tenon {

struct Run {
  Packed blocks; // of operators::pack_run
  std::uint32_t slot = 0;
};

class RunExpert : public Expert {
 public:
  using Expert::Expert;

  // After train(false): forward(in) == operators::run(in.h_NC, blocks, in.spans, slot), bit for bit. nullopt where the
  // configuration makes it something else.
  virtual std::optional<Run> run() = 0;
};

} // namespace tenon
