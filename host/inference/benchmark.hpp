// How fast a composition reads and writes, beside what the machine could do at that moment.
//
// Every figure is measured between two probes of the machine, and told as a fraction of the limit that their mean sets:
// a prompt is bound by products (their peaks), a step by the bytes it must read (bandwidth): weights of trunk, head and
// the experts that ran, and the keys and values of what came before.
// Thread: one; nothing else should run beside it.
#pragma once

#include "host/inference/cost.hpp"
#include "host/inference/session.hpp"

#include <functional>
#include <string>
#include <vector>

namespace tenon {

struct BenchmarkOptions {
  std::vector<std::int64_t> prompts = {512};     // lengths of prompts
  std::vector<std::int64_t> contexts = {0, 512}; // lengths of what stands before the steps
  std::int64_t steps = 64;                       // written after each
  std::int64_t rounds = 5;
  std::function<bool()> interrupted = {};
  std::function<void(std::int64_t done, std::int64_t total)> progress = {}; // in tokens read and written
};

struct BenchmarkMachine {
  cpu::Limits one_thread, all_threads;
};

struct BenchmarkRun {
  double rate = 0;          // tokens/s
  double limit = 0;         // tokens/s that the machine could do; 0 where it is not known
  double skipped = 0;       // of expert work
  double longest = 0;       // seconds of the 99th percentile of steps
  BenchmarkMachine machine; // mean of the probes before and after
};

struct BenchmarkPhase {
  bool prompt = false;
  std::int64_t tokens = 0; // of the prompt; or those before the steps
  std::vector<BenchmarkRun> runs;

  std::string name() const { return prompt ? "prompt" : "steps"; }
};

struct Benchmark {
  BenchmarkMachine machine; // at the start
  int threads = 1;
  std::vector<BenchmarkPhase> phases;
};

// The middle one of several, or the mean of the middle two. Requires: not empty.
double median(std::vector<double> values);

// text: real tokens, taken from the beginning and again from there where they end. Everything runs once unmeasured.
// Requires: at least one round and one step. Errors: usage (lengths beyond the context; more tokens in all than anybody
// waits for; no text), interrupted, asked for between tokens; those of Session.
Benchmark benchmark(Composition& composition, std::span<const std::int32_t> text, const BenchmarkOptions& options);

} // namespace tenon
