// tenon compose | add | remove: which experts a composition has. What was asked for is composition.json; what it
// became, with every digest, is composition.lock.json.
#include "host/cli/numbers.hpp"
#include "host/cli/opening.hpp"
#include "host/cli/progress.hpp"
#include "host/composition/prior.hpp"
#include "host/loading/platform.hpp"

#include <fmt/format.h>

#include <optional>

namespace tenon {
namespace {

constexpr std::int64_t kAverageOver = 16; // measured: sdk/decisions/0005-scores-are-averaged.md

struct Settings {
  std::string name, model, compute = "float32";
  std::vector<std::string> experts;
  Routing routing;
  std::optional<std::int64_t> average_over;
  bool margin_given = false, decide_after_given = false;
};

std::filesystem::path request_path(const Context& context, const std::string& name) {
  return context.home.composition(name) / "composition.json";
}
std::filesystem::path lock_path(const Context& context, const std::string& name) {
  return context.home.composition(name) / "composition.lock.json";
}

Request read_existing(const Context& context, const std::string& name) {
  const std::filesystem::path path = request_path(context, name);
  if (!std::filesystem::exists(path))
    throw Error(Code::not_found, "compose", "there is no composition " + name,
                "make one: tenon compose " + name + " --model MODEL EXPERT...");
  return read_request(path);
}

// Every member, loaded: what does not fit is refused. The base first.
std::vector<ExpertPackage> members(const Registry& registry, const Lock& lock, const Loader& loader,
                                   const Model& model) {
  std::vector<ExpertPackage> out;
  for (const LockedSlot& slot : lock.slots) {
    const Entry entry = registry.locked(slot.name, slot.version, slot.entry).entry;
    out.push_back(loader.expert(entry, model, out.empty() ? nullptr : &out[0], &slot.plugin));
  }
  return out;
}

std::vector<Row> rows_of(const std::vector<ExpertPackage>& packages) {
  std::vector<Row> rows;
  for (std::size_t i = 1; i < packages.size(); ++i) {
    if (!packages[i].row)
      throw Error(Code::incompatible, packages[i].entry.title(), "this expert has no row, so no router can choose it",
                  "train it with tenon expert train");
    rows.push_back(*packages[i].row);
  }
  return rows;
}

// Loads every member, so that nothing is locked which does not fit, and fits the prior of the set, in float32 whatever
// the composition computes in; then in that format, which not every weight can have.
Lock make_lock(const Request& request, Context& context) {
  const Registry registry(context.registry());
  Lock lock = resolve(registry, request, host_platform().text()).value();
  const Entry entry = registry.locked(lock.model.name, lock.model.version, lock.model.entry).entry;
  const Loader loader = make_loader(Format::float32, {}, context);
  const auto model = loader.model(entry);
  const std::vector<Row> rows = rows_of(members(registry, lock, loader, *model));
  std::optional<Progress> bar;
  lock.router.prior =
      fit_prior(*model, rows, request.routing, context.home.cache(), [&](std::uint64_t done, std::uint64_t total) {
        if (!bar) bar.emplace(context.out, "general text", static_cast<std::int64_t>(total), "blocks");
        bar->update(static_cast<std::int64_t>(done));
      });
  lock.router.prior_set = lock.set_digest();
  if (const Format format = format_of(request.compute_dtype); format != Format::float32) {
    const Loader packed = make_loader(format, {}, context);
    (void)members(registry, lock, packed, *packed.model(entry));
  }
  return lock;
}

std::string describe(const Routing& routing) {
  std::string text = routing.strengths + " strengths";
  if (routing.strengths == "top_k") text += fmt::format(" (k = {})", routing.top_k);
  if (routing.average_over > 1) text += fmt::format(", scores averaged over {} positions", routing.average_over);
  if (routing.policy == "sticky") text += fmt::format(", sticky by a margin of {}", routing.margin);
  if (routing.policy == "sequence") text += fmt::format(", decided after {} tokens", routing.decide_after);
  return text;
}

void show(const std::string& name, const Lock& lock, Context& context) {
  if (context.flags.json) {
    context.out.json(lock.to_json());
    return;
  }
  Table table{{"slot", "expert", "version", "plugin", "entry"}, {}, {0}};
  for (const LockedSlot& slot : lock.slots)
    table.rows.push_back({std::to_string(slot.slot), slot.name, slot.version.text(),
                          slot.plugin.name + " " + slot.plugin.version.text(), slot.entry.substr(0, 19)});
  context.out.line(fmt::format("{}: {} {}, {}, prior of the base {:.3f}", name, lock.model.name,
                               lock.model.version.text(), describe(lock.router.routing),
                               lock.router.prior.value_or(0.0)));
  context.out.table(table);
  context.out.next(fmt::format("tenon run {} \"...\" --explain", name));
}

void lock_and_show(const std::string& name, const Request& request, Context& context) {
  const Lock lock = make_lock(request, context);
  write_lock(lock_path(context, name), lock);
  write_request(request_path(context, name), request);
  show(name, lock, context);
}

// An option that its policy does not read would be a wish that nobody fulfils.
Routing checked(const Settings& settings) {
  Routing routing = settings.routing;
  if (settings.average_over && routing.policy == "sequence")
    throw Error(Code::usage, "compose", "--average-over belongs to --policy token or sticky, found sequence",
                "leave --average-over out: --decide-after says how many tokens are averaged");
  if (routing.policy != "sequence") routing.average_over = settings.average_over.value_or(kAverageOver);
  const auto belongs = [&](bool given, const char* option, const std::string& policy) {
    if (given && routing.policy != policy)
      throw Error(Code::usage, "compose",
                  fmt::format("{} belongs to --policy {}, found {}", option, policy, routing.policy),
                  fmt::format("give --policy {}, or leave {} out", policy, option));
  };
  belongs(settings.margin_given, "--margin", "sticky");
  belongs(settings.decide_after_given, "--decide-after", "sequence");
  if (const std::string problem = routing.problem(); !problem.empty()) throw Error(Code::usage, "compose", problem);
  return routing;
}

// Who changes a composition reads it, resolves and writes while nobody else does.
FileLock hold(const std::string& name, const Context& context) {
  return FileLock(context.home.composition(name).parent_path() / ("." + name + ".lock"));
}

void compose(const Settings& settings, Context& context) {
  if (const auto package = Registry(context.registry()).find(settings.name); package && package->kind == Kind::model)
    throw Error(Code::usage, settings.name,
                "the registry has a model of this name, which could no longer be opened by it",
                "choose another name for the composition");
  const FileLock lock = hold(settings.name, context);
  if (std::filesystem::exists(request_path(context, settings.name)))
    context.out.note(fmt::format("there is a composition {} already: this one takes its place", settings.name));
  Request request;
  request.model = PackageRequest::parse(settings.model);
  for (const std::string& expert : settings.experts) request.experts.push_back(PackageRequest::parse(expert));
  request.routing = checked(settings);
  request.compute_dtype = format_name(format_of(settings.compute));
  lock_and_show(settings.name, request, context);
}

void add_experts(const Settings& settings, Context& context) {
  (void)read_existing(context, settings.name);
  const FileLock lock = hold(settings.name, context);
  Request request = read_existing(context, settings.name);
  for (const std::string& text : settings.experts) {
    const PackageRequest expert = PackageRequest::parse(text);
    for (const PackageRequest& member : request.experts)
      if (member.name == expert.name)
        throw Error(Code::usage, settings.name, expert.name + " is in it already",
                    "take it out first: tenon remove " + settings.name + " " + expert.name);
    request.experts.push_back(expert);
  }
  lock_and_show(settings.name, request, context);
}

void remove_experts(const Settings& settings, Context& context) {
  (void)read_existing(context, settings.name);
  const FileLock lock = hold(settings.name, context);
  Request request = read_existing(context, settings.name);
  for (const std::string& name : settings.experts) {
    const auto found = std::find_if(request.experts.begin(), request.experts.end(),
                                    [&](const PackageRequest& member) { return member.name == name; });
    if (found == request.experts.end()) {
      std::vector<std::string> members;
      for (const PackageRequest& member : request.experts) members.push_back(member.name);
      throw Error(Code::not_found, settings.name, "it has no expert " + name,
                  "it has: " + (members.empty() ? "none" : joined(members, ", ")));
    }
    request.experts.erase(found);
  }
  lock_and_show(settings.name, request, context);
}

void add_routing_options(CLI::App& command, Settings& settings) {
  Routing& routing = settings.routing;
  command
      .add_option(
          "--strengths", routing.strengths,
          "softmax (every expert runs), top_k, or as many as their scores warrant: sparsemax (few), entmax (some more)")
      ->check(CLI::IsMember({"softmax", "top_k", "sparsemax", "entmax"}))
      ->capture_default_str();
  command.add_option("--top-k", routing.top_k, "How many experts a position may use, the base among them")
      ->check(from_one())
      ->capture_default_str();
  command.add_option("--temperature", routing.temperature, "Of the strengths")
      ->check(above_zero())
      ->capture_default_str();
  command
      .add_option("--policy", routing.policy,
                  "token (each position for itself), sticky (a sequence keeps its experts until another is better by "
                  "the margin: few in memory, few changes) or sequence (the base first, then one choice for good)")
      ->check(CLI::IsMember({"token", "sticky", "sequence"}))
      ->capture_default_str();
  command
      .add_option("--average-over", settings.average_over,
                  fmt::format("token, sticky: how many last positions a score is the mean of ({}); 1: each position's "
                              "own score alone",
                              kAverageOver))
      ->check(from_one());
  command
      .add_option("--margin", routing.margin,
                  "sticky: by how much a score (log-odds, in nats) must exceed a kept expert's; 0 is token")
      ->check(zero_or_more())
      ->capture_default_str();
  command
      .add_option("--decide-after", routing.decide_after,
                  "sequence: how many first tokens the base takes, by whose mean scores it is then decided")
      ->check(from_one())
      ->capture_default_str();
}

} // namespace

void add_compose(CLI::App& app, Context& context) {
  auto settings = std::make_shared<Settings>();
  CLI::App* command = app.add_subcommand("compose", "Join a model and experts under a name");
  command->add_option("name", settings->name, "Name of the composition")->required();
  command->add_option("experts", settings->experts, "Experts, as NAME or NAME@RANGE; the base is always there");
  command->add_option("--model", settings->model, "Model, as NAME or NAME@RANGE")->required();
  add_routing_options(*command, *settings);
  command
      ->add_option("--compute", settings->compute,
                   "What products compute in: float32, bf16, int8, int4, or stored (as each weight is stored)")
      ->type_name("FORMAT")
      ->capture_default_str();
  examples(*command, {"tenon compose bot --model smollm2 legal@^1 hr@^1 --top-k 2",
                      "tenon compose bot --model smollm2 legal hr --policy sticky --margin 2",
                      "tenon compose bot --model smollm2 legal hr --compute stored",
                      "tenon compose bot --model smollm2 legal hr --policy sequence --decide-after 32"});
  command->callback([settings, command, &context] {
    settings->margin_given = command->count("--margin") > 0;
    settings->decide_after_given = command->count("--decide-after") > 0;
    compose(*settings, context);
  });
}

void add_add(CLI::App& app, Context& context) {
  auto settings = std::make_shared<Settings>();
  CLI::App* command = app.add_subcommand("add", "Add experts to a composition; nobody else's bytes change");
  command->add_option("name", settings->name, "The composition")->required();
  command->add_option("experts", settings->experts, "Experts, as NAME or NAME@RANGE")->required();
  examples(*command, {"tenon add bot math@^1"});
  command->callback([settings, &context] { add_experts(*settings, context); });
}

void add_remove(CLI::App& app, Context& context) {
  auto settings = std::make_shared<Settings>();
  CLI::App* command = app.add_subcommand("remove", "Take experts out of a composition");
  command->add_option("name", settings->name, "The composition")->required();
  command->add_option("experts", settings->experts, "Names of experts")->required();
  examples(*command, {"tenon remove bot hr"});
  command->callback([settings, &context] { remove_experts(*settings, context); });
}

} // namespace tenon
