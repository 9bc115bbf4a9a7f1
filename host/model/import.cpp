#include "host/model/import.hpp"

#include "host/formats/corpus.hpp"
#include "host/formats/gguf.hpp"
#include "host/model/random.hpp"
#include "host/model/rejoin.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "registry/base/sha256.hpp"

#include <ATen/ATen.h>

#include <cmath>

namespace tenon {
namespace {

struct Parts {
  std::vector<StoredTensor> ends, middle; // the middle renamed, so that its first block is block 0
};

Parts cut_tensors(const WholeModel& whole, const Cut& cut) {
  Parts parts;
  for (const StoredTensor& tensor : whole.tensors) {
    const std::int64_t layer = layer_of(tensor.name);
    if (layer < cut.first || layer >= cut.last) {
      parts.ends.push_back(tensor);
      continue;
    }
    StoredTensor moved = tensor;
    moved.name = name_in_stack(tensor.name, cut.first);
    parts.middle.push_back(std::move(moved));
  }
  return parts;
}

void check_cut(const Cut& cut, std::int64_t layers) {
  if (0 <= cut.first && cut.first < cut.last && cut.last <= layers) return;
  throw Error(Code::usage, "cut", "found " + cut.text() + ", this model has layers 0:" + std::to_string(layers),
              "choose --cut A:Z with 0 <= A < Z <= " + std::to_string(layers));
}

void write_stored(const std::filesystem::path& path, const std::vector<StoredTensor>& tensors) {
  std::map<std::string, std::string> metadata;
  std::vector<TensorView> views;
  for (const StoredTensor& tensor : tensors) views.push_back(safetensors_view(tensor, metadata));
  write_safetensors(path, views, metadata);
}

std::string model_digest(const std::string& weights, const ModelShape& shape, const Cut& cut) {
  Sha256 hash;
  hash.field(weights).field(canonical_json(shape_to_json(shape)));
  hash.field(std::to_string(cut.first) + ":" + std::to_string(cut.last));
  return "sha256:" + hash.hex();
}

// Mean and deviation of h per channel, in float64, position 0 left out: the router never scores it.
Statistics measure(const Trunk& trunk, const Shard& shard, std::int64_t length,
                   const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
  at::Tensor sum, squares;
  std::int64_t count = 0;
  const auto blocks = static_cast<std::int64_t>(shard.block_count(static_cast<std::size_t>(length)));
  constexpr std::int64_t kBatch = 4;
  for (std::int64_t i = 0; i < blocks; i += kBatch) {
    const std::int64_t rows = std::min(kBatch, blocks - i);
    at::Tensor tokens_BT = at::empty({rows, length}, at::kLong);
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto block = shard.block(static_cast<std::size_t>(i + r), static_cast<std::size_t>(length));
      std::copy(block.begin(), block.end(), tokens_BT.data_ptr<std::int64_t>() + r * length);
    }
    const at::Tensor h = trunk.forward(Batch::whole(tokens_BT)).view({rows, length, -1}).narrow(1, 1, length - 1);
    const at::Tensor h_NC = h.reshape({-1, h.size(-1)}).to(at::kDouble);
    sum = sum.defined() ? sum + h_NC.sum(0) : h_NC.sum(0);
    squares = squares.defined() ? squares + h_NC.square().sum(0) : h_NC.square().sum(0);
    count += h_NC.size(0);
    if (progress) progress(static_cast<std::uint64_t>(i + rows), static_cast<std::uint64_t>(blocks));
  }
  const at::Tensor mean = sum / count;
  // The small constant keeps a channel that never moves from dividing by zero.
  return {mean.to(at::kFloat), ((squares / count - mean.square()).clamp_min(0).sqrt() + 1e-3).to(at::kFloat)};
}

struct Texts {
  std::vector<std::filesystem::path> inputs;
  std::vector<std::string> kinds;
};

// A folder's subfolders are kinds of text; a folder of files is one kind.
Texts find_texts(const std::vector<std::filesystem::path>& folders) {
  Texts texts{folders, {}};
  for (const std::filesystem::path& folder : folders) {
    bool any = false;
    if (std::filesystem::is_directory(folder))
      for (const auto& entry : std::filesystem::directory_iterator(folder))
        if (entry.is_directory()) texts.kinds.push_back(entry.path().filename().string()), any = true;
    if (!any) texts.kinds.push_back((folder / "").parent_path().stem().string()); // "json" of "json/", too
  }
  std::sort(texts.kinds.begin(), texts.kinds.end());
  return texts;
}

} // namespace

WholeModel read_whole_model(const std::filesystem::path& source) {
  auto file = std::make_shared<SourceModel>(SourceModel::open(source));
  const ModelConfig& config = file->config();
  WholeModel whole;
  whole.family = config.family;
  whole.shape = {config.hidden_size,    config.layers,   config.heads,
                 config.kv_heads,       config.head_dim, config.ffn_size,
                 config.vocab_size,     config.norm_eps, config.rope_theta,
                 config.tie_embeddings, config.block,    config.block.rotary ? 0 : config.context_length};
  whole.tensors = file->tensors();
  whole.tokenizer = std::make_unique<Tokenizer>(file->gguf() ? read_gguf_tokenizer(*file->gguf())
                                                             : read_hf_tokenizer(*file->directory()));
  if (whole.tokenizer->vocab_size() > whole.shape.vocab)
    throw Error(Code::integrity, source.filename().string(),
                "the tokenizer has " + std::to_string(whole.tokenizer->vocab_size()) + " tokens, the embedding " +
                    std::to_string(whole.shape.vocab) + " rows");
  whole.context_length = config.context_length;
  whole.keep = file;
  return whole;
}

WholeModel random_model(const ModelShape& shape, std::uint64_t seed) {
  struct Memory {
    std::vector<std::vector<float>> values;
  };
  auto memory = std::make_shared<Memory>();
  WholeModel whole;
  whole.shape = shape;
  whole.tokenizer = std::make_unique<Tokenizer>(byte_tokenizer());
  const auto add = [&](const std::string& name, std::vector<std::size_t> size) {
    std::size_t count = 1;
    for (const std::size_t n : size) count *= n;
    std::vector<float>& values = memory->values.emplace_back(count, 1.0f);
    if (size.size() == 2) {
      RandomStream(seed, name).normal(values);
      for (float& value : values) value /= std::sqrt(static_cast<float>(size[1]));
    }
    whole.tensors.push_back({name, nn::BlockType::F32, std::move(size), std::as_bytes(std::span(values))});
  };
  const auto n = [](std::int64_t value) { return static_cast<std::size_t>(value); };
  const std::size_t c = n(shape.width), q = n(shape.heads * shape.head_dim), k = n(shape.kv_heads * shape.head_dim),
                    f = n(shape.ffn_width), v = n(shape.vocab);
  add("embed.weight", {v, c});
  for (std::int64_t i = 0; i < shape.layers; ++i) {
    const std::string block = "blocks." + std::to_string(i) + ".";
    add(block + "attention_norm.weight", {c});
    add(block + "attention.q.weight", {q, c});
    add(block + "attention.k.weight", {k, c});
    add(block + "attention.v.weight", {k, c});
    add(block + "attention.o.weight", {c, q});
    add(block + "ffn_norm.weight", {c});
    add(block + "ffn.gate.weight", {f, c});
    add(block + "ffn.up.weight", {f, c});
    add(block + "ffn.down.weight", {c, f});
  }
  add("norm.weight", {c});
  if (!shape.tied) add("unembed.weight", {v, c});
  whole.keep = memory;
  return whole;
}

ImportedModel import_model(const WholeModel& whole, const ImportOptions& options) {
  check_cut(options.cut, whole.shape.layers);
  if (options.calibration.empty())
    throw Error(Code::usage, "calibration", "found no calibration text, need some general text of several kinds",
                "give --calibration DIR, a folder with one subfolder for each kind of text");
  const auto stage = [&](const char* name) {
    return [&options, name](std::uint64_t done, std::uint64_t total) {
      if (options.progress) options.progress(name, done, total);
    };
  };
  const std::filesystem::path model_folder = options.staging / "model", base_folder = options.staging / "base";
  const Parts parts = cut_tensors(whole, options.cut);
  write_stored(model_folder / "weights.safetensors", parts.ends);
  write_stored(base_folder / "weights.safetensors", parts.middle);
  write_file(model_folder / "tokenizer.json", whole.tokenizer->json());
  const Texts texts = find_texts(options.calibration);
  CorpusOptions corpus;
  // No longer than the positions that a model has learned.
  const std::int64_t most = whole.shape.positions > 0 ? whole.shape.positions : options.calibration_sequence;
  const std::int64_t sequence = std::min(options.calibration_sequence, most);
  corpus.sequence_length = sequence;
  const CorpusWhole d0 = prepare_whole(texts.inputs, *whole.tokenizer, corpus, options.cache,
                                       [&](std::string_view name, std::uint64_t done, std::uint64_t total) {
                                         if (options.progress) options.progress(name, done, total);
                                       });
  copy_whole_file(d0.tokens.path(), model_folder / "calibration.tokens");

  const auto open = [&](const std::filesystem::path& folder) {
    const std::filesystem::path path = folder / "weights.safetensors";
    return Weights::open(path, "sha256:" + sha256_file(path), options.cache, stage("convert"));
  };
  const Weights ends = open(model_folder), middle = open(base_folder);
  const WeightSource source = rejoined_weights(ends, middle, options.cut);
  ImportedModel out;
  out.proven_positions = prove_rejoined(whole.shape, options.cut, source, d0.tokens);
  out.calibration_tokens = static_cast<std::int64_t>(d0.tokens.tokens().size());
  const Trunk trunk(whole.shape, options.cut.first, source);
  write_statistics(model_folder / "normalization.safetensors",
                   measure(trunk, d0.tokens, sequence, stage("statistics")));

  const SafetensorsFile model_file(model_folder / "weights.safetensors"),
      base_file(base_folder / "weights.safetensors");
  ModelContract contract{model_digest(weights_digest(model_file), whole.shape, options.cut),
                         weights_digest(base_file),
                         options.cut,
                         whole.shape.width,
                         whole.tokenizer->digest(),
                         "float32",
                         whole.shape.block.rotary ? "rope-absolute" : "learned-absolute"};
  ModelManifest model;
  model.name = options.name;
  model.version = Version::parse("1.0.0");
  model.family = whole.family;
  model.layers = whole.shape.layers;
  model.vocab = whole.shape.vocab;
  model.contract = contract;
  model.base_name = options.name + "-base";
  model.base_version = model.version;
  model.calibration = Calibration{out.calibration_tokens, texts.kinds, d0.digest};
  model.files = {{"weights.safetensors", "weights"},
                 {"tokenizer.json", "tokenizer"},
                 {"normalization.safetensors", "other"},
                 {"calibration.tokens", "calibration"}};
  model.config = shape_to_json(whole.shape);
  if (whole.context_length > 0)
    model.config["context_length"] = whole.context_length; // what runs need, not the contract

  ExpertManifest base;
  base.name = model.base_name;
  base.version = model.version;
  base.summary = "The middle of " + options.name + ", layers " + std::to_string(options.cut.first) + ":" +
                 std::to_string(options.cut.last);
  base.plugin = PackageRequest::parse("tenon.transformer@^1");
  base.architecture = "tenon.transformer";
  base.config = middle_config(whole.shape, options.cut.first, options.cut.last);
  base.contract = contract;
  base.context = "causal";
  for (const std::string& name : middle.names())
    base.weights.push_back({name, middle.at(name).sizes().vec(), "float32", "file:" + name});
  base.files = {{"weights.safetensors", "weights"}};

  const auto draft = [&](Kind kind, const auto& manifest, const std::filesystem::path& folder) {
    Draft result;
    result.kind = kind;
    result.name = manifest.name;
    result.version = manifest.version;
    result.summary = manifest.summary;
    result.license = whole.license;
    result.manifest = manifest.to_json();
    for (const ManifestFile& file : manifest.files) result.files.push_back({file.path, folder / file.path, file.role});
    return result;
  };
  out.model = draft(Kind::model, model, model_folder);
  out.base = draft(Kind::expert, base, base_folder);
  return out;
}

} // namespace tenon
