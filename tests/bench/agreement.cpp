// How close every format of products comes to float32, teacher-forced over real texts.
//
//   tenon_agreement_bench HOME MODEL TEXTS [FORMAT...]     TEXTS: a folder; its files, spread evenly, 20 of them
//
// bf16 is held against float32 on the model's own weights. int8, int4 and stored are held against float32 on the SAME
// dequantised weights, so that what is told is what our products do (activations rounded to int8), not what rounding
// the weights costs; that stands beside it as `plain`. One line of JSON a format on standard output:
//   top_equal  share of positions whose likeliest token is float32's;  margin: float32's largest lead (in nats) over
//   the second among those where it is not: above it every position agrees;  kl: mean KL(float32 || format), nats
//   perplexity of both, and their ratio.
// Exit status 1 where a bound is exceeded (kBounds), which is said. Not in the test run: it takes real weights, and
// minutes.
#include "host/composition/composition.hpp"
#include "kernels/cpu/engine.hpp"
#include "kernels/packed_forms.hpp"
#include "registry/base/files.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

namespace tenon {
namespace {

namespace fs = std::filesystem;

// bf16, beside float32: positions that agree, at least; the lead above which all do; mean KL, at most. Integers, beside
// float32 on the same weights: by how much the perplexity may be higher.
constexpr struct { double top_equal = 0.98, margin_nats = 0.1, kl_nats = 1e-3, worse_percent = 0.5; } kBounds;
constexpr std::size_t kTexts = 20;
constexpr std::int64_t kLength = 384;

// A composition of the model alone.
using Alone = std::unique_ptr<Composition>;
Alone join(std::shared_ptr<const Model> model, ExpertPackage base) {
  return std::make_unique<Composition>(std::move(model), std::vector<ExpertPackage>{std::move(base)}, Routing{}, 0.0,
                                       Composition::Options{});
}

struct Place {
  fs::path home;
  Registry registry{home / "registry"};
  Entry entry;

  Place(fs::path at, const std::string& name)
      : home(std::move(at)), entry(registry.resolve(PackageRequest::parse(name), Kind::model)) {}
  Loader loader(Format format) const { return Loader(registry, {home / "store", home / "cache", {}, format}); }
  Alone open(Format format) const {
    const Loader one = loader(format);
    const auto model = one.model(entry);
    return join(model, one.base(*model));
  }
};

// The values that kernels compute with, as float32; the tensor itself where it has no packed form.
at::Tensor dequantised(const at::Tensor& weights) {
  if (weights.dim() != 2) return weights;
  const auto form = packed_form(weights.data_ptr<float>(), weights.size(0), weights.size(1));
  if (!form) return weights;
  at::Tensor out = at::empty(weights.sizes(), at::kFloat);
  const auto inputs = static_cast<std::size_t>(weights.size(1));
  for (std::int64_t row = 0; row < weights.size(0); ++row)
    cpu::unpack_row(form->matrix, row, {out.data_ptr<float>() + row * weights.size(1), inputs});
  return out;
}

// float32 on the weights that `packed` computes with. A tied embedding is looked up as it is and multiplied as packed,
// so here the two part.
Alone reference(const Place& place, const Composition& packed, const fs::path& scratch) {
  const Weights& weights = packed.model().weights();
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const std::string& name : weights.names())
    tensors.emplace_back(name, name == "embed.weight" ? weights.at(name) : dequantised(weights.at(name)));
  ModelManifest manifest = packed.model().manifest();
  if (packed.model().shape().tied) tensors.emplace_back("unembed.weight", dequantised(weights.at("embed.weight")));
  manifest.config["tied_embedding"] = false;
  const auto blob = [&](const FileRecord& file) { return place.registry.blob(file.digest); };
  ModelFiles files;
  files.weights = scratch / "reference.safetensors";
  write_weights(files.weights, tensors);
  files.tokenizer = blob(place.entry.file_with_role("tokenizer"));
  files.normalization = blob(place.entry.file("normalization.safetensors"));
  const auto model = std::make_shared<const Model>(manifest, files, scratch);
  ExpertPackage base = place.loader(Format::float32).base(*model);
  for (const ExpertParameter& parameter : packed.packages().front().expert->parameters())
    base.expert->bind(parameter.name, dequantised(parameter.tensor.detach()));
  base.expert->prepare(TENON_INFERENCE);
  return join(model, std::move(base));
}

std::vector<at::Tensor> texts_of(const Tokenizer& tokenizer, const fs::path& folder) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.file_size() > 4 * kLength) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  if (files.size() < kTexts)
    throw std::runtime_error(fmt::format("{}: found {} files of more than {} bytes, need {}", folder.string(),
                                         files.size(), 4 * kLength, kTexts));
  std::vector<at::Tensor> out;
  for (std::size_t i = 0; i < kTexts; ++i) {
    const std::string text = read_file(files[i * files.size() / kTexts]);
    std::vector<std::int32_t> ids = tokenizer.encode(std::string_view(text).substr(0, 16 * kLength));
    ids.resize(std::min<std::size_t>(ids.size(), kLength));
    out.push_back(at::tensor(ids, at::kInt).to(at::kLong).unsqueeze(0));
  }
  return out;
}

struct Tally {
  double positions = 0, equal = 0, margin = 0, kl = 0, nll = 0, nll_reference = 0;

  void add(const at::Tensor& logits_TV, const at::Tensor& reference_TV, const at::Tensor& tokens_T) {
    const std::int64_t scored = tokens_T.size(0) - 1;
    const at::Tensor p = reference_TV.narrow(0, 0, scored).log_softmax(-1),
                     q = logits_TV.narrow(0, 0, scored).log_softmax(-1);
    const at::Tensor differs = p.argmax(-1).ne(q.argmax(-1)), next = tokens_T.narrow(0, 1, scored).unsqueeze(1);
    const at::Tensor two = std::get<0>(p.topk(2, -1));
    const at::Tensor lead = (two.select(1, 0) - two.select(1, 1)) * differs;
    positions += static_cast<double>(scored), equal += static_cast<double>(scored) - differs.sum().item<double>();
    margin = std::max(margin, lead.max().item<double>());
    kl += (p.exp() * (p - q)).sum(c10::nullopt, false, at::kDouble).item<double>();
    nll -= q.gather(1, next).sum(c10::nullopt, false, at::kDouble).item<double>();
    nll_reference -= p.gather(1, next).sum(c10::nullopt, false, at::kDouble).item<double>();
  }
  double worse_percent() const { return 100 * (std::exp((nll - nll_reference) / positions) - 1); }
  bool agrees() const {
    return equal >= kBounds.top_equal * positions && margin <= kBounds.margin_nats && kl <= kBounds.kl_nats * positions;
  }
  std::string json() const {
    const double mine = std::exp(nll / positions), other = std::exp(nll_reference / positions);
    return fmt::format(
        "{{\"positions\": {}, \"top_equal\": {:.5f}, \"margin\": {:.4f}, \"kl\": {:.3e}, \"perplexity\": "
        "{:.4f}, \"float32\": {:.4f}, \"worse_percent\": {:.3f}}}",
        positions, equal / positions, margin, kl / positions, mine, other, worse_percent());
  }
};

// Whether it stays within its bounds.
bool compare(const Place& place, Format format, const std::vector<at::Tensor>& texts, const fs::path& scratch) {
  const Alone packed = place.open(format), plain = place.open(Format::float32);
  const Alone same = format == Format::bf16 ? nullptr : reference(place, *packed, scratch);
  at::set_num_threads(cpu::engine().pool->threads()); // opening packed weights left LibTorch one
  Tally to_plain, to_same;
  for (const at::Tensor& tokens_1T : texts) {
    const Batch batch = Batch::whole(tokens_1T);
    const at::Tensor tokens_T = tokens_1T.squeeze(0), logits_TV = packed->forward(batch);
    to_plain.add(logits_TV, plain->forward(batch), tokens_T);
    if (same) to_same.add(logits_TV, same->forward(batch), tokens_T);
  }
  fmt::print("{{\"format\": \"{}\", \"same_weights\": {}, \"plain\": {}}}\n", format_name(format),
             same ? to_same.json() : "null", to_plain.json());
  std::fflush(stdout);
  const bool within = same ? to_same.worse_percent() <= kBounds.worse_percent : to_plain.agrees();
  if (!within) fmt::print(stderr, "{} is further from float32 than it may be\n", format_name(format));
  return within;
}

} // namespace
} // namespace tenon

int main(int argc, char** argv) {
  using namespace tenon;
  if (argc < 4) return std::fputs("usage: tenon_agreement_bench HOME MODEL TEXTS [FORMAT...]\n", stderr), 2;
  const fs::path scratch = fs::temp_directory_path() / ("tenon-agreement-" + std::to_string(getpid()));
  int status = 0;
  try {
    const at::NoGradGuard no_grad;
    const Place place(argv[1], argv[2]);
    const auto texts = texts_of(place.open(Format::float32)->model().tokenizer(), argv[3]);
    std::vector<std::string> formats(argv + 4, argv + argc);
    if (formats.empty()) formats = {"bf16", "int8", "int4", "stored"};
    fs::create_directories(scratch);
    for (const std::string& format : formats)
      if (!compare(place, format_of(format), texts, scratch)) status = 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    status = 1;
  }
  fs::remove_all(scratch);
  return status;
}
