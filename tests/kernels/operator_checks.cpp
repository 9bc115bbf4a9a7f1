// A stranger's plugin may call an operator with anything: whatever does not fit is refused before a kernel reads it.
#include <tenon/operators.hpp>

#include <ATen/ATen.h>

#include <catch2/catch.hpp>

using namespace tenon;
using Catch::Contains;

namespace {

at::Tensor ones(std::initializer_list<std::int64_t> sizes) { return at::ones(at::IntArrayRef(sizes)); }
Packed matrix(std::int64_t outputs, std::int64_t inputs) { return operators::pack_linear(ones({outputs, inputs})); }

// Two heads of 4 on one, 8 wide, 12 inside.
struct BlockOf {
  std::vector<Packed> linears = {matrix(8, 8),  matrix(4, 8),  matrix(4, 8), matrix(8, 8),
                                 matrix(12, 8), matrix(12, 8), matrix(8, 12)};
  operators::BlockNorms norms = {ones({8}), {}, ones({8}), {}, {}, {}};
  operators::BlockShape shape = {2, 1, 4, 1e-5, 10000.0};

  Packed pack() const { return operators::pack_block(linears, norms, shape); }
};

} // namespace

TEST_CASE("a linear whose bias or change does not fit its weight is refused, as are rows of another width") {
  CHECK_THROWS_WITH(operators::pack_linear(ones({3})), Contains("found a weight [3]"));
  CHECK_THROWS_WITH(operators::pack_linear(ones({3, 4}), ones({4})), Contains("[3, 4]") && Contains("a bias [4]"));
  CHECK_THROWS_WITH(operators::pack_linear(ones({3, 4}), {}, ones({2, 4})), Contains("need both or neither"));
  CHECK_THROWS_WITH(operators::pack_linear(ones({3, 4}), {}, ones({2, 4}), ones({2, 3})),
                    Contains("a change of [2, 4]"));
  CHECK_THROWS_WITH(operators::linear(ones({5, 3}), matrix(3, 4)), Contains("[5, 3]") && Contains("need rows of 4"));
  CHECK_THROWS_WITH(operators::linear(ones({2, 5, 3}), matrix(3, 4)), Contains("[10, 3]"));
}

TEST_CASE("rows of a linear may lie in any number of dimensions") {
  const at::Tensor x = at::randn({2, 5, 4}), weight = at::randn({3, 4});
  const Packed packed = operators::pack_linear(weight);
  CHECK(operators::linear(x, packed).equal(operators::linear(x.view({10, 4}), packed).view({2, 5, 3})));
  CHECK(operators::linear(x[0][0], packed).sizes() == at::IntArrayRef({3}));
  CHECK(operators::linear(ones({0, 4}), packed).sizes() == at::IntArrayRef({0, 3}));
}

TEST_CASE("a block whose products or norms have other sizes than its heads is refused, each by name") {
  CHECK_NOTHROW(BlockOf().pack());
  const char* names[] = {"q", "k", "v", "o", "gate", "up", "down"};
  for (std::size_t i = 0; i < std::size(names); ++i) {
    if (i == 5) continue; // up says how wide it is inside
    BlockOf block;
    block.linears[i] = matrix(7, 8);
    CHECK_THROWS_WITH(block.pack(), Contains(std::string("found ") + names[i] + " of [7, 8]"));
  }
  BlockOf norm, bias, heads, odd;
  norm.norms.ffn = ones({7});
  CHECK_THROWS_WITH(norm.pack(), Contains("feed-forward norm of [7]"));
  bias.norms.attention_bias = ones({9});
  CHECK_THROWS_WITH(bias.pack(), Contains("attention norm"));
  heads.shape.kv_heads = 0;
  CHECK_THROWS_WITH(heads.pack(), Contains("2 heads of width 4 on 0"));
  odd.shape = {8, 4, 1, 1e-5, 10000.0};
  CHECK_THROWS_WITH(odd.pack(), Contains("an even width"));
}

TEST_CASE("a run takes blocks of one shape alone") {
  BlockOf other;
  other.shape.norm_eps = 1e-6;
  CHECK_THROWS_WITH(operators::pack_run({BlockOf().pack(), other.pack()}), Contains("block 1"));
  CHECK_THROWS_WITH(operators::pack_run({BlockOf().pack(), matrix(8, 8)}), Contains("no packed block"));
}

TEST_CASE("spans that reach beyond the rows, and heads that do not share evenly, are refused") {
  const Packed run = operators::pack_run({BlockOf().pack()});
  const auto spans = [](std::int64_t offset, std::int64_t length, std::int64_t position) {
    return std::vector<Span>{{offset, length, position, nullptr}};
  };
  const auto call = [&](const std::vector<Span>& given) { return operators::run(ones({3, 8}), run, given, 0); };
  CHECK_NOTHROW(call(spans(0, 3, 0)));
  for (const auto& bad : {spans(0, 4, 0), spans(-1, 2, 0), spans(2, -1, 0), spans(3, 1, 0), spans(0, 3, -1)})
    CHECK_THROWS_WITH(call(bad), Contains("the rows are 3"));
  CHECK_THROWS_WITH(operators::run(ones({3, 7}), run, spans(0, 3, 0), 0), Contains("[3, 7]"));
  CHECK_THROWS_WITH(operators::rope(ones({3, 2, 5}), spans(0, 3, 0), 1e4), Contains("an even width"));
  CHECK_THROWS_WITH(operators::rope(ones({3, 2, 4}), spans(0, 5, 0), 1e4), Contains("the rows are 3"));
  CHECK_THROWS_WITH(operators::attention(ones({3, 3, 4}), ones({3, 2, 4}), ones({3, 2, 4}), spans(0, 3, 0), 0),
                    Contains("H a multiple of G"));
  CHECK_THROWS_WITH(operators::layer_norm(ones({3, 8}), ones({7}), ones({8}), 1e-5), Contains("a weight [7]"));
}
