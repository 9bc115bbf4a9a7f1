// Stitches at birth (see tenon/nn/stitch.hpp), by least squares on cached activations of both texts of a training:
//
//   down: min |S n(h_t) + s - h'_t|^2, h' the source model's residual stream at the entrance of its layers;
//         where the blocks were cut from no model there is nothing to aim at, and down stays as it was born.
//   up:   min |U y'_t + u - base_t|^2, y' what the blocks say of the stitched stream, position 0 left out, as it is the
//         base's; where the expert stands on the base, up stays zero, so that the expert is the base at birth.
//
// Thread: one.
#pragma once

#include "host/training/streams.hpp"
#include "host/training/subject.hpp"

#include <optional>

namespace tenon {

// The share of the target's variance that each leaves unexplained; nothing where it was not fitted.
struct StitchFit {
  std::optional<double> down, up;
};

// Does nothing to an expert without stitches. max_positions: of each text, whole blocks. The expert is left ready for
// inference. Errors: plugin (stitches of other shapes), numeric, interrupted.
StitchFit fit_stitches(const Subject& subject, const Streams& domain, const std::optional<Streams>& general,
                       const TrainingPlan::Stitch& options, const TrainingHooks& hooks);

} // namespace tenon
