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
// Exit status 3 where a bound is exceeded (kBounds), which is said. Not in the test run: it takes real weights, and
// minutes.
#include "tests/support/agreement.hpp"
#include "host/composition/composition.hpp"
#include "kernels/cpu/engine.hpp"
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

// float32 on the weights that `packed` computes with.
Alone reference(const Place& place, const Composition& packed, const fs::path& scratch) {
  const auto blob = [&](const FileRecord& file) { return place.registry.blob(file.digest); };
  ModelFiles files;
  files.tokenizer = blob(place.entry.file_with_role("tokenizer"));
  files.normalization = blob(place.entry.file("normalization.safetensors"));
  const auto model = test::model_on(packed.model(), files, scratch / "reference.safetensors", test::dequantised);
  ExpertPackage base = place.loader(Format::float32).base(*model);
  test::bind_on(*base.expert, *packed.packages().front().expert, test::dequantised);
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

bool agrees(const test::Agreement& found) {
  return found.equal >= kBounds.top_equal * found.positions && found.lead <= kBounds.margin_nats &&
         found.mean_kl() <= kBounds.kl_nats;
}

std::string json(const test::Agreement& found) {
  const double mine = std::exp(found.nll / found.positions), other = std::exp(found.nll_reference / found.positions);
  return fmt::format(
      "{{\"positions\": {}, \"top_equal\": {:.5f}, \"margin\": {:.4f}, \"kl\": {:.3e}, \"perplexity\": "
      "{:.4f}, \"float32\": {:.4f}, \"worse_percent\": {:.3f}}}",
      found.positions, found.equal / found.positions, found.lead, found.mean_kl(), mine, other, found.worse_percent());
}

// Whether it stays within its bounds.
bool compare(const Place& place, Format format, const std::vector<at::Tensor>& texts, const fs::path& scratch) {
  const Alone packed = place.open(format), plain = place.open(Format::float32);
  const Alone same = format == Format::bf16 ? nullptr : reference(place, *packed, scratch);
  at::set_num_threads(cpu::engine().pool->threads()); // opening packed weights left LibTorch one
  test::Agreement to_plain, to_same;
  for (const at::Tensor& tokens_1T : texts) {
    const Batch batch = Batch::whole(tokens_1T);
    const at::Tensor tokens_T = tokens_1T.squeeze(0), logits_TV = packed->forward(batch);
    to_plain.add(logits_TV, plain->forward(batch), tokens_T);
    if (same) to_same.add(logits_TV, same->forward(batch), tokens_T);
  }
  fmt::print("{{\"format\": \"{}\", \"same_weights\": {}, \"plain\": {}}}\n", format_name(format),
             same ? json(to_same) : "null", json(to_plain));
  std::fflush(stdout);
  const bool within = same ? to_same.worse_percent() <= kBounds.worse_percent : agrees(to_plain);
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
      if (!compare(place, format_of(format), texts, scratch)) status = 3;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    status = 1;
  }
  fs::remove_all(scratch);
  return status;
}
