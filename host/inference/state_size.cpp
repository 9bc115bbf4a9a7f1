#include "host/inference/state_size.hpp"

#include <ATen/core/Tensor.h>

namespace tenon {

StateSize::StateSize(const Composition& composition) {
  constexpr auto kNumber = static_cast<std::int64_t>(sizeof(float));
  const auto add = [&](const ModuleLayout& layout) {
    for (const StateTensor& tensor : layout)
      (tensor.per_position ? block_bytes : fixed_bytes) +=
          kNumber * c10::multiply_integers(tensor.shape) * (tensor.per_position ? kStateBlock : 1);
  };
  const Model& model = composition.model();
  add(model.trunk().layout());
  add(model.head().layout());
  bool keeps_base = false;
  for (const ExpertPackage& package : composition.packages()) {
    add(package.expert->layout());
    keeps_base = keeps_base || package.expert->uses_base_output();
  }
  const std::int64_t kept = model.shape().width * (keeps_base ? 2 : 1) +
                            static_cast<std::int64_t>(composition.packages().size()); // rows of h, base, strengths
  block_bytes += kNumber * kept * kStateBlock;
}

} // namespace tenon
