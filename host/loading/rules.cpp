#include "host/loading/rules.hpp"

namespace tenon {

// The rules themselves, by what they look at.
std::optional<Refusal> judge_package(const Candidate& c);
std::optional<Refusal> judge_digest(const Candidate& c);
std::optional<Refusal> judge_elf(const Candidate& c);
std::optional<Refusal> judge_facts(const Candidate& c);
std::optional<Refusal> judge_agreement(const Candidate& c);
std::optional<Refusal> judge_exports(const Candidate& c);
std::optional<Refusal> judge_needed(const Candidate& c);
std::optional<Refusal> judge_paths(const Candidate& c);
std::optional<Refusal> judge_registers(const Candidate& c);
std::optional<Refusal> judge_cpu(const Candidate& c);
std::optional<Refusal> judge_abi(const Candidate& c);
std::optional<Refusal> judge_platform(const Candidate& c);
std::optional<Refusal> judge_operators(const Candidate& c);
std::optional<Refusal> judge_plugin(const Candidate& c);
std::optional<Refusal> judge_architecture(const Candidate& c);
std::optional<Refusal> judge_config(const Candidate& c);
std::optional<Refusal> judge_model(const Candidate& c);
std::optional<Refusal> judge_base(const Candidate& c);
std::optional<Refusal> judge_contract(const Candidate& c);
std::optional<Refusal> judge_width(const Candidate& c);
std::optional<Refusal> judge_precision(const Candidate& c);
std::optional<Refusal> judge_device(const Candidate& c);
std::optional<Refusal> judge_load(const Candidate& c);
std::optional<Refusal> judge_descriptor(const Candidate& c);
std::optional<Refusal> judge_init(const Candidate& c);
std::optional<Refusal> judge_weights(const Candidate& c);

namespace {

bool has_entry(const Candidate& c) { return c.entry != nullptr; }
bool has_entry_and_digest(const Candidate& c) {
  return c.entry && !c.digest.empty() && c.entry->files_with_role("library").size() == 1;
}
bool has_library(const Candidate& c) { return c.elf.has_value() || !c.elf_problem.empty(); }
bool has_elf(const Candidate& c) { return c.elf.has_value(); }
bool has_entry_and_facts(const Candidate& c) { return c.entry && c.facts; }
bool has_facts_and_host(const Candidate& c) { return c.facts && c.host; }
bool has_expert_and_facts(const Candidate& c) { return c.facts && c.expert; }
bool has_architecture(const Candidate& c) {
  return c.facts && c.expert && c.facts->architecture(c.expert->architecture);
}
bool has_expert_and_model(const Candidate& c) { return c.expert && c.model; }
bool has_architecture_and_model(const Candidate& c) { return has_architecture(c) && c.model; }
bool was_opened(const Candidate& c) { return c.table || !c.open_problem.empty(); }
bool has_table_and_facts(const Candidate& c) { return c.table && c.facts; }
bool has_parameters(const Candidate& c) { return c.expert && c.parameters; }

constexpr Rule kRules[] = {
    {"TN-P1 package", 1, "the package's entry and its facts agree with each other", "publish the plugin again",
     has_entry, judge_package},
    {"TN-P4 digest", 3, "the library has the bytes its entry promises", "get the package again", has_entry_and_digest,
     judge_digest},
    {"TN-P5 elf", 4, "a shared library for this CPU", "build it with tenon_add_plugin()", has_library, judge_elf},
    {"TN-P6 facts", 4, "facts are embedded and keep their schema", "build it with tenon_add_plugin()", has_elf,
     judge_facts},
    {"TN-P21 agreement", 4, "embedded facts and the package's are the same", "publish the plugin again",
     has_entry_and_facts, judge_agreement},
    {"TN-P7 exports", 4, "tenon_plugin_entry is exported, and nothing else", "build it with tenon_add_plugin()",
     has_elf, judge_exports},
    {"TN-P8 needed", 4, "no library of its own: no second LibTorch, no OpenMP", "link it statically, or do without",
     has_elf, judge_needed},
    {"TN-P9 paths", 4, "no built-in search path", "build it with tenon_add_plugin()", has_elf, judge_paths},
    {"TN-P10 registers", 4, "registers no operators or classes with LibTorch", "call functions directly", has_elf,
     judge_registers},
    {"TN-P11 cpu", 4, "this CPU has the features it needs", "build it for fewer features", has_facts_and_host,
     judge_cpu},
    {"TN-P3 abi", 5, "this host's boundary is within the plugin's range", "update Tenon, or build the plugin again",
     has_facts_and_host, judge_abi},
    {"TN-P2 platform", 5, "built for this compiler, C++ library, LibTorch, CUDA and CPU",
     "build it again for this host", has_facts_and_host, judge_platform},
    {"TN-P12 operators", 5, "this host has every operator it calls", "update Tenon", has_facts_and_host,
     judge_operators},
    {"TN-P22 plugin", 6, "the plugin and version the expert asks for", "install a version in the range",
     has_expert_and_facts, judge_plugin},
    {"TN-P13 architecture", 6, "the plugin has the expert's architecture, context and uses",
     "take a plugin version that has it", has_expert_and_facts, judge_architecture},
    {"TN-P14 config", 6, "the configuration keeps the architecture's schema", "correct the fields named",
     has_architecture, judge_config},
    {"TN-R10 model", 6, "made for this trunk and head", "train it for this model", has_expert_and_model, judge_model},
    {"TN-R11 base", 6, "made beside this base", "train it for this model", has_expert_and_model, judge_base},
    {"TN-R12 contract", 6, "cut, width, tokenizer, dtype and positions are the model's", "train it for this model",
     has_expert_and_model, judge_contract},
    {"TN-P15 width", 6, "the architecture can have the model's width", "choose another architecture",
     has_architecture_and_model, judge_width},
    {"TN-P16 precision", 6, "the architecture computes in the dtype asked for", "ask for one of its precisions",
     has_architecture, judge_precision},
    {"TN-P17 device", 6, "the architecture runs on the device asked for", "ask for one of its devices",
     has_architecture, judge_device},
    {"TN-P18 load", 8, "the dynamic loader can open it", "build it against this host", was_opened, judge_load},
    {"TN-P19 descriptor", 8, "the open library says what its facts say", "build it with TENON_PLUGIN()",
     has_table_and_facts, judge_descriptor},
    {"TN-P23 init", 8, "it starts", "ask its vendor", has_table_and_facts, judge_init},
    {"TN-P20 weights", 9, "the weights are exactly those the architecture asks for",
     "train or publish the expert again", has_parameters, judge_weights},
};

} // namespace

std::span<const Rule> loading_rules() { return kRules; }

std::optional<Refusal> first_refusal(const Candidate& candidate, int first_step, int last_step) {
  for (const Rule& rule : kRules) {
    if (rule.step < first_step || rule.step > last_step || !rule.applies(candidate)) continue;
    if (auto refusal = rule.judge(candidate)) return refusal;
  }
  return std::nullopt;
}

std::vector<Judgement> judge(const Candidate& candidate) {
  std::vector<Judgement> out;
  for (const Rule& rule : kRules) {
    if (!rule.applies(candidate)) {
      out.push_back({&rule, Verdict::not_judged, std::nullopt});
      continue;
    }
    auto refusal = rule.judge(candidate);
    out.push_back({&rule, refusal ? Verdict::refused : Verdict::ok, std::move(refusal)});
  }
  return out;
}

Candidate library_candidate(std::span<const std::byte> bytes, std::string file_name, const HostSide& host) {
  Candidate out;
  out.title = std::move(file_name);
  out.bytes = bytes;
  out.host = &host;
  try {
    out.elf = ElfFile::parse(bytes, out.title);
  } catch (const Error& error) {
    out.elf_problem = error.message;
    return out;
  }
  try {
    out.facts = read_facts(bytes, out.title);
    out.title = out.facts->title();
  } catch (const Error& error) {
    out.facts_problem = error.message;
  }
  return out;
}

} // namespace tenon
