// Cutting a model: trunk and head become one package, the middle becomes the base expert.
//
// Stored weights are copied as they stand (source blocks verbatim); nothing is converted on the way. D_0, the
// calibration text, travels in the model package as tokens, with mean and deviation of h over it. The joint is proven
// before anything is offered: trunk, middle and head together give the uncut model's logits bit for bit.
// Thread: one call at a time.
#pragma once

#include "host/formats/source_model.hpp"
#include "host/model/model.hpp"
#include "registry/package.hpp"

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace tenon {

// A whole model, before it is cut. Tensors are named as in SourceModel and borrow from `keep`.
struct WholeModel {
  std::string family = "llama"; // as in ModelConfig
  ModelShape shape;
  std::vector<StoredTensor> tensors;
  std::unique_ptr<Tokenizer> tokenizer;
  std::string license;
  std::int64_t context_length = 0; // the longest text it was made for; 0: nobody says
  std::shared_ptr<const void> keep;
};

// From a .gguf file or a Hugging Face directory. Errors: of SourceModel and the tokenizer.
WholeModel read_whole_model(const std::filesystem::path& source);

// A random model: float32 weights N(0, 1/fan-in), norms 1, byte tokenizer. For tests and research.
WholeModel random_model(const ModelShape& shape, std::uint64_t seed);

struct ImportOptions {
  std::string name;
  Cut cut;
  std::vector<std::filesystem::path> calibration; // folders, one per kind of text; each folder's name is the kind
  std::int64_t calibration_sequence = 256;
  std::filesystem::path staging, cache; // staging: an empty folder for the packages' files
  std::function<void(std::string_view stage, std::uint64_t done, std::uint64_t total)> progress;
};

struct ImportedModel {
  Draft model, base;
  std::int64_t proven_positions = 0; // rejoined logits equal the uncut model's bit for bit over these
  std::int64_t calibration_tokens = 0;
};

// Errors: usage (a cut outside the model, calibration text too small or of too few kinds), as of reading and writing.
ImportedModel import_model(const WholeModel& whole, const ImportOptions& options);

} // namespace tenon
