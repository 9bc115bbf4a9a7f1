// The one table of rules for loading a plugin and an expert, and its runners. load stops a package at its first
// refusal; `tenon plugin check` and `tenon doctor` list them all. A rule is a pure function of a Candidate; none opens
// a library.
//
//   id                  step  refuses                                                                   exit
//   TN-P1  package       1    an entry that disagrees with its own manifest, or is no plugin's             5
//   TN-P2  platform      5    a build for another compiler, C++ library, LibTorch, CUDA or CPU             4
//   TN-P3  abi           5    a plugin that needs a newer boundary, or was built for another major         4
//   TN-P4  digest        3    library bytes that are not what the entry says                               5
//   TN-P5  elf           4    a file that is no shared library for this CPU                                5 / 4
//   TN-P6  facts         4    no facts note, or facts that break their schema                              5
//   TN-P7  exports       4    anything exported but tenon_plugin_entry                                     5
//   TN-P8  needed        4    a library of its own: a second LibTorch or OpenMP above all                  4
//   TN-P9  paths         4    a built-in search path (RPATH, RUNPATH)                                      5
//   TN-P10 registers     4    imported operator registration: it would abort the host inside dlopen        5
//   TN-P11 cpu           4    CPU features this machine lacks                                              4
//   TN-P12 operators     5    operators this host lacks                                                    4
//   TN-P13 architecture  6    an architecture, context or use the plugin does not have                     4
//   TN-P14 config        6    a configuration that breaks the architecture's schema                        4
//   TN-P15 width         6    a model width the architecture cannot have                                   4
//   TN-P16 precision     6    a dtype it cannot compute in                                                 4
//   TN-P17 device        6    a device it cannot run on                                                    4
//   TN-P18 load          8    what the dynamic loader refuses: undefined symbols                           7
//   TN-P19 descriptor    8    a table that says something else than the facts, or lacks what its tier needs  7
//   TN-P20 weights       9    weights missing, extra, misshapen, of another type                           5
//   TN-P21 agreement     4    embedded facts that differ from the package's                                5
//   TN-P22 plugin        6    a plugin other than the one the expert asks for, or out of its range         4
//   TN-P23 init          8    a plugin that fails to start                                              7
//   TN-R10 model, TN-R11 base, TN-R12 contract: the registry's, at step 6, for an expert of another model  4
//
// Ids are never given a second meaning. Thread: values; any thread.
#pragma once

#include "host/loading/elf.hpp"
#include "host/loading/facts.hpp"
#include "host/loading/platform.hpp"
#include "registry/base/error.hpp"
#include "registry/manifest.hpp"
#include "registry/package.hpp"

#include <tenon/plugin.h>

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace tenon {

// All that the rules may look at. Members that were not given are simply not judged. Borrows everything it points to.
struct Candidate {
  std::string title; // "acme.conv 1.2.0"; the file's name until its facts are read

  // The library.
  std::span<const std::byte> bytes;
  std::string digest;           // of the bytes: "sha256:..."; "" where nobody computed it
  const Entry* entry = nullptr; // of the plugin's package, where it comes from a registry
  std::optional<ElfFile> elf;
  std::optional<Facts> facts;
  std::string elf_problem, facts_problem; // why elf or facts are absent
  const HostSide* host = nullptr;

  // The expert that shall join a model.
  const ExpertManifest* expert = nullptr;
  const ModelManifest* model = nullptr;
  std::string dtype = "float32", device = "cpu";

  // After step 8: what the open library says, or why it does not open. After create in step 9: the tensors the expert
  // asks for, each with source "base:<tensor>" where it is shared with the base, else "".
  const tenon_plugin* table = nullptr;
  std::string open_problem, init_problem;
  std::optional<std::vector<WeightRecord>> parameters;
};

// Parses ELF and facts as far as they go; problems become elf_problem and facts_problem, for the rules to report.
Candidate library_candidate(std::span<const std::byte> bytes, std::string file_name, const HostSide& host);

struct Rule {
  const char* id;     // "TN-P2 platform"
  int step;           // 1..9 of loading
  const char* checks; // what holds where it is ok: "built for this platform"
  const char* remedy; // what the culprit does about a refusal
  // Whether the candidate holds what this rule looks at.
  bool (*applies)(const Candidate&);
  std::optional<Refusal> (*judge)(const Candidate&);
};

std::span<const Rule> loading_rules(); // in the order in which they run

// The first refusal of steps first..last, or none.
std::optional<Refusal> first_refusal(const Candidate& candidate, int first_step, int last_step);

enum class Verdict { ok, refused, not_judged };
struct Judgement {
  const Rule* rule;
  Verdict verdict;
  std::optional<Refusal> refusal;
};
// Every rule, in order.
std::vector<Judgement> judge(const Candidate& candidate);

} // namespace tenon
