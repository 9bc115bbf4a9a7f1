#include "host/composition/composition.hpp"

#include "host/execution/merge.hpp"
#include "kernels/cpu/key_values.hpp"
#include "kernels/packed_operators.hpp"
#include "registry/base/error.hpp"
#include "registry/base/sha256.hpp"

#include <ATen/ATen.h>

namespace tenon {
namespace {

std::vector<ExpertPackage> load_experts(const Loader& loader, const Lock& lock, const Model& model) {
  std::vector<ExpertPackage> packages;
  for (const LockedSlot& slot : lock.slots) {
    const Entry entry = loader.registry().locked(slot.name, slot.version, slot.entry).entry;
    const ExpertPackage* base = packages.empty() ? nullptr : &packages.front();
    packages.push_back(loader.expert(entry, model, base, &slot.plugin));
  }
  return packages;
}

std::vector<std::shared_ptr<LoadedExpert>> living(const std::vector<ExpertPackage>& packages) {
  std::vector<std::shared_ptr<LoadedExpert>> out;
  for (const ExpertPackage& package : packages) out.push_back(package.expert);
  return out;
}

std::vector<Row> rows_of(const std::vector<ExpertPackage>& packages) {
  std::vector<Row> rows;
  for (std::size_t slot = 1; slot < packages.size(); ++slot) {
    if (!packages[slot].row)
      throw Error(Code::incompatible, packages[slot].entry.title(),
                  "this expert has no row, so no router can choose it",
                  "train it, or publish it with its row.safetensors");
    rows.push_back(*packages[slot].row);
  }
  return rows;
}

std::shared_ptr<const Model> load_model(const Loader& loader, const LockedModel& locked) {
  return loader.model(loader.registry().locked(locked.name, locked.version, locked.entry).entry);
}

} // namespace

Composition::Composition(const Loader& loader, const Lock& lock, Options options)
    : lock_(lock),
      model_(load_model(loader, lock.model)),
      packages_(load_experts(loader, lock, *model_)),
      experts_(living(packages_), options.strict, options.say) {
  const Statistics& h = model_->statistics();
  router_ = std::make_unique<Router>(Normalization{h.mean_C, h.deviation_C}, rows_of(packages_), lock.router.routing,
                                     lock.router.prior.value_or(0.0));
  give_back_memory();
}

Composition::Composition(std::shared_ptr<const Model> model, std::vector<ExpertPackage> experts, Routing routing,
                         double prior, Options options)
    : model_(std::move(model)),
      packages_(std::move(experts)),
      experts_(living(packages_), options.strict, options.say) {
  const Statistics& h = model_->statistics();
  router_ =
      std::make_unique<Router>(Normalization{h.mean_C, h.deviation_C}, rows_of(packages_), std::move(routing), prior);
  give_back_memory();
}

at::Tensor Composition::forward(const Batch& batch) { return model_->head().forward(middle(batch), batch); }

at::Tensor Composition::middle(const Batch& batch, const at::Tensor* given) {
  const at::Tensor h_NC = read(batch, given);
  return merged(h_NC, last_strengths_, batch);
}

at::Tensor Composition::read(const Batch& batch, const at::Tensor* given) {
  at::NoGradGuard no_grad;
  const at::Tensor h_NC = model_->trunk().forward(batch);
  for (const BatchRows& row : batch.rows)
    if (row.sequence) row.sequence->h.append(h_NC.narrow(0, row.offset, row.length));
  last_strengths_ = given ? *given : router_->strengths(h_NC, batch); // skips over the middle
  return h_NC;
}

at::Tensor Composition::merged(const at::Tensor& h_NC, const at::Tensor& w_NE, const Batch& batch) {
  at::NoGradGuard no_grad;
  return merge(h_NC, w_NE, experts_, batch); // runs only what somebody chose
}

json::object Composition::state_facts() const {
  json::array experts;
  for (const ExpertPackage& package : packages_) experts.emplace_back(package.entry.title());
  return {{"model", model_->manifest().name},
          {"experts", experts},
          {"routing", to_json(router_->routing())},
          {"compute", format_name(model_->format())},
          {"keys", key_format()}};
}

const char* Composition::key_format() const {
  const bool packed = model_->format() != Format::float32;
  return cpu::key_format_name(packed ? cpu::chosen_key_format() : cpu::KeyFormat::float32);
}

std::string Composition::state_digest() const {
  json::array slots;
  for (const ExpertPackage& package : packages_)
    slots.push_back(json::object{{"title", package.entry.title()}, {"entry", package.entry.digest}});
  return "sha256:" + sha256(canonical_json(json::object{{"model", model_->contract().model_digest},
                                                        {"slots", slots},
                                                        {"routing", to_json(router_->routing())},
                                                        {"prior", router_->prior()},
                                                        {"lock", lock_.slots.empty() ? json::value() : lock_.to_json()},
                                                        {"compute", format_name(model_->format())},
                                                        {"keys", key_format()}}));
}

Sequence Composition::new_sequence() const {
  Sequence sequence{ModuleState(model_->trunk().layout(), pool_),
                    ModuleState(model_->head().layout(), pool_),
                    {},
                    RowBuffer(pool_),
                    RowBuffer(pool_)};
  for (const ExpertPackage& package : packages_) sequence.experts.emplace_back(package.expert->layout(), pool_);
  return sequence;
}

} // namespace tenon
