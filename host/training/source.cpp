#include "host/training/source.hpp"

#include "host/model/rejoin.hpp"
#include "registry/base/error.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

namespace tenon {
namespace {

// Both or neither.
void require_use(const TrainingPlan& plan, const ArchitectureFacts& facts) {
  if (facts.imports_layers && !plan.from)
    throw Error(Code::usage, "TN-S1 source", facts.name + " is cut from a model's layers, and the plan names none",
                "for example --set from.model=" + plan.model + " --set from.layers=0:2, the first two of its layers");
  if (!facts.imports_layers && plan.from)
    throw Error(
        Code::usage, "TN-S1 source",
        fmt::format("the plan names {} as a source, and {} is not cut from a model", plan.from->model, facts.name),
        "leave out from.model and from.layers, or choose --arch tenon.imported");
}

void require_tokens(const Source& source, const Model& model) {
  const std::string &has = source.model->contract().tokenizer_digest, &needs = model.contract().tokenizer_digest;
  if (has == needs) return;
  throw Error(Code::incompatible, "TN-S2 tokenizer",
              fmt::format("{} reads tokens by {}, {} by {}", source.entry.title(), has, model.manifest().name, needs),
              "choose a source with the same tokenizer: stitches map the streams of the same tokens");
}

void require_layers(const Source& source) {
  const Cut& layers = source.layers;
  if (0 <= layers.first && layers.first < layers.last && layers.last <= source.model->shape().layers) return;
  throw Error(Code::usage, "TN-S3 layers",
              fmt::format("found from.layers {}, {} has layers 0:{}", layers.text(), source.entry.title(),
                          source.model->shape().layers),
              fmt::format("choose A:Z with 0 <= A < Z <= {}", source.model->shape().layers));
}

} // namespace

json::object Source::config(const json::object& asked) const {
  json::object full = middle_config(model->shape(), layers.first, layers.last);
  full["width"] = model->shape().width;
  for (const auto& [field, value] : asked) {
    const json::value* known = full.if_contains(field);
    if (known && *known != value)
      throw Error(Code::usage, "TN-S4 config",
                  fmt::format("found {} {}, {} have {}", std::string(field), canonical_json(value), title(),
                              canonical_json(*known)),
                  "leave it out: the source says it");
    full[field] = value;
  }
  return full;
}

WeightSource Source::weights() const { return rejoined_weights(model->weights(), *middle, model->contract().cut); }

void Source::copy_into(const LoadedExpert& expert) const {
  at::NoGradGuard no_grad;
  const WeightSource all = weights();
  for (const ExpertParameter& parameter : expert.parameters()) {
    if (layer_of(parameter.name) < 0) continue;
    const at::Tensor value = all(name_in_stack(parameter.name, -layers.first));
    if (parameter.shared || value.sizes() != parameter.tensor.sizes())
      throw Error(Code::plugin, expert.title(),
                  fmt::format("{} is not the parameter of its own that {} give it", parameter.name, title()));
    at::Tensor(parameter.tensor).copy_(value);
  }
}

Trunk Source::entrance() const { return Trunk(model->shape(), layers.first, weights()); }

std::string Source::title() const { return fmt::format("{}, layers {}", entry.title(), layers.text()); }

std::string Source::digest() const {
  return model->contract().model_digest + " " + model->contract().base_digest + " " + layers.text();
}

std::optional<Source> open_source(const Loader& loader, const TrainingPlan& plan, const ArchitectureFacts& facts,
                                  const std::shared_ptr<const Model>& model, const Entry& model_entry,
                                  const ExpertPackage& base) {
  require_use(plan, facts);
  if (!plan.from) return std::nullopt;
  Source source;
  source.entry = loader.registry().resolve(PackageRequest::parse(plan.from->model), Kind::model);
  source.layers = plan.from->layers;
  const bool own = source.entry.digest == model_entry.digest;
  source.model = own ? model : loader.model(source.entry);
  require_tokens(source, *model);
  require_layers(source);
  const ExpertPackage middle = own ? base : loader.base(*source.model);
  if (middle.manifest.architecture != "tenon.transformer")
    throw Error(Code::incompatible, "TN-S5 family",
                fmt::format("the middle of {} is {}, need tenon.transformer", source.entry.title(),
                            middle.manifest.architecture),
                "choose a model that was imported with `tenon model import`");
  source.middle = middle.weights;
  return source;
}

} // namespace tenon
