// tenon show: one package, or one composition.
#include "host/cli/fields.hpp"
#include "host/cli/registry_view.hpp"
#include "host/loading/facts.hpp"
#include "registry/lock.hpp"

#include <fmt/format.h>

namespace tenon {
namespace {

void field(Context& context, const char* name, const std::string& text) {
  if (!text.empty()) context.out.line(fmt::format("{:<12}{}", name, text));
}

void show_contract(Context& context, const ModelContract& contract) {
  field(context, "model", contract.model_digest);
  field(context, "base", contract.base_digest);
  field(context, "joint",
        fmt::format("cut {}:{}, width {}, {}, {}", contract.cut.first, contract.cut.last, contract.width,
                    contract.dtype, contract.positions));
}

// What each architecture can be told with --set NAME=VALUE.
void show_architectures(Context& context, const Facts& facts) {
  for (const ArchitectureFacts& architecture : facts.architectures) {
    const std::string colon = architecture.summary.empty() ? "" : ": ";
    field(context, "arch", architecture.name + colon + architecture.summary);
    if (const Table fields = fields_table(architecture.config); !fields.rows.empty()) context.out.table(fields);
  }
}

void show_manifest(Context& context, const Entry& entry) {
  if (entry.kind == Kind::model) {
    const ModelManifest manifest = ModelManifest::parse(entry.manifest, entry.title());
    field(context, "family",
          fmt::format("{}, {} layers, vocabulary {}", manifest.family, manifest.layers, manifest.vocab));
    show_contract(context, manifest.contract);
  } else if (entry.kind == Kind::expert) {
    const ExpertManifest manifest = ExpertManifest::parse(entry.manifest, entry.title());
    field(context, "made of",
          fmt::format("{}, from {}; context {}", manifest.architecture, manifest.plugin.text(), manifest.context));
    field(context, "row", manifest.row.value_or("none"));
    show_contract(context, manifest.contract);
  } else {
    show_architectures(context, Facts::parse(canonical_json(entry.manifest), entry.title()));
  }
}

void show_entry(Context& context, const Entry& entry) {
  field(context, "platform", entry.platform);
  field(context, "entry", entry.digest);
  field(context, "published", entry.published);
  field(context, "license", entry.license);
  show_manifest(context, entry);
  Table table{{"file", "role", "size", "digest"}, {}, {2}};
  for (const FileRecord& file : entry.files)
    table.rows.push_back({file.path, file.role, size_text(file.size_bytes), file.digest});
  context.out.table(table);
}

void show_package(const std::string& request, const Registry& registry, Context& context) {
  const ChosenPackage chosen = choose(registry, request);
  for (const std::string& warning : chosen.warnings) context.out.warn(warning);
  if (context.flags.json) {
    json::object object = package_json(chosen.package);
    json::array entries;
    for (const Entry& entry : chosen.entries) entries.push_back(entry_json(entry));
    object["entries"] = entries;
    return context.out.json(object);
  }
  context.out.line(
      fmt::format("{} {} {}", kind_name(chosen.package.kind), chosen.package.name, chosen.version.version.text()));
  field(context, "summary", chosen.entries.front().summary);
  field(context, "versions", versions_text(chosen.package));
  for (const Entry& entry : chosen.entries) show_entry(context, entry);
}

void show_composition(const std::string& name, const Lock& lock, Context& context) {
  if (context.flags.json) return context.out.json(lock.to_json());
  const Routing& routing = lock.router.routing;
  context.out.line("composition " + name);
  field(context, "model", fmt::format("{} {}", lock.model.name, lock.model.version.text()));
  field(context, "router",
        fmt::format("{}{}, temperature {}, policy {}{}, prior {}", routing.strengths,
                    routing.strengths == "top_k" ? fmt::format(" of {}", routing.top_k) : "", routing.temperature,
                    routing.policy,
                    routing.average_over > 1 ? fmt::format(" over {} positions", routing.average_over) : "",
                    lock.router.prior ? fmt::format("{:.4f}", *lock.router.prior) : "not fitted"));
  field(context, "compute", lock.compute_dtype);
  Table table{{"slot", "expert", "version", "plugin", "entry"}, {}, {0}};
  for (const LockedSlot& slot : lock.slots)
    table.rows.push_back({std::to_string(slot.slot), slot.name + (slot.slot == 0 ? " (base)" : ""), slot.version.text(),
                          fmt::format("{} {}", slot.plugin.name, slot.plugin.version.text()), slot.entry});
  context.out.table(table);
}

// A package of that name comes first; a composition can always be told apart by its folder's path.
void show(const std::string& what, Context& context) {
  const bool plain_name = what.find_first_of("@/") == std::string::npos;
  std::error_code ignored;
  const std::filesystem::path lock =
      (plain_name ? context.home.composition(what) : std::filesystem::path(what)) / "composition.lock.json";
  const bool has_lock = std::filesystem::is_regular_file(lock, ignored);
  if (has_lock && !plain_name) return show_composition(what, read_lock(lock), context);
  const Registry registry = open_registry(context);
  if (has_lock && !registry.find(what)) return show_composition(what, read_lock(lock), context);
  show_package(what, registry, context);
}

} // namespace

void add_show(CLI::App& app, Context& context) {
  auto what = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("show", "Show one package or composition");
  command->add_option("name", *what, "A package (NAME or NAME@RANGE), or a composition")->required();
  examples(*command,
           {"tenon show smollm2", "tenon show legal@=1.2.0 --json", "tenon show tenon.low_rank", "tenon show bot"});
  command->callback([what, &context] { show(*what, context); });
}

} // namespace tenon
