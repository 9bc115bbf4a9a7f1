#include "host/training/optimizer.hpp"

#include "tests/support/tiny_model.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cmath>

namespace tenon {
namespace {

// Algorithm 2 of the paper, one number at a time, in float64.
struct Reference {
  double value, m = 0.0, v = 0.0;
  void step(double gradient, int number, double rate, double decay) {
    value -= rate * decay * value;
    m = 0.9 * m + 0.1 * gradient;
    v = 0.999 * v + 0.001 * gradient * gradient;
    value -= rate * (m / (1 - std::pow(0.9, number))) / (std::sqrt(v / (1 - std::pow(0.999, number))) + 1e-8);
  }
};

} // namespace

TEST_CASE("AdamW follows its paper") {
  at::Tensor parameter = test::normal("parameter", {5, 7}, 1.0).set_requires_grad(true);
  std::vector<Reference> reference;
  for (std::int64_t i = 0; i < 35; ++i) reference.push_back({parameter.detach().view({-1})[i].item<double>()});
  AdamW optimizer({{"p", parameter}}, 0.1);
  for (int number = 1; number <= 5; ++number) {
    const at::Tensor gradient = test::normal("gradient " + std::to_string(number), {5, 7}, 1.0);
    parameter.mutable_grad() = gradient.clone();
    optimizer.step(number, 0.01 * number);
    for (std::int64_t i = 0; i < 35; ++i)
      reference[i].step(gradient.view({-1})[i].item<double>(), number, 0.01 * number, 0.1);
  }
  for (std::int64_t i = 0; i < 35; ++i)
    CHECK(parameter.detach().view({-1})[i].item<double>() == Approx(reference[i].value).epsilon(1e-5));
}

TEST_CASE("AdamW leaves alone what got no gradient") {
  at::Tensor used = at::ones({3}).set_requires_grad(true), unused = at::ones({3}).set_requires_grad(true);
  AdamW optimizer({{"used", used}, {"unused", unused}}, 0.1);
  used.mutable_grad() = at::ones({3});
  optimizer.step(1, 0.1);
  CHECK(unused.detach().equal(at::ones({3})));
  CHECK_FALSE(used.detach().equal(at::ones({3})));
}

TEST_CASE("the learning rate warms up, falls like a cosine, and stops at the floor") {
  CHECK(schedule(0, 100, 10, 0.02) == Approx(0.1));
  CHECK(schedule(9, 100, 10, 0.02) == Approx(0.5 * (1 + std::cos(M_PI * 0.09))));
  CHECK(schedule(50, 100, 10, 0.02) == Approx(0.5));
  CHECK(schedule(99, 100, 10, 0.02) == Approx(0.02));
  CHECK(schedule(0, 100, 0, 0.0) == Approx(1.0));
}

TEST_CASE("clipping scales all gradients together, and only when they are too large") {
  at::Tensor a = at::zeros({2}).set_requires_grad(true), b = at::zeros({1}).set_requires_grad(true),
             none = at::zeros({1}).set_requires_grad(true);
  const NamedTensors parameters = {{"a", a}, {"b", b}, {"none", none}};
  a.mutable_grad() = at::full({2}, 2.0);
  b.mutable_grad() = at::full({1}, 1.0);
  const double norm = gradient_norm(parameters);
  CHECK(norm == Approx(3.0));
  clip_gradients(parameters, norm, 5.0);
  CHECK(gradient_norm(parameters) == Approx(3.0));
  clip_gradients(parameters, norm, 1.5);
  CHECK(gradient_norm(parameters) == Approx(1.5));
  CHECK(a.grad()[0].item<double>() == Approx(1.0));
  CHECK_FALSE(none.grad().defined());
}

} // namespace tenon
