#include "host/composition/composition.hpp"

#include "host/execution/merge.hpp"
#include "registry/base/error.hpp"

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
}

Composition::Composition(std::shared_ptr<const Model> model, std::vector<ExpertPackage> experts, Routing routing,
                         double prior, Options options)
    : model_(std::move(model)),
      packages_(std::move(experts)),
      experts_(living(packages_), options.strict, options.say) {
  const Statistics& h = model_->statistics();
  router_ =
      std::make_unique<Router>(Normalization{h.mean_C, h.deviation_C}, rows_of(packages_), std::move(routing), prior);
}

at::Tensor Composition::forward(const Batch& batch) { return model_->head().forward(middle(batch), batch); }

at::Tensor Composition::middle(const Batch& batch, const at::Tensor* given) {
  at::NoGradGuard no_grad;
  const at::Tensor h_NC = model_->trunk().forward(batch);
  for (const BatchRows& row : batch.rows)
    if (row.sequence) row.sequence->h.append(h_NC.narrow(0, row.offset, row.length));
  last_strengths_ = given ? *given : router_->strengths(h_NC, batch); // skips over the middle
  return merge(h_NC, last_strengths_, experts_, batch);               // runs only what somebody chose
}

Sequence Composition::new_sequence() const {
  Sequence sequence{ModuleState(model_->trunk().layout()), ModuleState(model_->head().layout()), {}, {}, {}};
  for (const ExpertPackage& package : packages_) sequence.experts.emplace_back(package.expert->layout());
  return sequence;
}

} // namespace tenon
