// Experts over the bases of model families beyond Llama; tests/goldens/families/make.py made the models.
#include "host/training/train.hpp"
#include "tests/support/tiny_registry.hpp"

#include <catch2/catch.hpp>

namespace tenon {
namespace {

std::filesystem::path golden(const std::string& family) {
  return std::filesystem::path(TENON_TEST_DATA) / "goldens/families" / family;
}

void import_family(test::TinyRegistry& tiny, const std::string& family) {
  ImportOptions options;
  options.name = family;
  options.cut = {1, 2};
  options.calibration = {tiny.path() / "calibration"};
  options.staging = tiny.path() / (family + "-staging");
  options.cache = tiny.cache();
  const ImportedModel imported = import_model(read_whole_model(golden(family)), options);
  CHECK(imported.proven_positions == 64);
  tiny.registry.publish(imported.base);
  tiny.registry.publish(imported.model);
}

TrainingPlan low_rank_over(const test::TinyRegistry& tiny, const std::string& family,
                           const std::vector<std::string>& more = {}) {
  json::object plan = {{"architecture", "tenon.low_rank"},
                       {"model", family},
                       {"data", {{"paths", json::array{(tiny.path() / "sums").string()}}}}};
  std::vector<std::string> fields = {"data.sequence_length=32",
                                     "data.held_out_blocks=8",
                                     "data.max_tokens=2000",
                                     "general.blocks=8",
                                     "evaluate_blocks=8",
                                     "train.steps=25",
                                     "rank=2"};
  fields.insert(fields.end(), more.begin(), more.end());
  for (const std::string& field : fields) set_field(plan, field);
  return TrainingPlan::parse(plan, "plan");
}

} // namespace

TEST_CASE("a model of each family is imported, and a low-rank expert over its base learns") {
  test::TinyRegistry tiny;
  for (const std::string family : {"mistral", "qwen2", "qwen3", "gpt2"}) {
    CAPTURE(family);
    import_family(tiny, family);
    const Loader loader = tiny.loader();
    const TrainingResult result = train_expert(
        loader, {"sums-" + family, low_rank_over(tiny, family), tiny.path() / ("sums-" + family), {}, 0}, {});
    const json::value evidence = result.evidence;
    CHECK(JsonReader(evidence, "evidence").at("lower_than_base").at("alone").at("percent").number() > 2.0);
  }
}

TEST_CASE("an expert cut from a model of another family than Llama's learns between its stitches") {
  test::TinyRegistry tiny;
  for (const std::string family : {"qwen3", "gpt2"}) {
    CAPTURE(family);
    import_family(tiny, family);
    const Loader loader = tiny.loader();
    json::object imported = low_rank_over(tiny, family).json;
    imported["architecture"] = "tenon.imported_on_base";
    imported["config"] = json::object();
    imported.erase("pass");
    imported["from"] = {{"model", family}, {"layers", "0:2"}};
    const TrainingPlan plan = TrainingPlan::parse(imported, "plan");
    const TrainingResult result =
        train_expert(loader, {"lent-" + family, plan, tiny.path() / ("lent-" + family), {}, 0}, {});
    const json::value evidence = result.evidence;
    CHECK(JsonReader(evidence, "evidence").at("lower_than_base").at("alone").at("percent").number() > 2.0);
  }
}

TEST_CASE("a low-rank expert of a product that its base's blocks lack is refused with those they have") {
  test::TinyRegistry tiny;
  import_family(tiny, "gpt2");
  const Loader loader = tiny.loader();
  const TrainingPlan plan = low_rank_over(tiny, "gpt2", {R"(config.targets=["q","gate"])"});
  CHECK_THROWS_WITH(train_expert(loader, {"sums", plan, tiny.path() / "sums-gate", {}, 0}, {}),
                    Catch::Contains("no product gate; it has down, k, o, q, up, v"));
}

} // namespace tenon
