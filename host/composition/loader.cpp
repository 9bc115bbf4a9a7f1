#include "host/composition/loader.hpp"

#include "host/loading/bind.hpp"
#include "host/loading/rules.hpp"
#include "host/loading/verified.hpp"
#include "kernels/cpu/engine.hpp"
#include "kernels/cpu/key_values.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>

namespace tenon {
namespace {

// Our threads compute in every format, and packed products are all theirs; in float32 LibTorch takes as many.
// Errors: environment, where one of the variables that choose kernels asks for what cannot be had.
void start_kernels(Format format) {
  try {
    cpu::engine();
    cpu::chosen_key_format();
    cpu::pages();
  } catch (const std::runtime_error& error) {
    throw Error(Code::environment, "kernels", error.what(), "give such a value, or unset the variable");
  }
  at::set_num_threads(format == Format::float32 ? cpu::engine().pool->threads() : 1);
}

// A matrix that cannot have the format, or keeps to float32, matters only where the expert multiplies it: one row
// tells. What else goes wrong does so in use as well, where it is dealt with.
void try_format(const LoadedExpert& expert, const Weights* weights, std::int64_t width) {
  const PackedWeights* packed = weights ? weights->packed() : nullptr;
  if (!packed || (packed->refusals().empty() && packed->left_float32() == 0)) return;
  try {
    const at::Tensor row = at::zeros({1, width});
    const tenon_span span{0, 1, 0, nullptr};
    (void)expert.forward(row, row, {&span, 1});
  } catch (const Error& error) {
    for (const std::string& refusal : packed->refusals())
      if (error.message.find(refusal) != std::string::npos)
        throw Error(Code::incompatible, expert.title(), refusal,
                    "compute in bf16 or float32, or leave this expert out");
  }
}

ExpertManifest manifest_of(const Entry& entry) { return ExpertManifest::parse(entry.manifest, entry.title()); }

} // namespace

std::vector<std::string> host_operators() {
  std::vector<std::string> names;
  for (const c10::OperatorName& name : c10::Dispatcher::singleton().getAllOpNames())
    if (name.name.rfind("tenon::", 0) == 0) names.push_back(name.name);
  return names;
}

Row read_row(const std::filesystem::path& path) {
  const Weights file = Weights::open(path, "", {});
  return {file.at("r").clone(), file.at("b").item<double>()};
}

void write_row(const std::filesystem::path& path, const Row& row) {
  write_weights(path, {{"r", row.r_C}, {"b", at::full({1}, row.b)}});
}

Loader::Loader(const Registry& registry, Options options)
    : registry_(registry),
      options_(std::move(options)),
      plugins_(host_side(host_operators()), options_.store, host_table()) {
  start_kernels(options_.format);
}

// Checked once by hash, afterwards by inode, size and change time.
std::filesystem::path Loader::path_of(const Entry& entry, const FileRecord& file) const {
  return VerifiedBlobs(options_.cache / "verified")
      .check(registry_.blob(file.digest), file.digest, entry.title() + " " + file.path);
}

std::filesystem::path Loader::path_of(const Entry& entry, std::string_view role) const {
  return path_of(entry, entry.file_with_role(role));
}

std::function<void(std::uint64_t, std::uint64_t)> Loader::progress_of(const Entry& entry) const {
  if (!options_.progress) return {};
  return [say = options_.progress, title = entry.title()](std::uint64_t done, std::uint64_t total) {
    say(title, done, total);
  };
}

std::shared_ptr<const Model> Loader::model(const Entry& entry) const {
  const ModelManifest manifest = ModelManifest::parse(entry.manifest, entry.title());
  ModelFiles files;
  files.weights = path_of(entry, "weights");
  files.weights_digest = entry.file_with_role("weights").digest;
  files.format = options_.format;
  files.tokenizer = path_of(entry, "tokenizer");
  files.normalization = path_of(entry, entry.file("normalization.safetensors"));
  if (!entry.files_with_role("calibration").empty()) files.calibration = path_of(entry, "calibration");
  files.progress = progress_of(entry);
  return std::make_shared<const Model>(manifest, files, options_.cache);
}

const Plugin& Loader::plugin(const PackageRequest& request) const {
  for (const std::filesystem::path& path : options_.dev)
    if (read_facts(MappedFile(path).bytes(), path.string()).name == request.name) return plugins_.load({path, nullptr});
  const Entry entry = registry_.resolve(request, Kind::plugin, host_platform().text());
  return plugins_.load({registry_.blob(entry.file_with_role("library").digest), &entry});
}

const Plugin& Loader::plugin(const LockedPlugin& locked) const {
  for (const std::filesystem::path& path : options_.dev)
    if (read_facts(MappedFile(path).bytes(), path.string()).name == locked.name) return plugins_.load({path, nullptr});
  const Entry entry = registry_.locked(locked.name, locked.version, locked.entry).entry;
  return plugins_.load({registry_.blob(entry.file_with_role("library").digest), &entry});
}

std::shared_ptr<LoadedExpert> Loader::create(const Plugin& plugin, const std::string& architecture,
                                             const json::object& config, const Model& model, const ExpertManifest* base,
                                             const std::string& title) const {
  const ArchitectureFacts* facts = plugin.facts.architecture(architecture);
  if (!facts) {
    std::string has;
    for (const ArchitectureFacts& known : plugin.facts.architectures) has += (has.empty() ? "" : ", ") + known.name;
    throw Error(Code::not_found, plugin.facts.title(), "found no architecture " + architecture + ", it has: " + has);
  }
  json::object values = {{"config", facts->complete(config)},
                         {"model",
                          {{"width", model.contract().width},
                           {"first", model.contract().cut.first},
                           {"last", model.contract().cut.last},
                           {"dtype", "float32"}}}};
  if (base) values["base"] = {{"architecture", base->architecture}, {"config", base->config}};
  ExpertSpec spec{title,
                  architecture,
                  values,
                  model.statistics().mean_C,
                  model.statistics().deviation_C,
                  facts->context,
                  facts->uses_base_output()};
  return std::make_shared<LoadedExpert>(plugin.table, std::move(spec));
}

ExpertPackage Loader::base(const Model& model) const {
  const ModelManifest& manifest = model.manifest();
  PackageRequest request = PackageRequest::parse(
      manifest.base_version ? manifest.base_name + "@=" + manifest.base_version->text() : manifest.base_name);
  return expert(registry_.resolve(request, Kind::expert), model, nullptr);
}

ExpertPackage Loader::expert(const Entry& entry, const Model& model, const ExpertPackage* base,
                             const LockedPlugin* locked) const {
  ExpertPackage package{entry, manifest_of(entry), nullptr, nullptr, std::nullopt};
  const ExpertManifest& manifest = package.manifest;
  const Plugin& from = locked ? plugin(*locked) : plugin(manifest.plugin);

  Candidate candidate;
  candidate.title = entry.title();
  candidate.facts = from.facts;
  candidate.host = &plugins_.host();
  candidate.expert = &manifest;
  candidate.model = &model.manifest();
  if (const auto refusal = first_refusal(candidate, 6, 6)) throw refusal->to_error();

  package.expert =
      create(from, manifest.architecture, manifest.config, model, base ? &base->manifest : nullptr, entry.title());
  if (const auto files = entry.files_with_role("weights"); !files.empty())
    package.weights =
        std::make_shared<const Weights>(Weights::open(path_of(entry, files[0]), files[0].digest, options_.cache,
                                                      Weights::Compute{options_.format, {}}, progress_of(entry)));
  bind_weights(*package.expert, manifest, package.weights.get(), base ? base->weights.get() : nullptr);
  package.expert->prepare(TENON_INFERENCE);
  try_format(*package.expert, package.weights.get(), model.contract().width);
  if (!entry.files_with_role("row").empty()) package.row = read_row(path_of(entry, "row"));
  return package;
}

} // namespace tenon
