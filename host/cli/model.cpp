// tenon model import | new: a model is cut in three, proven to join again, and published as two packages.
#include "host/cli/command.hpp"
#include "host/cli/progress.hpp"
#include "host/cli/shipped.hpp"
#include "host/model/import.hpp"
#include "registry/registry.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <optional>

namespace tenon {
namespace {

struct Settings {
  std::string source, name, cut;
  std::vector<std::string> calibration;
  ModelShape shape{64, 6, 4, 2, 16, 128, 320, 1e-5, 10000.0, true};
  std::uint64_t seed = 0;
};

// smollm2-135m for SmolLM2-135M-Instruct.Q4_1.gguf would be a guess; the file's stem in small letters is not.
std::string name_from(const std::filesystem::path& source) {
  std::string name = source.stem().string();
  for (char& c : name) c = static_cast<char>(std::isalnum(static_cast<unsigned char>(c)) ? std::tolower(c) : '-');
  return name;
}

// A folder for packages in the making, gone whatever happens.
class Staging {
 public:
  explicit Staging(const Home& home) : path_(home.cache() / ("staging-" + std::to_string(getpid()))) {
    std::error_code error;
    std::filesystem::create_directories(path_, error);
    if (error)
      throw Error(Code::environment, "home", "cannot make " + path_.string() + ": " + error.message(),
                  "check permissions and disk space, or name another place with TENON_HOME");
  }
  ~Staging() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

std::vector<std::filesystem::path> calibration_texts(const Settings& settings, const Context& context) {
  std::vector<std::filesystem::path> folders(settings.calibration.begin(), settings.calibration.end());
  if (folders.empty() && std::filesystem::is_directory(context.home.root() / "calibration"))
    folders.push_back(context.home.root() / "calibration");
  return folders;
}

void import(const WholeModel& whole, const Settings& settings, const std::string& name, Context& context) {
  const Registry registry = Registry::open_or_create(context.registry(), "local");
  if (registry.find(name))
    throw Error(Code::usage, name, "the registry already has a package of this name", "choose another name");
  const Staging staging(context.home);
  ImportOptions options;
  options.name = name;
  options.cut = Cut::parse(settings.cut);
  options.calibration = calibration_texts(settings, context);
  options.staging = staging.path();
  options.cache = context.home.cache();
  std::optional<Progress> bar;
  std::string stage;
  options.progress = [&](std::string_view what, std::uint64_t done, std::uint64_t total) {
    if (stage != what) {
      bar.reset();
      bar.emplace(context.out, std::string(what), static_cast<std::int64_t>(total),
                  what == "statistics" ? "blocks" : "bytes");
      stage = what;
    }
    bar->update(static_cast<std::int64_t>(done));
  };
  const ImportedModel imported = import_model(whole, options);
  bar.reset();
  publish_shipped_plugins(registry);
  const Entry base = registry.publish(imported.base), model = registry.publish(imported.model);

  const ModelManifest manifest = ModelManifest::parse(model.manifest, model.title());
  if (context.flags.json) {
    context.out.json({{"model", model.name},
                      {"version", model.version.text()},
                      {"entry", model.digest},
                      {"base", base.name},
                      {"model_digest", manifest.contract.model_digest},
                      {"base_digest", manifest.contract.base_digest},
                      {"proven_positions", imported.proven_positions},
                      {"calibration_tokens", imported.calibration_tokens}});
    return;
  }
  context.out.line(fmt::format("{}: layers 0:{} trunk, {}:{} base, {}:{} head; width {}", model.title(),
                               options.cut.first, options.cut.first, options.cut.last, options.cut.last,
                               manifest.layers, manifest.contract.width));
  context.out.line(fmt::format("joined again: logits equal the uncut model's bit for bit at {} positions",
                               imported.proven_positions));
  context.out.line(fmt::format("calibration: {} tokens of {} kinds", imported.calibration_tokens,
                               manifest.calibration->kinds.size()));
  if (imported.calibration_tokens < 200000 || manifest.calibration->kinds.size() < 6)
    context.out.warn(
        "calibration text this small or this uniform makes rows less sure; 200,000 tokens of six kinds are a good "
        "measure");
  context.out.next(fmt::format("tenon run {} \"Once upon a time\"", model.name));
}

void add_import(CLI::App& model, Context& context) {
  auto settings = std::make_shared<Settings>();
  CLI::App* command = model.add_subcommand("import", "Cut a model and publish trunk, head and base");
  command->add_option("source", settings->source, "A .gguf file or a Hugging Face directory")->required();
  command->add_option("--cut", settings->cut, "A:Z, the middle: first layer included, last excluded")->required();
  command->add_option("--calibration", settings->calibration,
                      "General text, one subfolder a kind (default: TENON_HOME/calibration)");
  command->add_option("--name", settings->name, "Name of the model package (default: from the file)");
  examples(*command, {"tenon model import smollm2.gguf --cut 10:20 --calibration texts/",
                      "tenon model import ./SmolLM2-135M --cut 10:20 --name smollm2"});
  command->callback([settings, &context] {
    const WholeModel whole = read_whole_model(settings->source);
    import(whole, *settings, settings->name.empty() ? name_from(settings->source) : settings->name, context);
  });
}

void add_new(CLI::App& model, Context& context) {
  auto settings = std::make_shared<Settings>();
  CLI::App* command =
      model.add_subcommand("new", "Make a small random model with a byte tokenizer, for tests and research");
  ModelShape& shape = settings->shape;
  command->add_option("name", settings->name, "Name of the model package")->required();
  command->add_option("--cut", settings->cut, "A:Z, the middle")->default_str("2:4");
  command->add_option("--calibration", settings->calibration,
                      "General text, one subfolder a kind (default: TENON_HOME/calibration)");
  command->add_option("--seed", settings->seed, "Of the random weights");
  command->add_option("--width", shape.width, "Model width C")->capture_default_str();
  command->add_option("--layers", shape.layers, "Layers")->capture_default_str();
  command->add_option("--heads", shape.heads, "Query heads")->capture_default_str();
  command->add_option("--kv-heads", shape.kv_heads, "Key and value heads")->capture_default_str();
  command->add_option("--head-dim", shape.head_dim, "Width of a head")->capture_default_str();
  command->add_option("--ffn-width", shape.ffn_width, "Inner width of the feed-forward")->capture_default_str();
  examples(*command, {"tenon model new toy --layers 6 --cut 2:4 --calibration texts/"});
  settings->cut = "2:4";
  command->callback([settings, &context] {
    const ModelShape& s = settings->shape;
    if (s.width < 1 || s.layers < 1 || s.kv_heads < 1 || s.head_dim < 2 || s.head_dim % 2 || s.ffn_width < 1 ||
        s.heads % s.kv_heads)
      throw Error(Code::usage, "model new", "these sizes make no model",
                  "all are at least 1, --head-dim is even, --heads is a multiple of --kv-heads");
    import(random_model(s, settings->seed), *settings, settings->name, context);
  });
}

} // namespace

void add_model(CLI::App& app, Context& context) {
  CLI::App* model = noun(app, "model", "Cut a model, or make a small random one");
  add_import(*model, context);
  add_new(*model, context);
}

} // namespace tenon
