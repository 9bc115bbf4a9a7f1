// tenon expert train: the words of the command line; the work is host/training's.
#include "host/cli/command.hpp"
#include "host/cli/fields.hpp"
#include "host/cli/training_screen.hpp"
#include "host/training/train.hpp"

#include <fmt/format.h>

namespace tenon {
namespace {

struct Settings {
  std::string name, model, architecture, plugin, plan;
  std::vector<std::string> data, set, dev;
  std::string out;
};

// The file first, then the named flags, then --set: the later wins.
TrainingPlan plan_of(const Settings& settings) {
  json::object plan;
  if (!settings.plan.empty()) {
    const json::value value = read_json(settings.plan);
    if (!value.is_object()) throw Error(Code::usage, settings.plan, "found no JSON object, need a training plan");
    plan = value.get_object();
  }
  if (!settings.model.empty()) plan["model"] = settings.model;
  if (!settings.architecture.empty()) plan["architecture"] = settings.architecture;
  if (!settings.plugin.empty()) plan["plugin"] = settings.plugin;
  for (const std::string& assignment : settings.set) set_field(plan, assignment);
  if (!settings.data.empty()) {
    json::value& data = plan["data"];
    if (!data.is_object()) data = json::object();
    json::array paths;
    for (const std::string& path : settings.data) paths.emplace_back(path);
    data.get_object()["paths"] = paths;
  }
  for (const auto& [field, flag] : {std::pair{"architecture", "--arch"}, {"model", "--model"}, {"data", "--data"}})
    if (!plan.contains(field))
      throw Error(Code::usage, "expert train", fmt::format("found no {}, in a plan or on the line", field),
                  fmt::format("give it with {}", flag));
  if (const json::value& data = plan["data"]; data.is_object() && !data.get_object().contains("paths"))
    throw Error(Code::usage, "expert train", "found no text, in a plan or on the line", "give it with --data");
  return TrainingPlan::parse(plan, settings.plan.empty() ? "training plan" : settings.plan);
}

void report(Context& context, const Settings& settings, const TrainingResult& result) {
  if (context.flags.json) {
    context.out.json(json::object{{"folder", result.folder.string()},
                                  {"was_finished", result.was_finished},
                                  {"steps", result.steps},
                                  {"positions", result.positions},
                                  {"seconds", result.seconds},
                                  {"tokens_per_second", result.tokens_per_second},
                                  {"evidence", result.evidence}});
  } else if (result.was_finished) {
    context.out.note(fmt::format("{} is trained already; nothing was left to do", settings.name));
  } else {
    show_evidence(context.out, settings.name, result.evidence);
    const std::string work = result.positions > 0 ? fmt::format("passed over {} positions", result.positions)
                                                  : fmt::format("trained {} steps", result.steps);
    context.out.note(fmt::format("{} in {} at {:.0f} tokens/s; the package is in {}", work,
                                 duration_text(result.seconds), result.tokens_per_second, result.folder.string()));
  }
  context.out.next("tenon publish " + result.folder.string());
}

void train(const Settings& settings, Context& context) {
  const std::vector<std::filesystem::path> dev(settings.dev.begin(), settings.dev.end());
  const TrainingJob job{settings.name, plan_of(settings), settings.out.empty() ? settings.name : settings.out, dev, 0};
  const Registry registry(context.registry());
  const Loader loader(registry, {context.home.store(), context.home.cache(), dev});
  TrainingScreen screen(context.out);
  report(context, settings, train_expert(loader, job, screen.hooks()));
}

} // namespace

void add_expert_train(CLI::App& app, Context& context) {
  auto settings = std::make_shared<Settings>();
  CLI::App* command =
      noun(app, "expert", "Make experts")->add_subcommand("train", "Train an expert beside a model's base");
  command->add_option("name", settings->name, "What to call the expert")->required();
  command->add_option("--model", settings->model, "The model it is for: NAME or NAME@RANGE")->type_name("REF");
  command->add_option("--arch", settings->architecture, "Its architecture: tenon.low_rank, tenon.memory, ...")
      ->type_name("ARCH");
  command->add_option("--plugin", settings->plugin, "The plugin that has it, where several do: NAME@RANGE")
      ->type_name("REF");
  command->add_option("--dev", settings->dev, "A plugin library from a build tree")->type_name("PATH");
  command->add_option("--data", settings->data, "Its text: files, folders, JSONL")->type_name("PATH");
  command->add_option("--plan", settings->plan, "A training plan")->type_name("FILE");
  command
      ->add_option("--set", settings->set,
                   "A field of the plan: train.steps=500; a bare name is the expert's own configuration: rank=16 is "
                   "config.rank=16")
      ->type_name("PATH=VALUE")
      ->take_all();
  command->add_option("--out", settings->out, "Where it goes; by default a folder of its name here")->type_name("DIR");
  examples(*command, {"tenon expert train legal --model smollm2 --arch tenon.low_rank --set rank=16 --data docs/",
                      "tenon expert train legal --plan plan.json --set train.steps=500",
                      "tenon expert train helper --model smollm2 --arch tenon.low_rank --data chats.jsonl --set "
                      "data.format=chat",
                      "tenon expert train lent --model smollm2 --arch tenon.imported_on_base --set from.model=other "
                      "--set from.layers=4:8 --data docs/",
                      "tenon expert train facts --model smollm2 --arch tenon.memory --data docs/ --set pass.blocks=512",
                      "tenon.memory learns in one pass: pass.blocks says how much text it sees, train.* is refused.",
                      "A stopped training goes on when the same command is run again."});
  command->footer(command->get_footer() +
                  "\n\nFields of a plan, for --set (an architecture's own: tenon show PLUGIN):\n" +
                  table_text(fields_table(plan_schema()), false));
  command->callback([settings, &context] { train(*settings, context); });
}

} // namespace tenon
