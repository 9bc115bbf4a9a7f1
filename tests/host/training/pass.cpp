#include "host/training/pass.hpp"

#include "host/training/checkpoint.hpp"
#include "host/training/train.hpp"
#include "registry/base/error.hpp"
#include "registry/base/sha256.hpp"
#include "tests/support/tiny_registry.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

namespace tenon {
namespace {

namespace fs = std::filesystem;

const test::TinyRegistry& tiny() {
  static const test::TinyRegistry one;
  return one;
}

struct Training {
  fs::path folder;
  std::vector<std::string> assignments = {};
  TrainingHooks hooks = {};

  TrainingResult operator()() const {
    json::object plan = {{"architecture", "tenon.memory"},
                         {"model", "tiny"},
                         {"data", {{"paths", json::array{(tiny().path() / "sums").string()}}}}};
    for (const char* standard :
         {"data.sequence_length=32", "data.held_out_blocks=12", "data.max_tokens=6000", "general.blocks=12",
          "evaluate_blocks=8", "pass.blocks=60", "pass.held_back_blocks=4", "capacity=1024", "key_width=16"})
      set_field(plan, standard);
    for (const std::string& assignment : assignments) set_field(plan, assignment);
    const Loader loader = tiny().loader();
    return train_expert(loader, {"sums", TrainingPlan::parse(plan, "plan"), folder, {}, 0}, hooks);
  }
};

Error error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  FAIL("succeeded, where an error was due");
  return Error(Code::bug, "", "");
}

std::shared_ptr<const Model> tiny_model(const Loader& loader) {
  return loader.model(tiny().registry.resolve(PackageRequest::parse("tiny"), Kind::model));
}

} // namespace

TEST_CASE("a pass lowers held-out perplexity, and its folder can be published, loaded and composed") {
  const Scratch scratch;
  const TrainingResult result = Training{scratch.path() / "sums"}();
  const json::value evidence = result.evidence;
  const JsonReader reader(evidence, "evidence");
  CHECK(reader.at("lower_than_base").at("alone").at("interval95").at(0).number() > 5.0);
  CHECK(reader.at("perplexity").at("mixture").number() < reader.at("perplexity").at("base").number());

  const Entry entry = tiny().registry.publish(draft_from_folder(scratch.path() / "sums"));
  const Loader loader = tiny().loader();
  const auto model = tiny_model(loader);
  const ExpertPackage base = loader.base(*model), expert = loader.expert(entry, *model, &base);
  REQUIRE(expert.row.has_value());
  CHECK(expert.weights->at("keys").sizes() == at::IntArrayRef{1024, 16}); // as the configuration says, however full
  CHECK(expert.manifest.provenance.at("plan").at("train").as_object().size() == 1); // its seed: there were no steps
}

TEST_CASE("a memory built for one model is refused by another") {
  const Scratch scratch;
  Training{scratch.path() / "sums", {"summary=stranger", "version=2.0.0"}}();
  const Entry entry = tiny().registry.publish(draft_from_folder(scratch.path() / "sums"));
  const Loader loader = tiny().loader();
  ModelManifest other =
      ModelManifest::parse(tiny().registry.resolve(PackageRequest::parse("tiny"), Kind::model).manifest, "other");
  const ExpertManifest expert = ExpertManifest::parse(entry.manifest, entry.title());
  CHECK(contract_refusals("sums", expert.contract, "other", other.contract).empty());
  other.contract.model_digest = "sha256:" + std::string(64, '0');
  const auto refusals = contract_refusals("sums", expert.contract, "other", other.contract);
  REQUIRE_FALSE(refusals.empty());
  CHECK(refusals.front().rule == "TN-R10 model");
}

TEST_CASE("the same text gives the same bytes, and a finished pass has nothing left to do") {
  const Scratch scratch;
  const Training a{scratch.path() / "a"}, b{scratch.path() / "b"};
  a(), b();
  for (const char* file : {"weights.safetensors", "row.safetensors", "profile.safetensors", "expert.json"})
    CHECK(sha256_file(a.folder / file) == sha256_file(b.folder / file));
  CHECK(a().was_finished);
  // The plan that is left with the run holds nothing that this way of learning refuses.
  CHECK_NOTHROW(TrainingPlan::parse(read_json(a.folder / ".run/plan.json"), "plan").check_used(true));
}

TEST_CASE("Ctrl-C during the pass leaves nothing of it, and the same command starts it over") {
  const Scratch scratch;
  Training run{scratch.path() / "sums"};
  bool passing = false;
  int asked = 0;
  run.hooks.begin = [&](const std::string& what, std::int64_t, const std::string&, std::int64_t) {
    passing = what.rfind("pass", 0) == 0;
  };
  run.hooks.stop = [&] { return passing && ++asked == 3; };
  const Error stop = error_of([&] { run(); });
  CHECK(exit_status(stop.code) == 130);
  CHECK_THAT(stop.remedy, Catch::Contains("same command"));
  CHECK_FALSE(fs::exists(run.folder / "expert.json"));
  run.hooks = {};
  CHECK_FALSE(run().was_finished);
}

TEST_CASE("what a pass has no use for is refused by name, before anything is computed") {
  const Scratch scratch;
  const Error error = error_of([&] { Training{scratch.path() / "x", {"train.learning_rate=0.1"}}(); });
  CHECK(error.code == Code::usage);
  CHECK_THAT(error.message, Catch::Contains("train.learning_rate"));
  CHECK_FALSE(fs::exists(scratch.path() / "x"));
  const Error few = error_of([&] { Training{scratch.path() / "y", {"pass.blocks=4"}}(); });
  CHECK(few.code == Code::usage);
  CHECK_THAT(few.remedy, Catch::Contains("held_back_blocks"));
}

TEST_CASE("the correction gradient is the slope of the summed loss, and zero where nothing follows") {
  const Loader loader = tiny().loader();
  const auto model = tiny_model(loader);
  const VocabularyLoss loss(model->head().unembedding_VC());
  at::Tensor tokens_T = at::arange(40, 52, at::kLong), base_TC = at::empty({12, 32});
  RandomStream(3, "base").normal({base_TC.data_ptr<float>(), static_cast<std::size_t>(base_TC.numel())});
  const auto loss_at = [&](const at::Tensor& m_TC) {
    const Batch batch = Batch::whole(tokens_T.unsqueeze(0));
    const at::Tensor features = model->head().features(m_TC, batch).narrow(0, 0, 11);
    return 11.0 * loss.cross_entropy_into(features, tokens_T.narrow(0, 1, 11), at::Tensor());
  };
  const at::Tensor gradient_TC = correction_gradient(*model, loss, tokens_T, base_TC, at::arange(tokens_T.size(0) - 1));
  CHECK(gradient_TC[11].abs().max().item<float>() == 0.0f);
  const double step = 1e-2;
  const at::Tensor direction = gradient_TC / gradient_TC.norm();
  const double slope = (loss_at(base_TC + direction * step) - loss_at(base_TC - direction * step)) / (2 * step);
  CHECK(slope == Approx(gradient_TC.norm().item<double>()).epsilon(0.02));
}

TEST_CASE("a gradient that is not finite ends the pass with status 6") {
  const Loader loader = tiny().loader();
  const auto model = tiny_model(loader);
  const VocabularyLoss loss(model->head().unembedding_VC());
  const Error error = error_of([&] {
    correction_gradient(*model, loss, at::arange(40, 52, at::kLong),
                        at::full({12, 32}, std::numeric_limits<float>::infinity()), at::arange(11));
  });
  CHECK(exit_status(error.code) == 6);
}

TEST_CASE("the step search finds the lowest point of a valley from either side, and 0 where there is none") {
  for (const double first : {1e-3, 0.9, 1.7, 500.0}) {
    const StepLength found = search_step([](double s) { return (s - 1.3) * (s - 1.3) + 2.0; }, 1.69 + 2.0, first);
    CHECK(found.step == Approx(1.3).epsilon(0.03));
    CHECK(found.loss == Approx(2.0).margin(0.002));
  }
  CHECK(search_step([](double s) { return 1.0 + s; }, 1.0, 0.5).step == 0.0);
  CHECK(search_step([](double) { return 1.0; }, 1.0, 0.0).step == 0.0); // an expert that corrects nothing
}

} // namespace tenon
