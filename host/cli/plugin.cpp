// tenon plugin new, tenon plugin check.
#include "host/cli/command.hpp"
#include "host/cli/project_template.hpp"
#include "host/loading/library.hpp"
#include "host/loading/native.hpp"
#include "host/loading/platform.hpp"
#include "host/loading/rules.hpp"
#include "registry/base/files.hpp"
#include "registry/base/sha256.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace tenon {
namespace {

struct NewSettings {
  std::string name, vendor, like;
  std::filesystem::path folder;
};

// "tenon.recurrent", or "recurrent": the folder of its source.
std::filesystem::path source_of(const std::string& plugin) {
  const std::string prefix = "tenon.";
  const std::string stem = plugin.rfind(prefix, 0) == 0 ? plugin.substr(prefix.size()) : plugin;
  std::vector<std::string> found;
  if (std::filesystem::is_directory(shipped_sources()))
    for (const auto& folder : std::filesystem::directory_iterator(shipped_sources())) {
      if (folder.path().filename() == stem) return folder.path();
      found.push_back(prefix + folder.path().filename().string());
    }
  std::sort(found.begin(), found.end());
  throw Error(Code::not_found, "plugin new",
              fmt::format("found no source of {} in {}", plugin, shipped_sources().string()),
              found.empty() ? "install Tenon: cmake --install BUILD --prefix PREFIX"
                            : fmt::format("name one of {}", fmt::join(found, ", ")));
}

void plugin_new(const NewSettings& settings, Context& context) {
  const ProjectNames names = ProjectNames::from(settings.name, settings.vendor);
  const std::filesystem::path folder = settings.folder.empty() ? std::filesystem::path(names.target) : settings.folder;
  write_project(names,
                settings.like.empty() ? project_files(names) : project_files_like(names, source_of(settings.like)),
                folder);
  if (context.flags.json) {
    context.out.json(json::object{{"name", names.name}, {"folder", folder.string()}, {"target", names.target}});
    return;
  }
  context.out.line(fmt::format("wrote {} in {}", names.name, folder.string()));
  context.out.next(
      fmt::format("cd {} && cmake -S . -B build -DCMAKE_PREFIX_PATH=PREFIX -DTENON_TORCH_ROOT=TORCH && "
                  "cmake --build build && tenon plugin check build/{}.so",
                  folder.string(), names.target));
}

// Judges the bytes; and opens the library only where nothing speaks against it.
std::vector<Judgement> check(const std::filesystem::path& library, const Context& context, std::string& title) {
  const HostSide host = host_side(host_operators());
  const MappedFile file(library);
  Candidate candidate = library_candidate(file.bytes(), library.filename().string(), host);
  title = candidate.title;
  std::optional<Refusal> opening;
  if (!first_refusal(candidate, 1, 6)) {
    try {
      const PluginLoader loader(host, context.home.store(), host_table());
      candidate.table = loader.load({library, nullptr}).table;
    } catch (const Error& error) {
      if (error.code != Code::plugin) throw;
      opening = Refusal{error.code, error.unit, error.message, error.remedy};
    }
  }
  std::vector<Judgement> judgements = judge(candidate);
  for (Judgement& one : judgements) {
    if (opening && one.rule->id == opening->rule) one = {one.rule, Verdict::refused, opening};
  }
  return judgements;
}

const char* verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::ok: return "ok";
    case Verdict::refused: return "refused";
    case Verdict::not_judged: return "not judged";
  }
  return "";
}

json::object judgement_json(const Judgement& one) {
  json::object out{{"rule", one.rule->id},
                   {"step", one.rule->step},
                   {"checks", one.rule->checks},
                   {"verdict", verdict_name(one.verdict)}};
  if (one.refusal) {
    out["message"] = one.refusal->message;
    out["remedy"] = one.refusal->remedy;
  }
  return out;
}

void plugin_check(const std::filesystem::path& library, Context& context) {
  std::string title;
  const std::vector<Judgement> judgements = check(library, context, title);
  const Judgement* first = nullptr;
  Table table{{"rule", "step", "verdict", "checks"}, {}, {1}};
  json::array list;
  for (const Judgement& one : judgements) {
    if (one.verdict == Verdict::refused && !first) first = &one;
    list.push_back(judgement_json(one));
    // Rules for an expert and a package have nothing to look at here.
    if (one.verdict == Verdict::not_judged) continue;
    table.rows.push_back({one.rule->id, std::to_string(one.rule->step), verdict_name(one.verdict), one.rule->checks});
  }
  if (context.flags.json) {
    context.out.json(json::object{{"plugin", title}, {"ok", !first}, {"rules", list}});
  } else {
    context.out.table(table);
    if (!first) context.out.line(fmt::format("{}: ready to be trained with and published", title));
  }
  if (first) throw first->refusal->to_error();
}

} // namespace

void add_plugin(CLI::App& app, Context& context) {
  CLI::App* plugin = noun(app, "plugin", "Write and check plugins");

  auto settings = std::make_shared<NewSettings>();
  CLI::App* fresh = plugin->add_subcommand("new", "Write a complete plugin project");
  fresh->add_option("name", settings->name, "vendor.name, as in acme.memory")->required();
  fresh->add_option("folder", settings->folder, "Where (./vendor_name)");
  fresh->add_option("--vendor", settings->vendor, "Where the name says none");
  fresh->add_option("--like", settings->like, "Begin with the source of a plugin that comes with Tenon")
      ->type_name("PLUGIN");
  examples(*fresh, {"tenon plugin new acme.memory", "tenon plugin new acme.gru --like tenon.recurrent",
                    "tenon plugin new memory --vendor acme ~/src/memory"});
  fresh->callback([settings, &context] { plugin_new(*settings, context); });

  auto library = std::make_shared<std::filesystem::path>();
  CLI::App* checking = plugin->add_subcommand("check", "Judge a plugin's library by every rule of loading");
  checking->add_option("library", *library, "The .so")->required();
  examples(*checking, {"tenon plugin check build/acme_memory.so", "tenon plugin check build/acme_memory.so --json"});
  checking->callback([library, &context] { plugin_check(*library, context); });
}

} // namespace tenon
