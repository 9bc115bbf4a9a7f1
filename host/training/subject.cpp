#include "host/training/subject.hpp"

#include "host/loading/bind.hpp"
#include "host/loading/rules.hpp"
#include "registry/base/error.hpp"

#include <ATen/ATen.h>

#include <set>

namespace tenon {
namespace {

namespace fs = std::filesystem;

bool wanted(const Facts& facts, const std::string& architecture, const std::optional<PackageRequest>& request,
            std::set<std::string>& seen) {
  for (const ArchitectureFacts& known : facts.architectures) seen.insert(known.name + " (" + facts.title() + ")");
  return facts.architecture(architecture) && (!request || request->name == facts.name);
}

// Facts that cannot be read hide their plugin, here; loading it by name says why.
std::optional<Facts> facts_of_file(const fs::path& path) {
  try {
    return read_facts(MappedFile(path).bytes(), path.string());
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::optional<Facts> facts_of_entry(const Registry& registry, const std::string& name) {
  try {
    const Entry entry = registry.resolve(PackageRequest::parse(name), Kind::plugin, host_platform().text());
    return Facts::parse(canonical_json(entry.manifest), entry.title());
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::vector<fs::path> shipped_libraries() {
  std::vector<fs::path> out;
  std::error_code ignored;
  for (const fs::directory_entry& file : fs::directory_iterator(shipped_plugins(), ignored))
    if (file.path().extension() == ".so") out.push_back(file.path());
  std::sort(out.begin(), out.end());
  return out;
}

std::string list_of(const std::set<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

// The plan's own mistake, and so the caller's.
json::object complete_config(const ArchitectureFacts& facts, const json::object& config, const Plugin& plugin) {
  try {
    return facts.complete(config);
  } catch (const Error& error) {
    throw Error(Code::usage, facts.name, error.message,
                "see what it can be told: tenon show " + plugin.facts.name +
                    "; fields of the plan have a section, as in "
                    "--set train.steps=100");
  }
}

ExpertManifest draft_manifest(const TrainingPlan& plan, const std::string& name, const Subject& subject) {
  const Plugin& plugin = *subject.plugin;
  const ArchitectureFacts& facts = *plugin.facts.architecture(plan.architecture);
  ExpertManifest manifest;
  manifest.name = name;
  manifest.version = Version::parse(plan.version);
  manifest.summary = plan.summary;
  manifest.license = plan.license;
  manifest.plugin = PackageRequest::parse(plugin.facts.name + "@^" + plugin.facts.version.text());
  manifest.architecture = plan.architecture;
  manifest.config = complete_config(facts, subject.source ? subject.source->config(plan.config) : plan.config, plugin);
  manifest.contract = subject.model->contract();
  manifest.context = facts.context.text();
  manifest.uses = facts.uses;
  return manifest;
}

void judge_subject(const Subject& subject, const Loader& loader, bool bfloat16) {
  Candidate candidate;
  candidate.title = subject.manifest.name;
  candidate.facts = subject.plugin->facts;
  candidate.host = &loader.plugins().host();
  candidate.expert = &subject.manifest;
  candidate.model = &subject.model->manifest();
  if (bfloat16) candidate.dtype = "bfloat16";
  if (const auto refusal = first_refusal(candidate, 6, 6)) throw refusal->to_error();
}

// Shared tensors get the base's memory; the others stay in the expert's own, and are born; blocks cut from a model are
// its copies.
void bind_new(const Subject& subject, std::uint64_t seed) {
  for (const ExpertParameter& parameter : subject.expert->parameters()) {
    if (!parameter.shared) continue;
    const auto& weights = subject.base.weights;
    if (!weights || !weights->has(*parameter.shared))
      throw Error(Code::plugin, subject.expert->title(),
                  "asks for the base's tensor " + *parameter.shared + ", which the base does not have");
    subject.expert->bind(parameter.name, weights->at(*parameter.shared));
  }
  subject.expert->initialize(seed);
  if (subject.source) subject.source->copy_into(*subject.expert);
}

} // namespace

const Plugin& find_plugin(const Loader& loader, const std::vector<fs::path>& dev, const std::string& architecture,
                          const std::string& request_text) {
  std::optional<PackageRequest> request;
  if (!request_text.empty()) request = PackageRequest::parse(request_text);
  std::set<std::string> seen;
  for (const fs::path& path : dev) // a build tree's faults are the user's business: nothing is hidden
    if (wanted(read_facts(MappedFile(path).bytes(), path.string()), architecture, request, seen))
      return loader.plugins().load({path, nullptr});
  for (const PublishedPackage& package : loader.registry().list().packages) {
    if (package.kind != Kind::plugin) continue;
    const auto facts = facts_of_entry(loader.registry(), package.name);
    if (facts && wanted(*facts, architecture, request, seen))
      return loader.plugin(request ? *request : PackageRequest::parse(package.name));
  }
  for (const fs::path& path : shipped_libraries())
    if (const auto facts = facts_of_file(path); facts && wanted(*facts, architecture, request, seen))
      return loader.plugins().load({path, nullptr});
  if (request) loader.registry().resolve(*request, Kind::plugin, host_platform().text()); // says what is wrong with it
  throw Error(Code::not_found, "train",
              "found no architecture " + architecture + (request ? " in " + request->name : "") +
                  "; there are: " + list_of(seen),
              "publish the plugin that has it (tenon publish PLUGIN.so), or give its library with --dev");
}

NamedTensors Subject::own() const {
  NamedTensors out;
  for (const ExpertParameter& parameter : expert->parameters())
    if (!parameter.shared) out.emplace_back(parameter.name, parameter.tensor);
  return out;
}

NamedTensors Subject::trainable() const {
  NamedTensors out;
  for (const ExpertParameter& parameter : expert->parameters())
    if (parameter.trainable && !parameter.shared) out.emplace_back(parameter.name, parameter.tensor);
  if (out.empty()) throw Error(Code::plugin, expert->title(), "has no parameter to train");
  return out;
}

std::string Subject::frozen_digest() const {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const ExpertParameter& parameter : base.expert->parameters())
    tensors.emplace_back(parameter.name, parameter.tensor);
  return model->memory_digest() + " " + tensors_digest(tensors);
}

Subject open_subject(const Loader& loader, const std::vector<fs::path>& dev, const TrainingPlan& plan,
                     const std::string& name) {
  Subject subject;
  subject.model_entry = loader.registry().resolve(PackageRequest::parse(plan.model), Kind::model);
  subject.plugin = &find_plugin(loader, dev, plan.architecture, plan.plugin);
  subject.model = loader.model(subject.model_entry);
  subject.base = loader.base(*subject.model);
  subject.source = open_source(loader, plan, *subject.plugin->facts.architecture(plan.architecture), subject.model,
                               subject.model_entry, subject.base);
  subject.manifest = draft_manifest(plan, name, subject);
  plan.check_used(subject.learns_in_a_pass());
  judge_subject(subject, loader, plan.train.bfloat16);
  subject.expert = loader.create(*subject.plugin, plan.architecture, subject.manifest.config, *subject.model,
                                 &subject.base.manifest, name);
  bind_new(subject, static_cast<std::uint64_t>(plan.train.seed));
  for (const auto& [parameter, tensor] : subject.learns_in_a_pass() ? subject.own() : subject.trainable())
    if (!at::isfinite(tensor.detach()).all().item<bool>())
      throw Error(Code::plugin, name, "parameter " + parameter + " is not finite at birth");
  return subject;
}

void try_out(const Subject& subject, std::int64_t sequence_length, bool learns_in_a_pass) {
  const std::int64_t length = std::min<std::int64_t>(sequence_length, 16);
  const Batch batch = Batch::whole(at::zeros({1, length}, at::kLong));
  const auto spans = batch.spans([](Sequence& sequence) -> ModuleState& { return sequence.experts[0]; });
  const at::Tensor h_NC = subject.model->trunk().forward(batch);
  at::Tensor base_NC;
  {
    at::NoGradGuard no_grad;
    base_NC = subject.base.expert->forward(h_NC, {}, spans);
  }
  subject.expert->prepare(TENON_TRAINING);
  const at::Tensor y_NC = subject.expert->forward(h_NC, base_NC, spans);
  if (!at::isfinite(y_NC.detach()).all().item<bool>())
    throw Error(Code::plugin, subject.expert->title(), "forward returned values that are not finite");
  if (learns_in_a_pass) return;
  if (!y_NC.requires_grad())
    throw Error(Code::plugin, subject.expert->title(), "forward returned something that no parameter can change",
                "compute it in training mode with operations that keep gradients");
  try {
    y_NC.sum().backward();
  } catch (const std::exception& problem) {
    throw Error(Code::plugin, subject.expert->title(), std::string("failed in backward: ") + problem.what());
  }
  for (const auto& [name, parameter] : subject.trainable()) parameter.mutable_grad().reset();
}

} // namespace tenon
