#include "host/cli/doctor.hpp"

#include "host/cli/command.hpp"

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

std::vector<std::string> cpu_features() {
  std::vector<std::string> features;
#if defined(__x86_64__)
  // The builtin wants literals, hence no table.
  if (__builtin_cpu_supports("avx2")) features.emplace_back("avx2");
  if (__builtin_cpu_supports("fma")) features.emplace_back("fma");
  if (__builtin_cpu_supports("avx512f")) features.emplace_back("avx512f");
  if (__builtin_cpu_supports("avx512vnni")) features.emplace_back("avx512vnni");
  if (__builtin_cpu_supports("avx512bf16")) features.emplace_back("avx512bf16");
#endif
  return features;
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
          cpu_features()};
}

void add_doctor(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("doctor", "Check this machine: LibTorch, CPU, folders, registry");
  examples(*command, {"tenon doctor", "tenon doctor --json"});
  command->callback([&context] { run_doctor(context); });
}

} // namespace tenon
