#include "host/model/random.hpp"
#include "registry/base/error.hpp"
#include "tests/support/tiny_registry.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>

namespace tenon {
namespace {

constexpr std::int64_t kWidth = 32;

at::Tensor random_rows(const std::string& name, std::int64_t rows, double deviation = 1.0) {
  at::Tensor out = at::empty({rows, kWidth});
  RandomStream(5, name).normal({out.data_ptr<float>(), static_cast<std::size_t>(out.numel())});
  return out.mul_(deviation);
}

struct Bench {
  test::TinyRegistry tiny;
  Loader loader = tiny.loader();
  std::shared_ptr<const Model> model = loader.model(tiny.registry.resolve(PackageRequest::parse("tiny"), Kind::model));
  ExpertPackage base = loader.base(*model);
  const Plugin& plugin = loader.plugin(PackageRequest::parse("tenon.memory"));

  // Around the mean of general text, as states of a text are.
  at::Tensor states(const std::string& name, std::int64_t rows) const {
    return random_rows(name, rows) * model->statistics().deviation_C + model->statistics().mean_C;
  }
  std::shared_ptr<LoadedExpert> empty(const json::object& config) const {
    auto expert = loader.create(plugin, "tenon.memory", config, *model, &base.manifest, "memory");
    expert->initialize(1);
    expert->prepare(TENON_TRAINING);
    return expert;
  }
  // Holds these rows, observed in two blocks.
  std::shared_ptr<LoadedExpert> holding(const json::object& config, const at::Tensor& h_NC,
                                        const at::Tensor& gradient_NC, std::uint64_t seed = 1) const {
    const auto expert = empty(config);
    const std::int64_t rows = h_NC.size(0), half = rows / 2;
    expert->begin_pass(seed, rows);
    for (const auto& [first, count] : {std::pair{std::int64_t{0}, half}, {half, rows - half}})
      expert->observe({h_NC.narrow(0, first, count), at::zeros({count, kWidth}), gradient_NC.narrow(0, first, count),
                       at::zeros({count}, at::kLong)});
    expert->finish_pass();
    expert->prepare(TENON_INFERENCE);
    return expert;
  }
};

const Bench& bench() {
  static const Bench one;
  return one;
}

at::Tensor run(const LoadedExpert& expert, const at::Tensor& h_NC, const at::Tensor& base_NC) {
  const tenon_span span{0, h_NC.size(0), 0, nullptr};
  return expert.forward(h_NC, base_NC, {&span, 1});
}

at::Tensor parameter(const LoadedExpert& expert, const std::string& name) {
  for (const ExpertParameter& one : expert.parameters())
    if (one.name == name) return one.tensor;
  FAIL("no parameter " << name);
  return {};
}

const json::object kNearest = {{"neighbors", 1}, {"temperature", 0.01}};

} // namespace

TEST_CASE("a memory with nothing in it is the base, bit for bit") {
  const auto expert = bench().empty({});
  expert->prepare(TENON_INFERENCE);
  const at::Tensor base_NC = random_rows("base", 7);
  CHECK(run(*expert, bench().states("h", 7), base_NC).equal(base_NC));
}

TEST_CASE("a stored state gets its own correction back, against its gradient and as large as it is scaled") {
  const at::Tensor h_NC = bench().states("h", 40), gradient_NC = random_rows("g", 40), base_NC = random_rows("b", 40);
  const auto expert = bench().holding(kNearest, h_NC, gradient_NC);
  CHECK(at::allclose(run(*expert, h_NC, base_NC), base_NC - gradient_NC, 1e-3, 1e-3));
  expert->prepare(TENON_TRAINING);
  expert->scale_correction(0.25);
  expert->prepare(TENON_INFERENCE);
  CHECK(at::allclose(run(*expert, h_NC, base_NC), base_NC - 0.25 * gradient_NC, 1e-3, 1e-3));
}

TEST_CASE("states far from all that is stored get almost no correction") {
  const at::Tensor h_NC = bench().states("h", 40), mean_C = bench().model->statistics().mean_C;
  const auto expert = bench().holding(kNearest, h_NC, random_rows("g", 40));
  const at::Tensor far_NC = bench().states("far", 200), base_NC = at::zeros({200, kWidth});
  const at::Tensor near_NC = mean_C + 3.0 * (h_NC - mean_C); // the same directions: near
  const double far = run(*expert, far_NC, base_NC).norm(2, {1}).median().item<double>(),
               near = run(*expert, near_NC, at::zeros({40, kWidth})).norm(2, {1}).median().item<double>();
  CHECK(near > 4.0);
  CHECK(far < 0.05 * near);
}

TEST_CASE("more neighbors average their corrections") {
  const at::Tensor h_NC = bench().states("h", 1).expand({4, kWidth}).contiguous(), gradient_NC = random_rows("g", 4);
  const auto expert = bench().holding({{"neighbors", 4}, {"temperature", 0.01}}, h_NC, gradient_NC);
  const at::Tensor y_NC = run(*expert, h_NC.narrow(0, 0, 1), at::zeros({1, kWidth}));
  CHECK(at::allclose(y_NC[0], -gradient_NC.mean(0), 1e-3, 1e-3));
}

TEST_CASE("capacity is kept: a fair sample of what was seen, in tensors of the same shapes") {
  json::object config = kNearest;
  config["capacity"] = 16;
  const at::Tensor h_NC = bench().states("h", 100), gradient_NC = random_rows("g", 100);
  const auto expert = bench().holding(config, h_NC, gradient_NC);
  CHECK(parameter(*expert, "count").item<float>() == 16.0f);
  CHECK(parameter(*expert, "values").sizes() == at::IntArrayRef{16, kWidth});
  const at::Tensor y_NC = run(*expert, h_NC, at::zeros({100, kWidth}));
  const at::Tensor own_N = (y_NC + gradient_NC).norm(2, {1}).lt(0.05 * gradient_NC.norm(2, {1}));
  CHECK(own_N.sum().item<std::int64_t>() == 16);
  CHECK(own_N.narrow(0, 0, 50).any().item<bool>()); // from both blocks
  CHECK(own_N.narrow(0, 50, 50).any().item<bool>());
}

TEST_CASE("the same observations and seed give the same bytes, another seed keeps other positions") {
  const at::Tensor h_NC = bench().states("h", 100), gradient_NC = random_rows("g", 100);
  const json::object config = {{"capacity", 16}};
  const auto a = bench().holding(config, h_NC, gradient_NC), b = bench().holding(config, h_NC, gradient_NC),
             c = bench().holding(config, h_NC, gradient_NC, 2);
  for (const char* name : {"keys", "values", "project.weight", "count"})
    CHECK(parameter(*a, name).equal(parameter(*b, name)));
  CHECK_FALSE(parameter(*a, "values").equal(parameter(*c, "values")));
}

TEST_CASE("every position is by itself: any split of the rows gives the same") {
  const at::Tensor h_NC = bench().states("h", 300), base_NC = random_rows("b", 300);
  const auto expert = bench().holding({}, h_NC, random_rows("g", 300));
  const at::Tensor whole = run(*expert, h_NC, base_NC); // more rows than are scored at once
  const at::Tensor split = at::cat({run(*expert, h_NC.narrow(0, 0, 17), base_NC.narrow(0, 0, 17)),
                                    run(*expert, h_NC.narrow(0, 17, 283), base_NC.narrow(0, 17, 283))});
  CHECK(at::allclose(whole, split, 1e-5, 1e-5));
}

TEST_CASE("a count that the stored tensors cannot have is refused, not followed") {
  for (const double count : {-1.0, 5.5, 17.0, static_cast<double>(NAN)}) {
    const auto expert = bench().empty({{"capacity", 16}});
    expert->bind("count", at::full({1}, count));
    try {
      expert->prepare(TENON_INFERENCE);
      run(*expert, bench().states("h", 2), at::zeros({2, kWidth}));
      FAIL("accepted");
    } catch (const Error& error) {
      CHECK(error.code == Code::integrity);
      CHECK_THAT(error.message, Catch::Contains("0 to 16"));
    }
  }
}

TEST_CASE("an architecture that learns by gradient refuses a pass") {
  const auto model = bench().model;
  const auto expert = bench().loader.create(bench().loader.plugin(PackageRequest::parse("tenon.low_rank")),
                                            "tenon.low_rank", {{"rank", 2}}, *model, &bench().base.manifest, "legal");
  try {
    expert->begin_pass(0, 10);
    FAIL("accepted");
  } catch (const Error& error) {
    CHECK(error.code == Code::plugin);
    CHECK_THAT(error.message, Catch::Contains("does not learn in a pass"));
  }
}

} // namespace tenon
