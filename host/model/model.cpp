#include "host/model/model.hpp"

#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "registry/base/sha256.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

namespace tenon {
namespace {

Tokenizer read_tokenizer(const std::filesystem::path& path, const std::string& digest) {
  Tokenizer tokenizer = Tokenizer::from_json(read_file(path), path.filename().string());
  if (tokenizer.digest() != digest)
    throw Error(Code::integrity, "model", "found tokenizer " + tokenizer.digest() + ", the manifest says " + digest);
  return tokenizer;
}

WeightSource source_of(const Weights& weights) {
  return [&weights](const std::string& name) { return weights.at(name); };
}

// The embeddings, but for one that is the unembedding too.
std::set<std::string> looked_up(const ModelShape& shape) {
  if (shape.tied) return {"positions.weight"};
  return {"positions.weight", "embed.weight"};
}

// Every other matrix of a trunk or head is multiplied: one that cannot be in this format ends it here.
Weights open_weights(const ModelFiles& files, const ModelShape& shape, const std::filesystem::path& cache) {
  Weights weights = Weights::open(files.weights, files.weights_digest, cache,
                                  Weights::Compute{files.format, looked_up(shape)}, files.progress);
  if (weights.packed() && !weights.packed()->refusals().empty())
    throw Error(Code::incompatible, "model", weights.packed()->refusals().front(), "compute in bf16 or float32");
  return weights;
}

// What is not Llama's is written down; a model of Llama's kind keeps the digest it always had.
void add_kind(json::object& out, const ModelShape& shape) {
  const nn::BlockKind llama, &kind = shape.block;
  if (kind.rotary)
    out["rope_theta"] = shape.rope_theta;
  else
    out["rotary"] = false;
  if (kind.norm != llama.norm) out["norm"] = nn::norm_name(kind.norm);
  if (kind.ffn != llama.ffn) out["ffn"] = nn::ffn_name(kind.ffn);
  if (kind.bias != llama.bias) out["bias"] = nn::bias_name(kind.bias);
  if (kind.qk_norm) out["qk_norm"] = true;
}

template <class Choice>
Choice choice(const JsonReader& reader, std::string_view key, std::optional<Choice> (*of)(std::string_view),
              const char* otherwise) {
  const auto found = of(reader.string(key, otherwise));
  if (!found) reader.at(key).fail("this choice is not known here");
  return *found;
}

nn::BlockKind kind_of(const JsonReader& reader) {
  nn::BlockKind kind;
  kind.norm = choice(reader, "norm", nn::norm_of, nn::norm_name(kind.norm));
  kind.ffn = choice(reader, "ffn", nn::ffn_of, nn::ffn_name(kind.ffn));
  kind.bias = choice(reader, "bias", nn::bias_of, nn::bias_name(kind.bias));
  kind.qk_norm = reader.boolean("qk_norm", false);
  kind.rotary = reader.boolean("rotary", true);
  return kind;
}

void check_shape(const ModelShape& shape, const std::string& where) {
  constexpr std::int64_t most = std::int64_t{1} << 24; // no product of two sizes leaves 64 bits
  for (const std::int64_t size : {shape.width, shape.layers, shape.heads, shape.kv_heads, shape.head_dim,
                                  shape.ffn_width, shape.vocab, shape.block.rotary ? 1 : shape.positions})
    if (size < 1 || size > most)
      throw Error(Code::integrity, where, fmt::format("config: found a size of {}, need 1 to {}", size, most));
  if (shape.heads % shape.kv_heads != 0 || (shape.block.rotary && shape.head_dim % 2 != 0))
    throw Error(
        Code::integrity, where,
        fmt::format("config: found {} heads of width {} on {}; need a multiple, and an even width where they are "
                    "rotated",
                    shape.heads, shape.head_dim, shape.kv_heads));
}

// Of the model's own width, or nothing could be compared with them.
Statistics statistics_of(const ModelFiles& files, const ModelShape& shape) {
  Statistics statistics = read_statistics(files.normalization);
  if (statistics.mean_C.sizes() != at::IntArrayRef({shape.width}) ||
      statistics.deviation_C.sizes() != statistics.mean_C.sizes())
    throw Error(Code::integrity, files.normalization.string(),
                fmt::format("found {} means and {} deviations, the model is {} wide", statistics.mean_C.numel(),
                            statistics.deviation_C.numel(), shape.width));
  return statistics;
}

} // namespace

json::object shape_to_json(const ModelShape& shape) {
  json::object out = {{"width", shape.width},       {"layers", shape.layers},     {"heads", shape.heads},
                      {"kv_heads", shape.kv_heads}, {"head_dim", shape.head_dim}, {"ffn_width", shape.ffn_width},
                      {"vocab", shape.vocab},       {"norm_eps", shape.norm_eps}, {"tied_embedding", shape.tied}};
  add_kind(out, shape);
  if (shape.positions > 0) out["positions"] = shape.positions;
  return out;
}

ModelShape shape_from_json(const json::object& config, const std::string& where) {
  const json::value value = config;
  const JsonReader reader(value, where);
  ModelShape shape;
  shape.width = reader.at("width").integer();
  shape.layers = reader.at("layers").integer();
  shape.heads = reader.at("heads").integer();
  shape.kv_heads = reader.at("kv_heads").integer();
  shape.head_dim = reader.at("head_dim").integer();
  shape.ffn_width = reader.at("ffn_width").integer();
  shape.vocab = reader.at("vocab").integer();
  shape.norm_eps = reader.at("norm_eps").number();
  shape.tied = reader.at("tied_embedding").boolean();
  shape.block = kind_of(reader);
  if (shape.block.rotary)
    shape.rope_theta = reader.at("rope_theta").number();
  else
    shape.positions = reader.at("positions").integer();
  check_shape(shape, where);
  return shape;
}

json::object middle_config(const ModelShape& shape, std::int64_t first, std::int64_t last) {
  json::object out = {{"blocks", last - first},     {"heads", shape.heads},         {"kv_heads", shape.kv_heads},
                      {"head_dim", shape.head_dim}, {"ffn_width", shape.ffn_width}, {"norm_eps", shape.norm_eps}};
  add_kind(out, shape);
  return out;
}

Statistics read_statistics(const std::filesystem::path& path) {
  const Weights file = Weights::open(path, "", {});
  return {file.at("mean"), file.at("deviation")};
}

void write_statistics(const std::filesystem::path& path, const Statistics& statistics) {
  write_weights(path, {{"mean", statistics.mean_C}, {"deviation", statistics.deviation_C}});
}

Model::Model(ModelManifest manifest, const ModelFiles& files, const std::filesystem::path& cache)
    : manifest_(std::move(manifest)),
      files_(files),
      shape_(shape_from_json(manifest_.config, "model.json")),
      weights_(open_weights(files, shape_, cache)),
      tokenizer_(read_tokenizer(files.tokenizer, manifest_.contract.tokenizer_digest)),
      statistics_(statistics_of(files, shape_)),
      trunk_(shape_, manifest_.contract.cut.first, source_of(weights_)),
      head_(shape_, manifest_.contract.cut.last, source_of(weights_)) {}

Head Model::head_in_bfloat16() const {
  return Head(shape_, manifest_.contract.cut.last, [&](const std::string& name) {
    const at::Tensor tensor = weights_.at(name);
    return tensor.dim() == 2 ? tensor.to(at::kBFloat16) : tensor;
  });
}

Shard Model::calibration() const {
  if (files_.calibration.empty())
    throw Error(Code::not_found, manifest_.name, "this model carries no calibration text",
                "import it again with --calibration DIR");
  return Shard::open(files_.calibration);
}

std::string Model::memory_digest() const {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const std::string& name : weights_.names()) tensors.emplace_back(name, weights_.at(name));
  return tensors_digest(tensors);
}

std::string tensors_digest(const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
  Sha256 hash;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor value = tensor.detach().contiguous();
    hash.field(name).update({static_cast<const std::byte*>(value.data_ptr()), value.nbytes()});
  }
  return "sha256:" + hash.hex();
}

} // namespace tenon
