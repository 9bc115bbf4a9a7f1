#include "host/training/adapter_import.hpp"

#include "host/composition/composition.hpp"
#include "registry/base/error.hpp"
#include "tests/support/tiny_registry.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <set>

namespace tenon {
namespace {

namespace fs = std::filesystem;

const fs::path kGoldens = fs::path(TENON_TEST_DATA) / "goldens/peft";

// The tiny registry with the goldens' model beside its own, cut 1:3 like it.
struct World : test::TinyRegistry {
  World() {
    auto source = std::make_shared<SourceModel>(SourceModel::open(kGoldens / "model"));
    WholeModel whole;
    whole.shape = shape(); // as make.py has it
    whole.tensors = source->tensors();
    whole.tokenizer = std::make_unique<Tokenizer>(byte_tokenizer());
    whole.keep = source;
    add_model("golden", whole, {1, 3});
  }
};

const World& world() {
  static const World one;
  return one;
}

struct Job {
  fs::path adapter, folder;
  std::vector<std::string> texts = {};
  bool middle_only = false;
  std::string model = "golden";

  AdapterImport operator()() const {
    json::array paths;
    for (const std::string& text : texts) paths.emplace_back(text);
    json::object plan = {{"architecture", "tenon.low_rank"}, {"model", model}, {"data", {{"paths", paths}}}};
    for (const char* small : {"data.sequence_length=32", "data.held_out_blocks=8", "data.max_tokens=3000",
                              "general.blocks=12", "evaluate_blocks=6", "row.max_positions=1000"})
      set_field(plan, small);
    const Loader loader = world().loader();
    return import_adapter(loader, {"made", adapter, TrainingPlan::parse(plan, "plan"), folder, middle_only, {}}, {});
  }
};

Error error_of(const Job& job) {
  try {
    job();
  } catch (const Error& error) {
    CHECK_FALSE(fs::exists(job.folder)); // nothing half-written, nor beside it
    CHECK(fs::is_empty(job.folder.parent_path()));
    return error;
  }
  FAIL("imported, where an error was due");
  return Error(Code::bug, "", "");
}

at::Tensor golden(const char* name, at::ScalarType type) {
  static const SafetensorsFile file(kGoldens / "logits.safetensors");
  const TensorView& view = file.at(name);
  return at::from_blob(const_cast<std::byte*>(view.bytes.data()),
                       std::vector<std::int64_t>(view.shape.begin(), view.shape.end()), type);
}

// Trunk, this expert at strength 1 everywhere, head.
at::Tensor logits_with(const Model& model, const LoadedExpert& expert) {
  at::NoGradGuard no_grad;
  const Batch batch = Batch::whole(golden("tokens", at::kInt).unsqueeze(0));
  const auto spans = batch.spans([](Sequence& sequence) -> ModuleState& { return sequence.experts[0]; });
  return model.head().forward(expert.forward(model.trunk().forward(batch), {}, spans), batch);
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

// An adapter folder of one product, with its tensors changed by the caller.
struct Written {
  std::map<std::string, std::vector<std::size_t>> tensors = {{"model.layers.1.mlp.up_proj.lora_A.weight", {2, 32}},
                                                             {"model.layers.1.mlp.up_proj.lora_B.weight", {48, 2}}};
  float value = 0.5f;

  fs::path write(const fs::path& folder) const {
    std::map<std::string, std::vector<float>> numbers;
    std::vector<TensorView> views;
    for (const auto& [name, shape] : tensors) {
      std::vector<float>& data = numbers[name];
      data.assign(shape[0] * (shape.size() > 1 ? shape[1] : 1), value);
      views.push_back({"base_model.model." + name, Dtype::F32, shape, std::as_bytes(std::span(data))});
    }
    write_safetensors(folder / "adapter_model.safetensors", views);
    write_file(folder / "adapter_config.json", R"({"peft_type": "LORA", "r": 2, "lora_alpha": 4})");
    return folder;
  }
};

} // namespace

TEST_CASE("an imported adapter gives the logits that PEFT gives, ranks and alphas by pattern included") {
  const Scratch scratch;
  const Loader loader = world().loader();
  const auto model = loader.model(world().registry.resolve(PackageRequest::parse("golden"), Kind::model));
  const ExpertPackage base = loader.base(*model);
  CHECK(largest_difference(logits_with(*model, *base.expert), golden("base", at::kFloat)) < 1e-4);
  for (const char* name : {"plain", "varied"}) {
    INFO(name);
    const AdapterImport made = Job{kGoldens / name, scratch.path() / name}();
    CHECK(made.dropped.empty());
    Draft draft = draft_from_folder(made.folder);
    CHECK_FALSE(fs::exists(made.folder / "row.safetensors"));
    draft.name = std::string("made-") + name;
    draft.manifest.at("name") = draft.name;
    const Entry entry = world().registry.publish(draft);
    const ExpertPackage expert = loader.expert(entry, *model, &base);
    CHECK_FALSE(expert.row.has_value());
    CHECK(largest_difference(logits_with(*model, *expert.expert), golden(name, at::kFloat)) < 1e-4);
  }
}

TEST_CASE("with text an imported adapter has a row, a profile and evidence, and can be composed") {
  const Scratch scratch;
  const AdapterImport made = Job{kGoldens / "plain", scratch.path() / "made", {(world().path() / "sums").string()}}();
  REQUIRE(made.evidence.has_value());
  CHECK(made.evidence->at("perplexity").as_object().contains("mixture"));
  CHECK(fs::exists(made.folder / ".run/held_out.tokens"));
  const Entry entry = world().registry.publish(draft_from_folder(made.folder));
  const Loader loader = world().loader();
  const auto model = loader.model(world().registry.resolve(PackageRequest::parse("golden"), Kind::model));
  std::vector<ExpertPackage> experts = {loader.base(*model)};
  experts.push_back(loader.expert(entry, *model, &experts[0]));
  CHECK(experts[1].row->r_C.norm().item<double>() > 0);
  CHECK(experts[1].manifest.profile.has_value());
  const std::string manifest = canonical_json(entry.manifest);
  CHECK(manifest.find("imported_from") != std::string::npos);
  CHECK(manifest.find(world().path().string()) == std::string::npos);
  CHECK_NOTHROW(Composition(model, std::move(experts), Routing{}, 0.0, Composition::Options{}));
}

TEST_CASE("targets outside the middle are refused by name, or left out and listed") {
  const Scratch scratch;
  const Error error = error_of({kGoldens / "outside", scratch.path() / "made"});
  CHECK(error.code == Code::incompatible);
  CHECK_THAT(error.message, Catch::Contains("lm_head") && Catch::Contains("model.layers.0.self_attn.q_proj") &&
                                Catch::Contains("model.layers.3.self_attn.q_proj") && Catch::Contains("1:3"));
  CHECK(error.message.find("layers.1.") == std::string::npos);
  CHECK_THAT(error.remedy, Catch::Contains("--middle-only"));
  const AdapterImport made = Job{kGoldens / "outside", scratch.path() / "made", {}, true}();
  CHECK(made.products == std::vector<std::string>{"blocks.0.q", "blocks.1.q"});
  CHECK(std::set<std::string>(made.dropped.begin(), made.dropped.end()) ==
        std::set<std::string>{"lm_head", "lm_head.base_layer.weight", "model.layers.0.self_attn.q_proj",
                              "model.layers.3.self_attn.q_proj"});
  CHECK_THAT(read_file(made.folder / "expert.json"), Catch::Contains("left_out"));
}

TEST_CASE("targets that the model does not have are refused by name, --middle-only or not") {
  const Scratch scratch;
  for (const char* module : {"model.layers.4.mlp.up_proj", "model.layers.1.mlp.experts_proj", "transformer.wte",
                             "model.layers.x.mlp.up_proj", "model.layers.99999999999999999999.mlp.up_proj"}) {
    INFO(module);
    Written adapter;
    adapter.tensors[std::string(module) + ".lora_A.weight"] = {2, 32};
    adapter.tensors[std::string(module) + ".lora_B.weight"] = {48, 2};
    const Scratch in;
    const Error error = error_of({adapter.write(in.path()), scratch.path() / "made", {}, true});
    CHECK(error.code == Code::incompatible);
    CHECK_THAT(error.message, Catch::Contains(module) && Catch::Contains("layers 0:4"));
  }
  Written norm;
  norm.tensors["model.layers.1.input_layernorm.weight"] = {32};
  const Scratch in;
  CHECK_THAT(error_of({norm.write(in.path()), scratch.path() / "made", {}, true}).message,
             Catch::Contains("model.layers.1.input_layernorm.weight") && Catch::Contains("only products can change"));
}

TEST_CASE("an adapter of another base is refused with both sides' shapes") {
  const Scratch scratch, in;
  Written adapter;
  adapter.tensors["model.layers.1.mlp.up_proj.lora_A.weight"] = {2, 64};
  const Error error = error_of({adapter.write(in.path()), scratch.path() / "made"});
  CHECK(error.code == Code::incompatible);
  CHECK_THAT(error.message, Catch::Contains("model.layers.1.mlp.up_proj") && Catch::Contains("from 64 to 48") &&
                                Catch::Contains("blocks.0.up of golden goes from 32 to 48"));
}

TEST_CASE("values that are not finite are refused by the tensor's name") {
  const Scratch scratch, in;
  Written adapter;
  adapter.value = std::numeric_limits<float>::infinity();
  const Error error = error_of({adapter.write(in.path()), scratch.path() / "made"});
  CHECK(exit_status(error.code) == 5);
  CHECK_THAT(error.message, Catch::Contains("lora_A") && Catch::Contains("not finite"));
}

TEST_CASE("an adapter is imported over nothing that is there already") {
  const Scratch scratch, in;
  write_file(scratch.path() / "mine/letter.txt", "dear");
  CHECK_THROWS_WITH((Job{Written().write(in.path()), scratch.path() / "mine"}()), Catch::Contains("not empty"));
  CHECK(read_file(scratch.path() / "mine/letter.txt") == "dear");
}

TEST_CASE("the configuration names what all products share once, and the others apart") {
  const PeftAdapter adapter = PeftAdapter::open(kGoldens / "varied");
  const json::object config = low_rank_config(place_adapter(adapter, {1, 3}, 4, false), 2);
  CHECK(config.at("rank") == 2);
  CHECK(config.at("alpha").as_double() == Approx(6 * std::sqrt(2.0)));
  CHECK(config.at("targets").as_array().size() == 7);
  CHECK(config.at("ranks") == json::object{{"blocks.0.down", 3}, {"blocks.0.q", 5}, {"blocks.1.down", 3}});
  CHECK(config.at("alphas").as_object().at("blocks.0.up").as_double() == Approx(11 * std::sqrt(2.0)));
}

} // namespace tenon
