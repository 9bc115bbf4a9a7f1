// Experts cut from a model: their source, the stitches fitted around it, and what becomes of them.
#include "host/training/stitches.hpp"

#include "host/composition/composition.hpp"
#include "host/model/calibration.hpp"
#include "host/training/train.hpp"
#include "registry/base/error.hpp"
#include "registry/base/sha256.hpp"
#include "tests/support/tiny_plan.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>

#include <numeric>

namespace tenon {
namespace {

namespace fs = std::filesystem;

// Beside the tiny model: one of another width and depth, a narrower one, and one that reads other tokens.
struct Models {
  test::TinyRegistry registry;

  Models() {
    ModelShape wide = test::TinyRegistry::shape();
    wide.width = 48, wide.layers = 5, wide.heads = 3, wide.kv_heads = 3, wide.head_dim = 16, wide.ffn_width = 40;
    registry.add_model("wide", random_model(wide, 8), {2, 4});
    ModelShape narrow = test::TinyRegistry::shape();
    narrow.width = 24, narrow.layers = 3;
    registry.add_model("narrow", random_model(narrow, 9), {1, 2});
    WholeModel foreign = random_model(test::TinyRegistry::shape(), 10);
    TokenizerData tokens = byte_tokenizer();
    tokens.chat_template = "{{ messages[0].content }}";
    foreign.tokenizer = std::make_unique<Tokenizer>(tokens);
    registry.add_model("foreign", foreign, {1, 3});
  }
};

const Models& models() {
  static const Models one;
  return one;
}

std::vector<std::string> from(const std::string& model, const std::string& layers) {
  return {"from.model=" + model, "from.layers=" + layers};
}

TrainingPlan plan_with(const std::string& architecture, const std::vector<std::string>& assignments) {
  return test::tiny_plan(models().registry, architecture, assignments, {"train.steps=8"});
}

const std::vector<std::string> kSmallBlocks = {"blocks=2", "heads=2", "kv_heads=1", "head_dim=8", "ffn_width=24"};

std::vector<std::string> small_blocks(std::int64_t width) {
  std::vector<std::string> all = kSmallBlocks;
  all.push_back("width=" + std::to_string(width));
  return all;
}

// An expert at birth with streams of the tiny model's own general text.
struct Newborn {
  TrainingPlan plan;
  Loader loader = models().registry.loader();
  Subject subject;
  Streams streams;

  Newborn(const std::string& architecture, const std::vector<std::string>& assignments)
      : plan(plan_with(architecture, assignments)),
        subject(open_subject(loader, {}, plan, "newborn")),
        streams(open_streams(subject)) {}

  StitchFit fit() const { return fit_stitches(subject, streams, std::nullopt, plan.stitch, {}); }

  static Streams open_streams(const Subject& subject) {
    const Shard shard = subject.model->calibration();
    const StreamOptions options{models().registry.cache() / "streams", "text", "stitches", false, 1u << 30};
    std::vector<std::uint32_t> blocks = calibration_blocks(shard, 32, CalibrationPart::training);
    blocks.resize(40);
    return Streams::open({shard, 32, blocks}, *subject.model, *subject.base.expert, options, {});
  }

  at::Tensor output(std::int64_t block) const {
    at::NoGradGuard no_grad;
    const tenon_span span{0, 32, 0, nullptr};
    return subject.expert->forward(streams.h_TC(block), streams.base_TC(block), {&span, 1});
  }

  // Share of the base's variance that the expert's output misses, position 0 left out.
  double missed() const {
    std::vector<at::Tensor> y, base;
    for (std::int64_t i = 0; i < streams.size(); ++i) {
      y.push_back(output(i).narrow(0, 1, 31).to(at::kDouble));
      base.push_back(streams.base_TC(i).narrow(0, 1, 31).to(at::kDouble));
    }
    const at::Tensor b = at::cat(base);
    return ((at::cat(y) - b).square().sum() / (b - b.mean(0)).square().sum()).item<double>();
  }
};

Error error_of(const std::string& architecture, const std::vector<std::string>& assignments) {
  try {
    Newborn(architecture, assignments);
  } catch (const Error& error) {
    return error;
  }
  FAIL("opened, where an error was due");
  return Error(Code::bug, "", "");
}

void check_refused(const std::string& architecture, const std::vector<std::string>& assignments, const char* rule,
                   Code code, const std::vector<std::string>& words) {
  const Error error = error_of(architecture, assignments);
  CHECK(error.unit == rule);
  CHECK(error.code == code);
  CHECK_FALSE(error.remedy.empty());
  for (const std::string& word : words) CHECK_THAT(error.message, Catch::Contains(word));
}

} // namespace

TEST_CASE("an expert cut from the model's own middle and only stitched says what the base says") {
  const Newborn newborn("tenon.imported", from("tiny", "1:3"));
  const StitchFit fit = newborn.fit();
  CHECK(fit.down.value() < 1e-5);
  CHECK(fit.up.value() < 1e-5);
  CHECK(newborn.missed() < 1e-5);
}

TEST_CASE("imported blocks are the source's layers, from whichever part of the source") {
  for (const auto& [layers, place] : std::vector<std::pair<std::string, std::string>>{
           {"0:2", "trunk"}, {"1:4", "trunk, base and head"}, {"3:4", "head"}}) {
    INFO(place);
    const Newborn newborn("tenon.imported", from("tiny", layers));
    const WholeModel whole = random_model(test::TinyRegistry::shape(), 7);
    const std::int64_t first = Cut::parse(layers).first;
    std::int64_t compared = 0;
    for (const ExpertParameter& parameter : newborn.subject.expert->parameters()) {
      if (!parameter.name.starts_with("blocks.")) continue;
      CHECK(parameter.trainable);
      const std::string name = "blocks." + std::to_string(parameter.name[7] - '0' + first) + parameter.name.substr(8);
      for (const StoredTensor& tensor : whole.tensors)
        if (tensor.name == name) {
          CHECK(std::memcmp(tensor.bytes.data(), parameter.tensor.data_ptr(), tensor.bytes.size()) == 0);
          ++compared;
        }
    }
    CHECK(compared == 9 * newborn.subject.manifest.config.at("blocks").as_int64());
  }
}

TEST_CASE("fitted stitches miss of the base exactly what the fit says, at any widths") {
  for (const auto& [architecture, assignments] : std::vector<std::pair<std::string, std::vector<std::string>>>{
           {"tenon.imported", from("wide", "1:3")}, // 48 channels beside 32: read in two parts
           {"tenon.imported", from("narrow", "0:2")},
           {"tenon.transformer", small_blocks(16)},
           {"tenon.transformer", small_blocks(80)}}) {
    INFO(architecture << " " << assignments[0] << " " << assignments.back());
    const Newborn newborn(architecture, assignments);
    const double before = newborn.missed();
    const StitchFit fit = newborn.fit();
    CHECK(fit.down.has_value() == newborn.subject.source.has_value());
    CHECK(newborn.missed() == Approx(fit.up.value()).epsilon(0.01));
    CHECK(fit.up.value() < 0.9);
    CHECK(fit.up.value() < before);
  }
}

TEST_CASE("on the base, an imported expert is the base at birth, bit for bit, with its blocks ready behind it") {
  const Newborn newborn("tenon.imported_on_base", from("wide", "1:3"));
  const StitchFit fit = newborn.fit();
  CHECK(fit.down.value() < 1.0);
  CHECK_FALSE(fit.up.has_value());
  CHECK(newborn.output(0).equal(newborn.streams.base_TC(0)));
}

TEST_CASE("a source that reads other tokens is refused with both digests") {
  const Newborn own("tenon.imported", from("tiny", "1:3"));
  check_refused("tenon.imported", from("foreign", "1:3"), "TN-S2 tokenizer", Code::incompatible,
                {"foreign 1.0.0", own.subject.model->contract().tokenizer_digest});
}

TEST_CASE("layers that the source does not have are refused with both sides") {
  for (const char* layers : {"3:9", "2:2", "4:5", "3:1"})
    check_refused("tenon.imported", from("tiny", layers), "TN-S3 layers", Code::usage, {layers, "0:4"});
  for (const char* layers : {"two", "1", "1:", ":3", "1:3:4", "1-3"})
    CHECK_THAT(error_of("tenon.imported", from("tiny", "\"" + std::string(layers) + "\"")).what(),
               Catch::Contains("A:Z"));
}

TEST_CASE("a source is named where one is needed, and nowhere else, and its shape is not contradicted") {
  check_refused("tenon.imported", {}, "TN-S1 source", Code::usage, {"tenon.imported"});
  std::vector<std::string> plain = kSmallBlocks;
  plain.insert(plain.end(), {"from.model=wide", "from.layers=1:3"});
  check_refused("tenon.transformer", plain, "TN-S1 source", Code::usage, {"tenon.transformer", "wide"});
  check_refused("tenon.imported", {"from.model=wide", "from.layers=1:3", "heads=4"}, "TN-S4 config", Code::usage,
                {"heads 4", "3"});
  CHECK(error_of("tenon.imported", from("nobody", "1:3")).code == Code::not_found);
  CHECK(error_of("tenon.imported", {"from.model=wide"}).code == Code::usage);
}

TEST_CASE("experts of other widths are trained, published and composed, on the base and in its place") {
  const Scratch scratch;
  const Loader loader = models().registry.loader();
  const auto model = loader.model(models().registry.registry.resolve(PackageRequest::parse("tiny"), Kind::model));
  std::vector<ExpertPackage> packages = {loader.base(*model)};
  for (const auto& [name, architecture, assignments] :
       std::vector<std::tuple<std::string, std::string, std::vector<std::string>>>{
           {"lent", "tenon.imported", from("wide", "1:3")},
           {"lent-on-base", "tenon.imported_on_base", from("narrow", "1:3")},
           {"thin", "tenon.transformer", small_blocks(16)},
           {"thin-on-base", "tenon.transformer_on_base", small_blocks(16)}}) {
    INFO(name);
    const fs::path folder = scratch.path() / name;
    const TrainingResult result = train_expert(loader, {name, plan_with(architecture, assignments), folder, {}, 0}, {});
    const json::value evidence = result.evidence;
    const JsonReader perplexity = JsonReader(evidence, "evidence").at("perplexity");
    if (name.ends_with("on-base")) CHECK(perplexity.at("alone").number() < perplexity.at("base").number());
    const Entry entry = models().registry.registry.publish(draft_from_folder(folder));
    packages.push_back(loader.expert(entry, *model, &packages[0]));
  }
  Composition composition(model, packages, {"softmax", 2, 1.0, "token"}, 0.0, {});
  const at::Tensor tokens_T = at::arange(24, at::kLong);
  const at::Tensor whole = composition.forward(Batch::whole(tokens_T.unsqueeze(0)));
  CHECK(whole.isfinite().all().item<bool>());
  // The same positions one after another, over kept state.
  Sequence sequence = composition.new_sequence();
  for (std::int32_t t = 0; t < 24; ++t) {
    const at::Tensor next = composition.forward(Batch::next(sequence, {&t, 1}));
    CHECK((next[0] - whole[t]).abs().max().item<double>() < 1e-3);
  }
}

TEST_CASE("an imported expert's training goes on bit for bit, and not from another source") {
  const Scratch scratch;
  const Loader loader = models().registry.loader();
  const auto run = [&](const std::string& folder, const std::string& layers, std::int64_t halt_after) {
    train_expert(loader,
                 {"lent", plan_with("tenon.imported", from("wide", layers)), scratch.path() / folder, {}, halt_after},
                 {});
  };
  run("straight", "1:3", 0);
  CHECK_THROWS_AS(run("halted", "1:3", 3), Error);
  CHECK_THROWS_WITH(run("halted", "0:2", 0), Catch::Contains("another"));
  run("halted", "1:3", 0);
  for (const char* file : {"weights.safetensors", "expert.json"})
    CHECK(sha256_file(scratch.path() / "straight" / file) == sha256_file(scratch.path() / "halted" / file));
}

} // namespace tenon
