// tenon expert import: the words of the command line; the work is host/training's.
#include "host/cli/command.hpp"
#include "host/cli/training_screen.hpp"
#include "host/training/adapter_import.hpp"
#include "registry/base/error.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace tenon {
namespace {

struct Settings {
  std::string adapter, model, name, out;
  std::vector<std::string> data, set, dev;
  bool middle_only = false, no_row = false;
};

// The folder's own name, in letters that names may have.
std::string name_from(const std::filesystem::path& folder) {
  std::string name = std::filesystem::absolute(folder / "").parent_path().filename().string();
  for (char& c : name)
    c = std::isalnum(static_cast<unsigned char>(c)) ? static_cast<char>(std::tolower(static_cast<unsigned char>(c)))
                                                    : '-';
  return name;
}

TrainingPlan plan_of(const Settings& settings) {
  if (settings.data.empty() != settings.no_row)
    throw Error(Code::usage, "expert import",
                settings.no_row ? "found --data and --no-row, need one of them"
                                : "found no text: an adapter does not say when it helps, so its row is fitted to text",
                "give text of its domain with --data PATH, or --no-row for an expert that no router can choose");
  json::array paths;
  for (const std::string& path : settings.data) paths.emplace_back(path);
  json::object plan = {{"architecture", "tenon.low_rank"}, {"model", settings.model}, {"data", {{"paths", paths}}}};
  for (const std::string& assignment : settings.set) set_field(plan, assignment);
  return TrainingPlan::parse(plan, "--set");
}

void report(Context& context, const std::string& name, const AdapterImport& made) {
  if (context.flags.json) {
    json::array products, dropped;
    for (const std::string& product : made.products) products.emplace_back(product);
    for (const std::string& module : made.dropped) dropped.emplace_back(module);
    json::object out = {{"folder", made.folder.string()},
                        {"base_model", made.base_model},
                        {"products", products},
                        {"left_out", dropped},
                        {"row", made.evidence.has_value()}};
    if (made.evidence) out["evidence"] = *made.evidence;
    context.out.json(out);
  } else {
    context.out.line(fmt::format(
        "{}: {} products of the middle change{}", name, made.products.size(),
        made.dropped.empty() ? "" : fmt::format("; {} modules outside it are left out", made.dropped.size())));
    if (made.evidence)
      show_evidence(context.out, name, *made.evidence);
    else
      context.out.warn("without a row no router can choose it: it can be published, and not composed");
    context.out.note("the package is in " + made.folder.string());
  }
  context.out.next("tenon publish " + made.folder.string());
}

void import(const Settings& settings, Context& context) {
  const std::string name = settings.name.empty() ? name_from(settings.adapter) : settings.name;
  const std::vector<std::filesystem::path> dev(settings.dev.begin(), settings.dev.end());
  const AdapterJob job{
      name, settings.adapter, plan_of(settings), settings.out.empty() ? name : settings.out, settings.middle_only, dev};
  const Registry registry(context.registry());
  const Loader loader(registry, {context.home.store(), context.home.cache(), dev});
  TrainingScreen screen(context.out);
  report(context, name, import_adapter(loader, job, screen.hooks()));
}

} // namespace

void add_expert_import(CLI::App& app, Context& context) {
  auto settings = std::make_shared<Settings>();
  CLI::App* command = noun(app, "expert", "Make experts")
                          ->add_subcommand("import", "Turn a LoRA adapter of Hugging Face's PEFT into an expert");
  command->add_option("--peft", settings->adapter, "The folder with adapter_config.json and adapter_model.safetensors")
      ->type_name("DIR")
      ->required();
  command->add_option("--model", settings->model, "The model it was made for: NAME or NAME@RANGE")
      ->type_name("REF")
      ->required();
  command->add_option("--name", settings->name, "What to call the expert (default: the folder's name)");
  command->add_flag("--middle-only", settings->middle_only,
                    "Leave out, and list, what the adapter changes outside the model's middle");
  command->add_option("--data", settings->data, "Text of its domain, to fit its row to: files, folders, JSONL")
      ->type_name("PATH");
  command->add_flag("--no-row", settings->no_row, "Make an expert that no router can choose");
  command
      ->add_option("--set", settings->set, "A field of the plan of expert train, for its text and row: data.field=body")
      ->type_name("PATH=VALUE")
      ->take_all();
  command->add_option("--dev", settings->dev, "A plugin library from a build tree")->type_name("PATH");
  command->add_option("--out", settings->out, "Where it goes; by default a folder of its name here")->type_name("DIR");
  examples(*command, {"tenon expert import --peft ./legal-lora --model smollm2 --data docs/",
                      "tenon expert import --peft ./legal-lora --model smollm2 --middle-only --name legal --data docs/",
                      "tenon expert import --peft ./legal-lora --model smollm2 --no-row"});
  command->callback([settings, &context] { import(*settings, context); });
}

} // namespace tenon
