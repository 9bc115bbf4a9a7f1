// Rules that look at an expert: what it asks of its plugin, and what the model asks of it.
#include "host/loading/rules.hpp"

#include "registry/base/schema.hpp"
#include "registry/rules.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace tenon {
namespace {

std::string expert_title(const Candidate& c) { return c.expert->name + " " + c.expert->version.text(); }

Refusal refusal(Code code, const char* rule, const Candidate& c, const std::string& message,
                const std::string& remedy) {
  return {code, rule, expert_title(c) + ": " + message, remedy};
}

const ArchitectureFacts& architecture(const Candidate& c) { return *c.facts->architecture(c.expert->architecture); }

std::string names(const Facts& facts) {
  std::vector<std::string> out;
  for (const ArchitectureFacts& one : facts.architectures) out.push_back(one.name);
  return fmt::format("{}", fmt::join(out, ", "));
}

std::optional<Refusal> contract_refusal(const Candidate& c, const char* rule) {
  const std::string model = c.model->name + " " + c.model->version.text();
  for (Refusal& one : contract_refusals(expert_title(c), c.expert->contract, model, c.model->contract)) {
    if (one.rule == rule) return std::move(one);
  }
  return std::nullopt;
}

bool contains(const std::vector<std::string>& list, const std::string& wanted) {
  return std::find(list.begin(), list.end(), wanted) != list.end();
}

std::string shape_text(const std::vector<std::int64_t>& shape) { return fmt::format("({})", fmt::join(shape, ", ")); }

// A weight's source: its own file, or the base.
std::string base_tensor(const WeightRecord& record) {
  return record.source.starts_with("base:") ? record.source : std::string();
}

// In what way a stored weight is not what the architecture asks for; empty where it is.
std::string difference(const WeightRecord& has, const WeightRecord& needs) {
  if (has.shape != needs.shape)
    return fmt::format("found shape {}, need {}", shape_text(has.shape), shape_text(needs.shape));
  if (has.dtype != needs.dtype) return fmt::format("found dtype {}, need {}", has.dtype, needs.dtype);
  if (base_tensor(has) != base_tensor(needs)) {
    const auto own = [](const std::string& base) { return base.empty() ? std::string("its own values") : base; };
    return fmt::format("found {}, need {}", own(base_tensor(has)), own(base_tensor(needs)));
  }
  return "";
}

} // namespace

std::optional<Refusal> judge_plugin(const Candidate& c) {
  if (c.expert->plugin.name == c.facts->name && c.expert->plugin.range.matches(c.facts->version)) return std::nullopt;
  return refusal(Code::incompatible, "TN-P22 plugin", c,
                 fmt::format("needs the plugin {}, found {}", c.expert->plugin.text(), c.facts->title()),
                 "install a version in the range, or train the expert again with this one");
}

std::optional<Refusal> judge_architecture(const Candidate& c) {
  constexpr const char* kRule = "TN-P13 architecture";
  const ArchitectureFacts* found = c.facts->architecture(c.expert->architecture);
  if (!found) {
    return refusal(
        Code::incompatible, kRule, c,
        fmt::format("needs the architecture {}, {} has {}", c.expert->architecture, c.facts->title(), names(*c.facts)),
        "take a plugin version that has it");
  }
  if (c.expert->context != found->context.text()) {
    return refusal(Code::incompatible, kRule, c,
                   fmt::format("was made with context {}, {} of {} has {}", c.expert->context, found->name,
                               c.facts->title(), found->context.text()),
                   "take the plugin version it was trained with, or train it again");
  }
  for (const std::string& use : found->uses) {
    if (contains(c.expert->uses, use)) continue;
    return refusal(Code::incompatible, kRule, c,
                   fmt::format("was made without {}, {} of {} uses it", use, found->name, c.facts->title()),
                   "take the plugin version it was trained with, or train it again");
  }
  return std::nullopt;
}

std::optional<Refusal> judge_config(const Candidate& c) {
  const Schema schema(architecture(c).config, architecture(c).name + " config");
  const auto problems = schema.problems(schema.with_defaults(c.expert->config));
  if (problems.empty()) return std::nullopt;
  return refusal(Code::incompatible, "TN-P14 config", c,
                 fmt::format("config of {}: {}", architecture(c).name, fmt::join(problems, "; ")),
                 "correct the fields named");
}

std::optional<Refusal> judge_model(const Candidate& c) { return contract_refusal(c, rules::kModel); }
std::optional<Refusal> judge_base(const Candidate& c) { return contract_refusal(c, rules::kBase); }
std::optional<Refusal> judge_contract(const Candidate& c) { return contract_refusal(c, rules::kContract); }

std::optional<Refusal> judge_width(const Candidate& c) {
  const std::int64_t width = c.model->contract.width;
  if (architecture(c).widths.allow(width)) return std::nullopt;
  return refusal(Code::incompatible, "TN-P15 width", c,
                 fmt::format("{} can have widths: {}; {} has {}", architecture(c).name, architecture(c).widths.text(),
                             c.model->name, width),
                 "choose another architecture");
}

std::optional<Refusal> judge_precision(const Candidate& c) {
  if (contains(architecture(c).precisions, c.dtype)) return std::nullopt;
  return refusal(Code::incompatible, "TN-P16 precision", c,
                 fmt::format("{} computes in {}, asked for {}", architecture(c).name,
                             fmt::join(architecture(c).precisions, ", "), c.dtype),
                 "ask for one of its precisions");
}

std::optional<Refusal> judge_device(const Candidate& c) {
  if (contains(architecture(c).devices, c.device)) return std::nullopt;
  return refusal(Code::incompatible, "TN-P17 device", c,
                 fmt::format("{} runs on {}, asked for {}", architecture(c).name,
                             fmt::join(architecture(c).devices, ", "), c.device),
                 "ask for one of its devices");
}

std::optional<Refusal> judge_weights(const Candidate& c) {
  const auto refuse = [&](const std::string& message) {
    return refusal(Code::integrity, "TN-P20 weights", c, message, "get the expert again, or train it again");
  };
  const auto find = [](const std::vector<WeightRecord>& list, const std::string& name) {
    return std::find_if(list.begin(), list.end(), [&](const WeightRecord& one) { return one.name == name; });
  };
  for (const WeightRecord& needs : *c.parameters) {
    const auto has = find(c.expert->weights, needs.name);
    if (has == c.expert->weights.end()) {
      return refuse(fmt::format("found no weight {}, {} needs it with shape {}", needs.name, c.expert->architecture,
                                shape_text(needs.shape)));
    }
    if (const std::string problem = difference(*has, needs); !problem.empty()) {
      return refuse(fmt::format("weight {}: {}", needs.name, problem));
    }
  }
  for (const WeightRecord& has : c.expert->weights) {
    if (find(*c.parameters, has.name) == c.parameters->end()) {
      return refuse(fmt::format("found the weight {}, {} with this configuration has none of that name", has.name,
                                c.expert->architecture));
    }
  }
  return std::nullopt;
}

} // namespace tenon
