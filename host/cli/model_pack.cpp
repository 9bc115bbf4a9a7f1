// tenon model pack: the packed weights of a model, its base and experts are derived ahead of their first use.
#include "host/cli/opening.hpp"

#include <fmt/format.h>

namespace tenon {
namespace {

struct Settings {
  std::string model, format;
  std::vector<std::string> experts;
};

struct Packed {
  std::string title;
  const PackedWeights* weights; // null where there is nothing of its own to pack
  std::size_t in_float32 = 0;   // matrices that products read as float32
};

json::object to_json(const Packed& packed) {
  json::object out = {{"package", packed.title}};
  if (!packed.weights) return out;
  json::array as_they_are; // low-rank terms, and what no product needs
  for (const std::string& why : packed.weights->refusals()) as_they_are.emplace_back(why);
  out["bytes"] = packed.weights->bytes();
  out["path"] = packed.weights->path();
  out["made_now"] = packed.weights->derived_now();
  out["not_packed"] = as_they_are;
  out["in_float32"] = packed.in_float32;
  return out;
}

void show(const Settings& settings, const std::vector<Packed>& all, Context& context) {
  if (context.flags.json) {
    json::array packages;
    for (const Packed& packed : all) packages.push_back(to_json(packed));
    context.out.json(json::object{{"format", settings.format}, {"packages", packages}});
    return;
  }
  Table table{{"package", "MB", "", "file"}, {}, {1}};
  for (const auto& [title, weights, in_float32] : all) {
    if (!weights) {
      table.rows.push_back({title, "", "shares the base's", ""});
      continue;
    }
    table.rows.push_back({title, fmt::format("{:.1f}", static_cast<double>(weights->bytes()) / 1e6),
                          weights->derived_now() ? "packed now" : "was packed", weights->path()});
  }
  context.out.table(table);
  for (const auto& [title, weights, in_float32] : all) {
    if (weights && !weights->refusals().empty())
      context.out.note(fmt::format("{}: {} matrices that no product reads are not packed (the first: {})", title,
                                   weights->refusals().size(), weights->refusals().front()));
    say_float32(title, in_float32, context);
  }
  context.out.next(fmt::format("tenon run {} \"Once upon a time\" --compute {}", settings.model, settings.format));
}

Format packed_format(const std::string& name) {
  for (const Format format : {Format::bf16, Format::int8, Format::int4, Format::stored})
    if (name == format_name(format)) return format;
  throw Error(Code::usage, "model pack",
              name == format_name(Format::float32)
                  ? "found float32, in which weights are not packed; need bf16, int8, int4 or stored"
                  : "found \"" + name + "\", need bf16, int8, int4 or stored",
              "give --format int8, or stored to lose nothing");
}

void pack(const Settings& settings, Context& context) {
  const Format format = packed_format(settings.format);
  const Loader loader = make_loader(format, {}, context);
  const Registry& registry = loader.registry();
  const Entry entry = registry.resolve(PackageRequest::parse(settings.model), Kind::model);
  const auto model = loader.model(entry);
  std::vector<ExpertPackage> experts = {loader.base(*model)};
  for (const std::string& expert : settings.experts)
    experts.push_back(
        loader.expert(registry.resolve(PackageRequest::parse(expert), Kind::expert), *model, &experts.front()));

  const PackedWeights* packed = model->weights().packed();
  std::vector<Packed> all = {{entry.title(), packed, packed->left_float32()}};
  for (const ExpertPackage& expert : experts) {
    packed = expert.weights ? expert.weights->packed() : nullptr;
    all.push_back({expert.entry.title(), packed, packed ? packed->multiplied_in_float32() : 0});
  }
  show(settings, all, context);
}

} // namespace

void add_model_pack(CLI::App& app, Context& context) {
  auto settings = std::make_shared<Settings>();
  CLI::App* command = noun(app, "model", "Cut a model, or make a small random one")
                          ->add_subcommand("pack", "Pack weights ahead of their first use, once for all processes");
  command->add_option("model", settings->model, "Model, as NAME or NAME@RANGE; its base comes with it")->required();
  command
      ->add_option("--format", settings->format, "bf16, int8, int4, or stored (as each weight is stored, without loss)")
      ->type_name("FORMAT")
      ->required();
  command->add_option("--experts", settings->experts, "Experts to pack too, as NAME or NAME@RANGE")->take_all();
  examples(*command,
           {"tenon model pack smollm2 --format stored", "tenon model pack smollm2 --format int8 --experts legal hr",
            "tenon model pack smollm2 --format bf16 --json"});
  command->callback([settings, &context] { pack(*settings, context); });
}

} // namespace tenon
