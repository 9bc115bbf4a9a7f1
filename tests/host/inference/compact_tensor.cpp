#include "host/inference/compact_tensor.hpp"

#include "host/model/random.hpp"
#include "kernels/cpu/key_values.hpp"

#include <ATen/ATen.h>
#include <catch2/catch.hpp>

#include <limits>

namespace tenon {
namespace {

at::Tensor noise(at::IntArrayRef shape) {
  const at::Tensor out = at::empty(shape);
  RandomStream(1, "noise").normal({out.data_ptr<float>(), static_cast<std::size_t>(out.numel())});
  return out;
}

bool comes_back(const CompactTensor& form, const at::Tensor& value) {
  return at::equal(widened(form).view(at::kInt), value.view(at::kInt));
}

// As they are read again from the form in which attention keeps them.
std::pair<at::Tensor, at::Tensor> kept_in_int8(const cpu::HeadShape& shape, std::int64_t positions) {
  using namespace cpu;
  const Kernels& kernels = kernels_of(supported_tiers().back());
  const at::Tensor rows = noise({positions, shape.kv_width()}) * noise({positions, 1});
  at::Tensor k = at::empty_like(rows), v = at::empty_like(rows);
  const auto through = [&](std::int64_t width, const auto& put, const auto& get, const at::Tensor& to) {
    const at::Tensor memory = at::zeros({kChunk * width + 16});
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data_ptr<float>());
    float* chunk = memory.data_ptr<float>() + (64 - address % 64) % 64 / sizeof(float);
    put(kernels, KeyFormat::int8, shape, rows.data_ptr<float>(), 0, positions, &chunk);
    get(KeyFormat::int8, shape, &chunk, 0, positions, to.data_ptr<float>());
  };
  through(key_width(KeyFormat::int8, shape), put_keys, get_keys, k);
  through(value_width(KeyFormat::int8, shape), put_values, get_values, v);
  return {k, v};
}

} // namespace

TEST_CASE("keys and values kept in int8 take a byte a number and a step a group, and come back bit for bit") {
  const cpu::HeadShape shape{6, 3, 64};
  const auto [k, v] = kept_in_int8(shape, 40);
  for (const auto& [value, groups] : {std::pair(k, 6), std::pair(v, 3)}) {
    const CompactTensor form = compact(value);
    CHECK(form.numbers.scalar_type() == at::kChar);
    CHECK(form.numbers.sizes() == value.sizes());
    REQUIRE(form.steps.defined());
    CHECK(form.steps.sizes() == at::IntArrayRef{40, groups});
    CHECK(comes_back(form, value));
  }
}

TEST_CASE("numbers of bfloat16 take two bytes, and others four, whatever they are") {
  const float infinity = std::numeric_limits<float>::infinity();
  const at::Tensor any = noise({5, 64}), half = any.to(at::kBFloat16).to(at::kFloat),
                   zeros = at::tensor({0.0f, -0.0f}).repeat({3, 16}), broken = any.clone();
  broken[2][3] = infinity, broken[3][4] = -infinity, broken[4][5] = std::numeric_limits<float>::quiet_NaN();
  for (const auto& [value, type] :
       {std::pair(any, at::kFloat), std::pair(half, at::kBFloat16), std::pair(zeros, at::kBFloat16),
        std::pair(broken, at::kFloat), std::pair(at::empty({0, 64}), at::kFloat),
        std::pair(at::scalar_tensor(0.1f), at::kFloat)}) {
    const CompactTensor form = compact(value);
    CHECK(form.numbers.scalar_type() == type);
    CHECK(!form.steps.defined());
    CHECK(comes_back(form, value));
  }
}

} // namespace tenon
