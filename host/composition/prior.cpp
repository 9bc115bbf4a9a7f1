#include "host/composition/prior.hpp"

#include "host/model/calibration.hpp"
#include "host/routing/policy.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"

#include <ATen/ATen.h>

namespace tenon {
namespace {

constexpr std::int64_t kLength = 256;
constexpr std::size_t kBlocks = 48; // some 12,000 positions: the share is then known to within 0.3%

at::Tensor compute(const Model& model, const PriorProgress& progress) {
  const Shard shard = model.calibration();
  std::vector<std::uint32_t> blocks = calibration_blocks(shard, kLength, CalibrationPart::prior);
  if (blocks.empty())
    throw Error(Code::usage, model.manifest().name,
                "its calibration text is too short to hold out a block of 256 tokens",
                "import the model again with more calibration text");
  // Spread over all kinds of text.
  const std::size_t count = std::min(kBlocks, blocks.size());
  std::vector<at::Tensor> rows;
  for (std::size_t i = 0; i < count; ++i) {
    const auto block = shard.block(blocks[i * blocks.size() / count], kLength);
    at::Tensor tokens_1T = at::empty({1, kLength}, at::kLong);
    std::copy(block.begin(), block.end(), tokens_1T.data_ptr<std::int64_t>());
    rows.push_back(
        model.trunk().forward(Batch::whole(tokens_1T)).narrow(0, 1, kLength - 1)); // position 0 takes the base
    if (progress) progress(i + 1, count);
  }
  return at::cat(rows);
}

} // namespace

at::Tensor general_rows(const Model& model, const std::filesystem::path& cache, const PriorProgress& progress) {
  const std::string& digest = model.contract().model_digest;
  const std::filesystem::path path = cache / "general" / (digest.substr(digest.find(':') + 1) + ".safetensors");
  if (!std::filesystem::exists(path)) {
    const FileLock lock(path.string() + ".lock");
    if (!std::filesystem::exists(path)) write_weights(path, {{"h", compute(model, progress)}});
  }
  return Weights::open(path, "", cache).at("h");
}

double fit_prior(const Model& model, const std::vector<Row>& rows, const Routing& routing,
                 const std::filesystem::path& cache, const PriorProgress& progress) {
  if (rows.empty()) return 0.0;
  const Statistics& h = model.statistics();
  const Router router({h.mean_C, h.deviation_C}, rows, routing, 0.0);
  std::vector<at::Tensor> read;
  for (const at::Tensor& scores_TE : router.scores(general_rows(model, cache, progress)).split(kLength - 1))
    read.push_back(average_scores(scores_TE, routing.average_over));
  return fit_prior(at::cat(read), router);
}

} // namespace tenon
