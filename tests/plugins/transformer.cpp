// tenon.transformer and tenon.imported as architectures: widths, forms and splits.
#include "host/loading/library.hpp"
#include "tests/support/tiny_model.hpp"
#include "tests/support/tiny_registry.hpp"

#include <ATen/autocast_mode.h>

#include <catch2/catch.hpp>

#include <set>

namespace tenon::test {
namespace {

const TinyRegistry& tiny() {
  static const TinyRegistry one;
  return one;
}

struct Made {
  Loader loader = tiny().loader();
  std::shared_ptr<const Model> model =
      loader.model(tiny().registry.resolve(PackageRequest::parse("tiny"), Kind::model));
  std::shared_ptr<LoadedExpert> expert;

  Made(const std::string& architecture, std::int64_t width) {
    json::object config = {{"blocks", 2},     {"heads", 4},       {"kv_heads", 2},        {"head_dim", 6},
                           {"ffn_width", 20}, {"norm_eps", 1e-5}, {"rope_theta", 10000.0}};
    if (width > 0) config["width"] = width;
    const Plugin& plugin = loader.plugin(PackageRequest::parse("tenon.transformer"));
    expert = loader.create(plugin, architecture, config, *model, nullptr, "made");
    expert->initialize(3);
  }

  // Values everywhere, so that no part hides behind a zero.
  void fill() const {
    at::NoGradGuard no_grad;
    for (const ExpertParameter& parameter : expert->parameters())
      at::Tensor(parameter.tensor).copy_(normal(parameter.name, parameter.tensor.sizes(), 0.2) + 0.05);
  }
  std::set<std::string> names() const {
    std::set<std::string> out;
    for (const ExpertParameter& parameter : expert->parameters()) out.insert(parameter.name);
    return out;
  }
};

at::Tensor rows(const std::string& name, std::int64_t count) { return normal(name, {count, 32}, 1.0); }

const std::vector<std::pair<std::string, std::int64_t>> kForms = {
    {"tenon.transformer", 0},         {"tenon.transformer", 12},         {"tenon.transformer", 40},
    {"tenon.transformer_on_base", 0}, {"tenon.transformer_on_base", 12}, {"tenon.imported", 40},
    {"tenon.imported_on_base", 12}};

} // namespace

TEST_CASE("without a width the blocks run on the model's stream, with no stitch") {
  CHECK(Made("tenon.transformer", 0).names().count("stitch.down.weight") == 0);
  CHECK(Made("tenon.transformer", 0).names().size() == 18);
  for (const ExpertParameter& parameter : Made("tenon.transformer", 12).expert->parameters()) {
    if (parameter.name == "stitch.down.weight") CHECK(parameter.tensor.sizes() == at::IntArrayRef({12, 32}));
    if (parameter.name == "stitch.up.bias") CHECK(parameter.tensor.sizes() == at::IntArrayRef({32}));
    if (parameter.name == "blocks.1.ffn.down.weight") CHECK(parameter.tensor.sizes() == at::IntArrayRef({12, 20}));
  }
}

TEST_CASE("the forms on the base are the base at birth, bit for bit") {
  at::NoGradGuard no_grad;
  const at::Tensor h = rows("h", 9), base = rows("base", 9);
  const tenon_span span{0, 9, 0, nullptr};
  for (const auto& [architecture, width] : kForms) {
    INFO(architecture << " " << width);
    const Made made(architecture, width);
    for (const tenon_mode mode : {TENON_TRAINING, TENON_INFERENCE}) {
      made.expert->prepare(mode);
      CHECK(made.expert->forward(h, base, {&span, 1}).equal(base) == made.expert->uses_base_output());
    }
  }
}

TEST_CASE("every form gives the same outputs packed and plain, whole and in any split, alone and in company") {
  at::NoGradGuard no_grad;
  const at::Tensor h = rows("h", 14), base = rows("base", 14);
  const std::vector<tenon_span> whole = {{0, 7, 0, nullptr}, {7, 7, 0, nullptr}};
  for (const auto& [architecture, width] : kForms) {
    INFO(architecture << " " << width);
    const Made made(architecture, width);
    made.fill();
    made.expert->prepare(TENON_TRAINING);
    const at::Tensor plain = made.expert->forward(h, base, whole);
    made.expert->prepare(TENON_INFERENCE);
    CHECK(largest_difference(made.expert->forward(h, base, whole), plain) < 1e-4);
    ModuleState one(made.expert->layout()), two(made.expert->layout());
    for (std::int64_t t = 0; t < 7; t += t == 0 ? 3 : 2) { // 3, then twice 2
      const std::int64_t count = t == 0 ? 3 : 2;
      const std::vector<tenon_span> next = {{0, count, t, to_handle(&one)}, {count, count, t, to_handle(&two)}};
      const auto part = [&](const at::Tensor& x) {
        return at::cat({x.narrow(0, t, count), x.narrow(0, 7 + t, count)});
      };
      CHECK(largest_difference(made.expert->forward(part(h), part(base), next), part(plain)) < 1e-4);
    }
  }
}

TEST_CASE("under bfloat16 products the stream keeps its type") {
  const Made made("tenon.transformer", 12);
  made.expert->prepare(TENON_TRAINING);
  const tenon_span span{0, 5, 0, nullptr};
  at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
  at::autocast::set_autocast_enabled(at::kCPU, true);
  const at::Tensor y = made.expert->forward(rows("h", 5), {}, {&span, 1});
  at::autocast::set_autocast_enabled(at::kCPU, false);
  at::autocast::clear_cache();
  CHECK(y.scalar_type() == at::kFloat);
}

} // namespace tenon::test
