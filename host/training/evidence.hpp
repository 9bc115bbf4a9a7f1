// What held-out text says about an expert: perplexity of the base, of the expert alone, and of the two mixed by the
// row. Also the statistics of n(h) over its training text. Position 0 is the base's throughout. Thread: one.
#pragma once

#include "host/routing/router.hpp"
#include "host/training/streams.hpp"
#include "host/training/subject.hpp"

#include <vector>

namespace tenon {

// Loss per token that counts, in nats, of each block.
struct HeldOutLosses {
  std::vector<double> base, alone, mixture;
  double mean_strength = 0.0; // of the expert in the mixture
  std::int64_t tokens = 0;
};

// The first `blocks` of the streams. Leaves the expert ready for inference. Errors: plugin, interrupted.
HeldOutLosses measure_held_out(const Subject& subject, const Streams& held_out, const Row& row, std::int64_t blocks,
                               const TrainingHooks& hooks);

struct Interval {
  double mean = 0.0, low = 0.0, high = 0.0;
};
// Mean of b - a over pairs with its 95% interval by Student's t. Requires: two pairs at least.
Interval paired_difference(const std::vector<double>& a, const std::vector<double>& b);

// For expert.json: perplexities, and how much lower than the base's, in percent, with the interval.
json::object evidence_json(const HeldOutLosses& losses, const std::string& data_digest);

struct Profile {
  at::Tensor mean_C, deviation_C;
  std::int64_t count = 0;
};
// n(h) of all positions but the first of each block and its padding, in float64.
Profile profile_of(const Streams& streams, const Normalization& normalization);
void write_profile(const std::filesystem::path& path, const Profile& profile);

// n(h) of at most `positions` positions of the streams, evenly taken from all blocks; without position 0 and padding.
at::Tensor sample_positions(const Streams& streams, const Normalization& normalization, std::int64_t positions);

} // namespace tenon
