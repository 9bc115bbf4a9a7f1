// Experts that load and then fail: each failure is an Error that names the expert, and the process goes on.
#include "host/loading/library.hpp"
#include "host/loading/native.hpp"
#include "tests/registry/fixtures.hpp"

#include <catch2/catch.hpp>

using namespace tenon;
using namespace tenon::fixtures;
using Catch::Matchers::Contains;

namespace {

struct Liars {
  Scratch scratch;
  PluginLoader loader{host_side(host_operators()), scratch.path() / "store", host_table()};
  const Plugin& plugin = loader.load({std::filesystem::path(TENON_HOSTILE) / "hostile_liar.so", nullptr});

  std::unique_ptr<LoadedExpert> make(const std::string& architecture) const {
    ExpertSpec spec;
    spec.title = "liar 1.0.0";
    spec.architecture = architecture;
    spec.values = json::object{{"config", json::object{}},
                               {"model", {{"width", 4}, {"first", 1}, {"last", 2}, {"dtype", "float32"}}}};
    spec.h_mean_C = at::zeros({4});
    spec.h_deviation_C = at::ones({4});
    spec.context = ExpertContext::parse("token");
    return std::make_unique<LoadedExpert>(plugin.table, std::move(spec));
  }

  Error forward_error(const std::string& architecture) const {
    const auto expert = make(architecture);
    expert->bind("weight", at::ones({1}));
    expert->prepare(TENON_INFERENCE);
    const tenon_span span{0, 3, 0, nullptr};
    return error_of([&] { expert->forward(at::ones({3, 4}), {}, {&span, 1}); });
  }
};

} // namespace

TEST_CASE("an expert that throws while it is made is named, with its own words") {
  const Liars liars;
  const Error error = error_of([&] { liars.make("hostile.throws_in_create"); });
  CHECK(error.code == Code::plugin);
  CHECK_THAT(error.what(), Contains("liar 1.0.0") && Contains("no such luck"));
}

TEST_CASE("an expert that throws something odd in forward is named") {
  const Error error = Liars().forward_error("hostile.throws_in_forward");
  CHECK(error.code == Code::plugin);
  CHECK_THAT(error.what(), Contains("liar 1.0.0") && Contains("no std::exception"));
}

TEST_CASE("an expert that returns a wrong shape, a wrong type or nothing is named with both sides") {
  const Liars liars;
  const Error shape = liars.forward_error("hostile.wrong_shape");
  CHECK(shape.code == Code::plugin);
  CHECK_THAT(shape.what(), Contains("liar 1.0.0") && Contains("returned (4, 3)") && Contains("need (3, 4)"));
  CHECK(liars.forward_error("hostile.wrong_type").code == Code::plugin);
  CHECK(liars.forward_error("hostile.no_tensor").code == Code::plugin);
}
