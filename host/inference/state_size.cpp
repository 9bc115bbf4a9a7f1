#include "host/inference/state_size.hpp"

#include "kernels/packed_operators.hpp"

#include <ATen/core/Tensor.h>

#include <limits>

namespace tenon {

StateSize::StateSize(const Composition& composition) {
  constexpr auto kNumber = static_cast<std::int64_t>(sizeof(float));
  const Model& model = composition.model();
  std::int64_t kept = 0;
  for (const PackedPointer& run : {model.trunk().run(), model.head().run()})
    if (run) kept += kept_numbers(*run);
  bool keeps_base = false;
  for (const ExpertPackage& package : composition.packages()) {
    kept += package.expert->kept_numbers();
    for (const StateTensor& tensor : package.expert->layout())
      if (!tensor.per_position) fixed_bytes += kNumber * c10::multiply_integers(tensor.shape);
    keeps_base = keeps_base || package.expert->uses_base_output();
  }
  kept += model.shape().width * (keeps_base ? 2 : 1) +
          static_cast<std::int64_t>(composition.packages().size()); // rows of h, base, strengths
  const Routing& routing = composition.router().routing();
  if (routing.average_over > 1) fixed_bytes += kNumber * routing.average_over * composition.router().experts();
  block_bytes = kNumber * kept * kStateBlock;
}

std::uint64_t StateSize::bytes(std::int64_t positions) const {
  const std::int64_t blocks = positions / kStateBlock + (positions % kStateBlock > 0);
  std::uint64_t out = 0;
  const bool too_many =
      __builtin_mul_overflow(blocks, block_bytes, &out) || __builtin_add_overflow(out, fixed_bytes, &out);
  return too_many ? std::numeric_limits<std::uint64_t>::max() : out;
}

} // namespace tenon
