#include "registry/manifest.hpp"

#include "tests/registry/fixtures.hpp"

#include <catch2/catch.hpp>

using namespace tenon;
using namespace tenon::fixtures;

TEST_CASE("a manifest is written as it is read") {
  const json::object model = model_manifest().to_json();
  CHECK(ModelManifest::parse(model, "model.json").to_json() == model);
  ExpertManifest manifest = expert_manifest("legal");
  manifest.profile = digest("profile");
  manifest.evidence = {json::object{{"metric", "perplexity"}, {"value", 12.5}}};
  manifest.context = "window(16)";
  const json::object expert = manifest.to_json();
  const ExpertManifest again = ExpertManifest::parse(expert, "expert.json");
  CHECK(again.to_json() == expert);
  CHECK(again.contract == manifest.contract);
  CHECK(again.weights == manifest.weights);
  CHECK(again.row == manifest.row);
}

TEST_CASE("an expert manifest that breaks a rule is refused with the field's path") {
  const auto refuse = [](auto change, const std::string& path) {
    json::value value = expert_manifest("legal").to_json();
    change(value.get_object());
    const Error error = error_of([&] { ExpertManifest::parse(value, "expert.json"); });
    INFO(error.what());
    CHECK(error.code == Code::integrity);
    CHECK(error.unit == "TN-R9 format: expert.json");
    CHECK(error.message.find(path) != std::string::npos);
  };
  refuse([](auto& o) { o.erase("contract"); }, "contract");
  refuse([](auto& o) { o["surprise"] = 1; }, "surprise");
  refuse([](auto& o) { o["name"] = "Legal"; }, "/name");
  refuse([](auto& o) { o["version"] = "one"; }, "/version");
  refuse([](auto& o) { o["summary"] = "clears\x1b[2J the screen"; }, "/summary");
  refuse([](auto& o) { o["license"] = "two\nlines"; }, "/license");
  refuse([](auto& o) { o["context"] = "window(0)"; }, "/context");
  refuse([](auto& o) { o["context"] = "window(x)"; }, "/context");
  refuse([](auto& o) { o["contract"].as_object()["model_digest"] = "sha256:zz"; }, "/contract/model_digest");
  refuse([](auto& o) { o["contract"].as_object()["width"] = 0; }, "/contract/width");
  refuse([](auto& o) { o["contract"].as_object()["cut"].as_object()["last"] = 1; }, "/contract/cut");
  refuse([](auto& o) { o["plugin"].as_object()["range"] = "latest"; }, "/plugin/range");
  refuse([](auto& o) { o["plugin"].as_object()["name"] = "mlp"; }, "/plugin/name");
  refuse([](auto& o) { o["row"] = "sha256:" + std::string(64, 'a'); }, "/row");
  refuse([](auto& o) { o["weights"].as_array()[0].as_object()["source"] = "/etc/passwd"; }, "/weights/0/source");
  refuse([](auto& o) { o["weights"].as_array()[0].as_object()["shape"] = json::array{-1}; }, "/weights/0/shape");
  refuse([](auto& o) { o["weights"].as_array().push_back(json::value(o["weights"].as_array()[0])); }, "twice");
  refuse([](auto& o) { o["files"] = json::array{json::object{{"path", "../x"}, {"role", "other"}}}; }, "/files/0/path");
}

TEST_CASE("a model manifest with a cut outside the model is refused") {
  json::value value = model_manifest().to_json();
  value.as_object()["cut"].as_object()["last"] = 5;
  const Error error = error_of([&] { ModelManifest::parse(value, "model.json"); });
  CHECK(error.message.find("1:5 reaches beyond 4 layers") != std::string::npos);
}

TEST_CASE("a contract that differs is refused once for each difference, with both sides") {
  CHECK(contract_refusals("legal 1.0.0", contract(), "tiny 1.0.0", contract()).empty());
  ModelContract other = contract();
  other.model_digest = digest("another trunk");
  other.base_digest = digest("another base");
  other.cut = {1, 2};
  other.tokenizer_digest = digest("other tokenizer");
  const auto refusals = contract_refusals("legal 1.0.0", contract(), "tiny 1.0.0", other);
  REQUIRE(refusals.size() == 4);
  CHECK(refusals[0].rule == "TN-R10 model");
  CHECK(refusals[1].rule == "TN-R11 base");
  CHECK(refusals[2].rule == "TN-R12 contract");
  CHECK(refusals[3].rule == "TN-R12 contract");
  for (const Refusal& refusal : refusals) {
    CHECK(refusal.code == Code::incompatible);
    CHECK(refusal.message.find("legal 1.0.0") != std::string::npos);
    CHECK(refusal.message.find("tiny 1.0.0") != std::string::npos);
    CHECK_FALSE(refusal.remedy.empty());
  }
  CHECK(refusals[2].message.find("1:3") != std::string::npos);
  CHECK(refusals[2].message.find("1:2") != std::string::npos);
}
