// The architectures made of residual blocks, from training to a composition of all of them.
#include "host/inference/session.hpp"
#include "host/training/train.hpp"
#include "tests/support/tiny_model.hpp"
#include "tests/support/tiny_plan.hpp"

#include <catch2/catch.hpp>

namespace tenon::test {
namespace {

// The plugins of the build tree, published beside a tiny model.
struct Workshop {
  TinyRegistry tiny;
  Scratch scratch;

  Workshop() {
    for (const char* library :
         {"tenon_mlp.so", "tenon_mixture.so", "tenon_convolution.so", "tenon_recurrent.so", "tenon_state_space.so"})
      tiny.registry.publish(plugin_draft(std::filesystem::path(TENON_PLUGINS) / library));
  }

  TrainingResult train(const std::string& name, const std::string& architecture,
                       const std::vector<std::string>& assignments) const {
    const TrainingPlan plan = tiny_plan(tiny, "tenon." + architecture, assignments, {"inner_width=24"});
    return train_expert(tiny.loader(), {name, plan, scratch.path() / name, {}, 0}, {});
  }
};

double percent_gained(const TrainingResult& result) {
  const json::value evidence = result.evidence;
  return JsonReader(evidence, "evidence").at("lower_than_base").at("alone").at("percent").number();
}

} // namespace

TEST_CASE("experts of every architecture learn, are published, and go together in one composition") {
  Workshop workshop;
  const auto model =
      workshop.tiny.loader().model(workshop.tiny.registry.resolve(PackageRequest::parse("tiny"), Kind::model));
  std::vector<ExpertPackage> packages = {workshop.tiny.loader().base(*model)};
  for (const std::string name : {"mlp", "mixture", "convolution", "recurrent", "state_space"}) {
    INFO(name);
    CHECK(percent_gained(workshop.train(name, name, {"train.steps=40"})) > 2.0);
    const Entry entry = workshop.tiny.registry.publish(draft_from_folder(workshop.scratch.path() / name));
    packages.push_back(workshop.tiny.loader().expert(entry, *model, &packages.front()));
  }
  Composition composition(model, packages, {"top_k", 2, 1.0, "token"}, 0.0, {true, {}});
  const auto ids = tokens("text", 40);
  const at::Tensor whole = composition.forward(Batch::whole(tensor_of(ids).unsqueeze(0)))[39].clone();
  for (const std::int64_t chunk : {1, 7, 40}) {
    Session session(composition, {chunk, 0, {}});
    session.append(ids);
    const auto logits = session.logits();
    for (std::int64_t i = 0; i < whole.size(0); ++i)
      REQUIRE(logits[static_cast<std::size_t>(i)] == Approx(whole[i].item<float>()).margin(1e-3));
  }
}

TEST_CASE("middles of every architecture train in bfloat16, in batches") {
  Workshop workshop;
  for (const std::string name : {"mlp", "mixture", "convolution", "recurrent", "state_space"}) {
    INFO(name);
    const auto result =
        workshop.train(name, name + "_middle", {"train.steps=3", "train.dtype=bfloat16", "train.batch=2"});
    CHECK(result.steps == 3);
  }
  CHECK(workshop.train("lstm", "recurrent", {"cell=\"lstm\"", "train.steps=3", "train.dtype=bfloat16"}).steps == 3);
}

} // namespace tenon::test
