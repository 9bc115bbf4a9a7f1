#include "host/training/streams.hpp"

#include "host/loading/platform.hpp"
#include "host/model/random.hpp"
#include "host/training/stream_folder.hpp"
#include "registry/base/error.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

namespace tenon {
namespace {

constexpr std::int64_t kBlocksASync = 16;

json::object key_of(const Blocks& blocks, const Model& model, const StreamOptions& options) {
  return {{"format", 1},
          {"model", model.contract().model_digest},
          {"base", model.contract().base_digest},
          {"data", blocks.shard.digest()},
          {"sequence_length", blocks.length},
          {"width", model.contract().width},
          {"order", options.order},
          {"dtype", options.bfloat16 ? "bfloat16" : "float32"},
          {"computed_by", host_platform().text()}};
}

// h and the base's output of one block, as stored bytes.
at::Tensor compute(const Blocks& blocks, std::int64_t i, const Model& model, const LoadedExpert& base, bool bfloat16) {
  at::NoGradGuard no_grad;
  const Batch batch = Batch::whole(blocks.tokens_T(i).unsqueeze(0));
  const at::Tensor h_TC = model.trunk().forward(batch);
  const auto spans = batch.spans([](Sequence& sequence) -> ModuleState& { return sequence.experts[0]; });
  const at::Tensor base_TC = base.forward(h_TC, {}, spans);
  const at::Tensor both = at::stack({h_TC, base_TC});
  if (!at::isfinite(both).all().item<bool>())
    throw Error(Code::numeric, model.manifest().name, "trunk or base gives values that are not finite",
                "verify the model: tenon verify " + model.manifest().name);
  return both.to(bfloat16 ? at::kBFloat16 : at::kFloat).contiguous();
}

void extend(StreamFolder& folder, const Blocks& blocks, const Model& model, const LoadedExpert& base,
            const StreamOptions& options, const TrainingHooks& hooks) {
  const std::int64_t first = folder.blocks();
  hooks.say_begin("trunk and base: " + options.what, blocks.size() * blocks.length, "tokens", first * blocks.length);
  for (std::int64_t i = first; i < blocks.size(); ++i) {
    if (hooks.stopped()) {
      folder.sync();
      throw Error(Code::interrupted, "train", "stopped while computing the base's outputs",
                  "run the same command again to go on");
    }
    const at::Tensor both = compute(blocks, i, model, base, options.bfloat16);
    folder.append({static_cast<const std::byte*>(both.data_ptr()), both.nbytes()});
    if ((i + 1) % kBlocksASync == 0) folder.sync();
    hooks.say_update((i + 1) * blocks.length);
  }
  folder.sync();
  hooks.say_end();
}

} // namespace

at::Tensor Blocks::tokens_T(std::int64_t i) const {
  const auto block = shard.block(order[static_cast<std::size_t>(i)], static_cast<std::size_t>(length));
  at::Tensor out = at::empty({length}, at::kLong);
  std::copy(block.begin(), block.end(), out.data_ptr<std::int64_t>());
  return out;
}

at::Tensor Blocks::scored(std::int64_t i) const {
  if (shard.packed_length() == 0) return at::arange(length - 1, at::kLong);
  const auto first = static_cast<std::size_t>(order[static_cast<std::size_t>(i)]) * static_cast<std::size_t>(length);
  std::vector<std::int64_t> positions;
  for (std::int64_t t = 0; t + 1 < length; ++t)
    if (shard.counts(first + static_cast<std::size_t>(t) + 1)) positions.push_back(t);
  return at::tensor(positions, at::kLong);
}

std::int64_t Blocks::text_length(std::int64_t i) const {
  return static_cast<std::int64_t>(
      shard.block_text(order[static_cast<std::size_t>(i)], static_cast<std::size_t>(length)));
}

std::vector<std::uint32_t> permutation(const RandomStream& random, std::size_t n) {
  std::vector<std::uint32_t> out(n);
  std::iota(out.begin(), out.end(), 0u);
  for (std::size_t i = n; i > 1; --i) std::swap(out[i - 1], out[random.below(i - 1, i)]);
  return out;
}

std::vector<std::uint32_t> sample(const RandomStream& random, const std::vector<std::uint32_t>& candidates,
                                  std::int64_t count) {
  std::vector<std::uint32_t> out;
  for (const std::uint32_t i : permutation(random, candidates.size())) {
    if (static_cast<std::int64_t>(out.size()) == count) break;
    out.push_back(candidates[i]);
  }
  return out;
}

Streams Streams::open(Blocks blocks, const Model& model, const LoadedExpert& base, const StreamOptions& options,
                      const TrainingHooks& hooks) {
  const std::int64_t width = model.contract().width;
  const auto block_bytes = static_cast<std::uint64_t>(2 * blocks.length * width * (options.bfloat16 ? 2 : 4));
  StreamFolder folder(options.folder, key_of(blocks, model, options), block_bytes);
  if (folder.blocks() < blocks.size()) {
    folder.make_room(static_cast<std::uint64_t>(blocks.size()) * block_bytes, options.budget_bytes);
    extend(folder, blocks, model, base, options, hooks);
  }
  return Streams(std::move(blocks), folder.map(), width, options.bfloat16);
}

at::Tensor Streams::half(std::int64_t i, std::int64_t which) const {
  const std::int64_t half_bytes = blocks_.length * width_ * (bfloat16_ ? 2 : 4);
  const std::byte* data = file_->bytes().data() + (2 * i + which) * half_bytes;
  const at::Tensor stored = at::from_blob(
      const_cast<std::byte*>(data), {blocks_.length, width_}, [keep = file_](void*) {},
      bfloat16_ ? at::kBFloat16 : at::kFloat);
  return bfloat16_ ? stored.to(at::kFloat) : stored;
}

} // namespace tenon
