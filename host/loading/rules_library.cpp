// Rules that look at the library: its bytes, its facts, this host.
#include "host/loading/rules.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

namespace tenon {
namespace {

constexpr const char* kBuild = "build it with tenon_add_plugin()";

Refusal refusal(Code code, const char* rule, const Candidate& c, const std::string& message,
                const std::string& remedy) {
  return {code, rule, c.title + ": " + message, remedy};
}

// What a plugin may need of the system beside what the host has: the C and C++ run-time libraries.
bool allowed_library(std::string_view name) {
  constexpr std::array kAllowed = {"libstdc++.so.6",  "libm.so.6",  "libgcc_s.so.1", "libc.so.6",
                                   "libpthread.so.0", "libdl.so.2", "librt.so.1"};
  return std::find(kAllowed.begin(), kAllowed.end(), name) != kAllowed.end() || name.starts_with("ld-linux");
}

std::string why_not(std::string_view library) {
  for (const char* openmp : {"libgomp", "libomp", "libiomp"}) {
    if (library.starts_with(openmp))
      return "a second OpenMP fights with the host's over threads; use the host's parallel_for";
  }
  for (const char* torch : {"libtorch", "libc10"}) {
    if (library.starts_with(torch))
      return "the host has LibTorch already; compile against its headers and link none of it";
  }
  return "link it statically, or do without";
}

// Mangled parts of what registers operators, kernels or classes in LibTorch. A second registration of a name aborts the
// process inside dlopen, before anybody can catch it.
bool registers(std::string_view symbol) {
  constexpr std::array kParts = {"5torch7Library",
                                 "17RegisterOperators",
                                 "10Dispatcher11registerDef",
                                 "10Dispatcher12registerImpl",
                                 "10Dispatcher12registerName",
                                 "10Dispatcher15registerLibrary",
                                 "10Dispatcher16registerFallback",
                                 "5torch19registerCustomClass",
                                 "5torch3jit16registerOperator"};
  return std::any_of(kParts.begin(), kParts.end(), [&](const char* part) { return symbol.find(part) != symbol.npos; });
}

bool contains(const std::vector<std::string>& list, const std::string& wanted) {
  return std::find(list.begin(), list.end(), wanted) != list.end();
}

// What all architectures of a plugin need together and the host lacks.
std::vector<std::string> lacking(const Facts& facts, std::vector<std::string> ArchitectureFacts::*needs,
                                 const std::vector<std::string>& has) {
  std::vector<std::string> out;
  for (const ArchitectureFacts& architecture : facts.architectures) {
    for (const std::string& one : architecture.*needs) {
      if (!contains(has, one) && !contains(out, one)) out.push_back(one);
    }
  }
  return out;
}

} // namespace

std::optional<Refusal> judge_package(const Candidate& c) {
  constexpr const char* kRule = "TN-P1 package";
  constexpr const char* kRemedy = "publish the plugin again";
  const Entry& entry = *c.entry;
  const auto refuse = [&](const std::string& message) {
    return Refusal{Code::integrity, kRule, entry.title() + ": " + message, kRemedy};
  };
  if (entry.kind != Kind::plugin)
    return refuse(fmt::format("found a package of kind {}, need a plugin", kind_name(entry.kind)));
  if (entry.files_with_role("library").size() != 1) {
    return refuse(fmt::format("found {} libraries in the package, need one", entry.files_with_role("library").size()));
  }
  try {
    const Facts facts = Facts::parse(canonical_json(entry.manifest), entry.title());
    if (facts.name != entry.name || !(facts.version == entry.version)) {
      return refuse("found facts of " + facts.title() + ", need those of " + entry.title());
    }
    if (facts.platform.text() != entry.platform) {
      return refuse(fmt::format("found the platform {} in the entry and {} in the facts, need the same", entry.platform,
                                facts.platform.text()));
    }
    if (facts.source != entry.source) {
      return refuse(fmt::format("found the source {} in the entry and {} in the facts, need the same", entry.source,
                                facts.source));
    }
  } catch (const Error& error) {
    return refuse(error.message);
  }
  return std::nullopt;
}

std::optional<Refusal> judge_digest(const Candidate& c) {
  const std::string& promised = c.entry->file_with_role("library").digest;
  if (promised == c.digest) return std::nullopt;
  return refusal(Code::integrity, "TN-P4 digest", c,
                 fmt::format("found a library {}, its entry says {}", c.digest, promised),
                 "get the package again: tenon verify " + c.entry->name);
}

std::optional<Refusal> judge_elf(const Candidate& c) {
  constexpr const char* kRule = "TN-P5 elf";
  if (!c.elf) return refusal(Code::integrity, kRule, c, c.elf_problem, kBuild);
  if (!c.elf->shared_object()) return refusal(Code::integrity, kRule, c, "found no shared library, need one", kBuild);
  if (c.host && c.elf->machine() != c.host->platform.cpu) {
    return refusal(Code::incompatible, kRule, c,
                   fmt::format("found a library for {}, this machine is {}", c.elf->machine(), c.host->platform.cpu),
                   "build it on this kind of machine");
  }
  return std::nullopt;
}

std::optional<Refusal> judge_facts(const Candidate& c) {
  if (c.facts) return std::nullopt;
  return refusal(Code::integrity, "TN-P6 facts", c, c.facts_problem, kBuild);
}

std::optional<Refusal> judge_agreement(const Candidate& c) {
  const std::string inside = canonical_json(c.facts->json), outside = canonical_json(c.entry->manifest);
  if (inside == outside) return std::nullopt;
  return refusal(Code::integrity, "TN-P21 agreement", c,
                 fmt::format("found facts of {} in the library, and others ({}) in its package", c.facts->title(),
                             c.entry->title()),
                 "publish the plugin again");
}

std::optional<Refusal> judge_exports(const Candidate& c) {
  constexpr const char* kRule = "TN-P7 exports";
  const auto& exports = c.elf->exports();
  if (std::find(exports.begin(), exports.end(), "tenon_plugin_entry") == exports.end()) {
    return refusal(Code::integrity, kRule, c, "found no tenon_plugin_entry, need it as the one exported symbol",
                   "put TENON_PLUGIN(...) into one of its sources");
  }
  if (exports.size() == 1) return std::nullopt;
  const auto other =
      std::find_if(exports.begin(), exports.end(), [](auto name) { return name != "tenon_plugin_entry"; });
  return refusal(
      Code::integrity, kRule, c,
      fmt::format("found {} exported symbols ({} among them), need tenon_plugin_entry alone", exports.size(), *other),
      kBuild);
}

std::optional<Refusal> judge_needed(const Candidate& c) {
  for (const std::string_view library : c.elf->needed()) {
    if (allowed_library(library)) continue;
    return refusal(Code::incompatible, "TN-P8 needed", c,
                   fmt::format("found a need for {}, the host lends only the C and C++ run-time libraries", library),
                   why_not(library));
  }
  return std::nullopt;
}

std::optional<Refusal> judge_paths(const Candidate& c) {
  if (c.elf->search_paths().empty()) return std::nullopt;
  return refusal(
      Code::integrity, "TN-P9 paths", c,
      fmt::format("found the built-in search path {}, need none: it could bring in other libraries than the host's",
                  c.elf->search_paths().front()),
      kBuild);
}

std::optional<Refusal> judge_registers(const Candidate& c) {
  for (const std::string_view symbol : c.elf->imports()) {
    if (!registers(symbol)) continue;
    return refusal(
        Code::integrity, "TN-P10 registers", c,
        fmt::format("found an import of {}, need no registration with LibTorch: a second one aborts the host", symbol),
        "call the functions directly; the host's own operators are in <tenon/operators.hpp>");
  }
  return std::nullopt;
}

std::optional<Refusal> judge_cpu(const Candidate& c) {
  const auto lacks = lacking(*c.facts, &ArchitectureFacts::cpu_features, c.host->cpu_features);
  if (lacks.empty()) return std::nullopt;
  return refusal(Code::incompatible, "TN-P11 cpu", c,
                 fmt::format("needs the CPU features {}, this machine has {}", fmt::join(lacks, ", "),
                             fmt::join(c.host->cpu_features, ", ")),
                 "build it for fewer features, or run it on another machine");
}

std::optional<Refusal> judge_abi(const Candidate& c) {
  constexpr const char* kRule = "TN-P3 abi";
  const Facts& facts = *c.facts;
  const AbiVersion& host = c.host->abi;
  if (facts.abi_built.major != host.major) {
    const bool plugin_is_newer = facts.abi_built.major > host.major;
    return refusal(Code::incompatible, kRule, c,
                   fmt::format("built for boundary {}, host has {}", facts.abi_built.text(), host.text()),
                   plugin_is_newer ? "update Tenon" : "build the plugin again with this Tenon's SDK");
  }
  if (facts.abi_needs <= host) return std::nullopt;
  return refusal(Code::incompatible, kRule, c,
                 fmt::format("needs boundary {} at least, host has {}", facts.abi_needs.text(), host.text()),
                 "update Tenon");
}

std::optional<Refusal> judge_platform(const Candidate& c) {
  if (c.facts->tier != "tenon.native/1")
    return refusal(Code::incompatible, "TN-P2 platform", c,
                   fmt::format("its tier is {}, host runs tenon.native/1", c.facts->tier),
                   "build it on tenon::Expert, or update Tenon");
  const Platform &plugin = c.facts->platform, &host = c.host->platform;
  std::vector<std::string> differences;
  const auto compare = [&](const char* what, const std::string& built, const std::string& has) {
    if (built != has) differences.push_back(fmt::format("built for {} {}, host has {}", what, built, has));
  };
  compare("LibTorch", plugin.libtorch, host.libtorch);
  compare("compiler", plugin.compiler, host.compiler);
  compare("C++ library", plugin.stdlib, host.stdlib);
  compare("CUDA", plugin.cuda, host.cuda);
  compare("CPU", plugin.cpu, host.cpu);
  if (differences.empty()) return std::nullopt;
  return refusal(Code::incompatible, "TN-P2 platform", c, fmt::format("{}", fmt::join(differences, "; ")),
                 fmt::format("build it again with this Tenon's SDK and LibTorch {}, or ask {} for such a build",
                             host.libtorch, c.facts->vendor));
}

std::optional<Refusal> judge_operators(const Candidate& c) {
  const auto lacks = lacking(*c.facts, &ArchitectureFacts::operators, c.host->operators);
  if (lacks.empty()) return std::nullopt;
  return refusal(Code::incompatible, "TN-P12 operators", c,
                 fmt::format("calls {}, host has {}", fmt::join(lacks, ", "), fmt::join(c.host->operators, ", ")),
                 "update Tenon, or correct \"operators\" in plugin.json");
}

std::optional<Refusal> judge_load(const Candidate& c) {
  if (c.open_problem.empty()) return std::nullopt;
  return refusal(Code::plugin, "TN-P18 load", c, "the dynamic loader refuses it: " + c.open_problem,
                 "build it against this host's LibTorch; its link check names what is missing");
}

std::optional<Refusal> judge_descriptor(const Candidate& c) {
  const tenon_plugin& table = *c.table;
  const auto refuse = [&](const std::string& message) {
    return refusal(Code::plugin, "TN-P19 descriptor", c, message, "export the entry with TENON_PLUGIN()");
  };
  if (table.struct_size < sizeof(tenon_plugin)) {
    return refuse(fmt::format("found a table of {} bytes, need {}", table.struct_size, sizeof(tenon_plugin)));
  }
  const AbiVersion built{table.abi_major, table.abi_minor}, needs{table.needs_abi_major, table.needs_abi_minor};
  if (built != c.facts->abi_built || needs != c.facts->abi_needs) {
    return refuse(fmt::format("found a table built for {} needing {}, its facts say {} and {}", built.text(),
                              needs.text(), c.facts->abi_built.text(), c.facts->abi_needs.text()));
  }
  if (!table.init || !table.extension) return refuse("found a table without init or extension, need both");
  const auto* experts = static_cast<const tenon_expert_table*>(table.extension(c.facts->tier.c_str()));
  if (!experts) return refuse(fmt::format("found no {}, its facts say it has that tier", c.facts->tier));
  if (experts->struct_size < sizeof(tenon_expert_table)) {
    return refuse(
        fmt::format("found an expert table of {} bytes, need {}", experts->struct_size, sizeof(tenon_expert_table)));
  }
  const bool complete = experts->create && experts->destroy && experts->parameters && experts->state_layout &&
                        experts->initialize && experts->bind && experts->prepare && experts->forward;
  if (!complete) return refuse("found an expert table with empty functions, need all of them");
  return std::nullopt;
}

std::optional<Refusal> judge_init(const Candidate& c) {
  if (c.init_problem.empty()) return std::nullopt;
  return refusal(Code::plugin, "TN-P23 init", c, c.init_problem, "ask its vendor, " + c.facts->vendor);
}

} // namespace tenon
