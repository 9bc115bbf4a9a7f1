#include "host/cli/doctor.hpp"

#include "host/cli/command.hpp"
#include "host/loading/platform.hpp"
#include "host/loading/rules.hpp"
#include "kernels/cpu/engine.hpp"
#include "kernels/cpu/key_values.hpp"
#include "kernels/cpu/pages.hpp"
#include "registry/base/files.hpp"

#include <dlfcn.h>
#include <fmt/format.h>
#include <torch/headeronly/version.h>

#include <fstream>
#include <set>

// LibTorch's own answer at run time; declared here because its header brings half of LibTorch with it.
extern "C" std::uint64_t aoti_torch_abi_version();

namespace tenon {
namespace {

std::string loaded_torch_version() {
  const std::uint64_t version = aoti_torch_abi_version(); // one byte each, major first
  return fmt::format("{}.{}.{}", version >> 56, (version >> 48) & 0xFF, (version >> 40) & 0xFF);
}

std::string library_holding(const void* symbol) {
  Dl_info info = {};
  return dladdr(symbol, &info) && info.dli_fname ? info.dli_fname : "unknown";
}

std::vector<std::string> mapped_libraries() {
  std::set<std::string> paths;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const auto slash = line.find('/');
    if (slash != std::string::npos && line.find(".so", slash) != std::string::npos) paths.insert(line.substr(slash));
  }
  return {paths.begin(), paths.end()};
}

// What the loading rules say of each plugin that comes with Tenon; nothing is opened.
std::vector<InstalledPlugin> installed_plugins(const std::filesystem::path& folder) {
  std::vector<InstalledPlugin> plugins;
  if (!std::filesystem::is_directory(folder)) return plugins;
  const HostSide host = host_side(host_operators());
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".so") continue;
    const std::string name = entry.path().filename();
    InstalledPlugin plugin{name, {}};
    const MappedFile library(entry.path());
    const Candidate candidate = library_candidate(library.bytes(), name, host);
    for (const Judgement& judgement : judge(candidate)) {
      if (judgement.refusal) plugin.refusals.push_back(judgement.refusal->rule + ": " + judgement.refusal->message);
    }
    plugins.push_back(std::move(plugin));
  }
  return plugins;
}

KernelChoice kernel_choice() {
  KernelChoice choice;
  for (const cpu::Tier tier : cpu::supported_tiers()) choice.tiers.emplace_back(cpu::tier_name(tier));
  try {
    const cpu::Engine& engine = cpu::engine();
    choice.tier = cpu::tier_name(engine.kernels->tier);
    choice.threads = engine.pool->threads();
    choice.pages = cpu::pages_name(cpu::pages());
    choice.keys = cpu::key_format_name(cpu::chosen_key_format());
  } catch (const std::runtime_error& error) {
    choice.refusal = error.what();
  }
  return choice;
}

const char* health_name(Health health) {
  switch (health) {
    case Health::ok: return "ok";
    case Health::note: return "note";
    case Health::bad: return "bad";
  }
  return "bad";
}

Style health_style(Health health) {
  switch (health) {
    case Health::ok: return Style::good;
    case Health::note: return Style::warn;
    case Health::bad: return Style::bad;
  }
  return Style::bad;
}

void run_doctor(Context& context) {
  const Surroundings here = look_around(context.home.root(), context.registry());
  json::array findings;
  Table table{{"rule", "what", "state", "found"}, {}};
  std::vector<std::string> remedies;
  std::size_t bad = 0;
  for (const DoctorRule& rule : doctor_rules()) {
    const Finding finding = rule.check(here);
    const std::string state = health_name(finding.health);
    bad += finding.health == Health::bad;
    findings.push_back(json::object{{"rule", rule.id},
                                    {"what", rule.what},
                                    {"state", state},
                                    {"found", finding.found},
                                    {"remedy", finding.remedy}});
    table.rows.push_back({rule.id, rule.what, context.out.paint(health_style(finding.health), state), finding.found});
    if (!finding.remedy.empty()) remedies.push_back(fmt::format("{} {}: {}", rule.id, rule.what, finding.remedy));
  }
  if (context.flags.json) {
    context.out.json(json::object{{"healthy", bad == 0}, {"findings", findings}});
  } else {
    context.out.table(table);
  }
  for (const std::string& remedy : remedies) context.out.note(remedy);
  if (bad > 0) throw Error(Code::environment, "doctor", fmt::format("{} of {} rules fail", bad, findings.size()), "");
}

} // namespace

Surroundings look_around(const std::filesystem::path& home, const std::filesystem::path& registry) {
  return {home,
          registry,
          TORCH_VERSION,
          loaded_torch_version(),
          library_holding(reinterpret_cast<const void*>(&aoti_torch_abi_version)),
          mapped_libraries(),
          host_cpu_features(),
          shipped_plugins(),
          installed_plugins(shipped_plugins()),
          kernel_choice()};
}

void add_doctor(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("doctor", "Check this machine: LibTorch, CPU, folders, registry, plugins, kernels");
  examples(*command, {"tenon doctor", "tenon doctor --json", "TENON_TIER=avx2 tenon doctor"});
  command->callback([&context] { run_doctor(context); });
}

} // namespace tenon
