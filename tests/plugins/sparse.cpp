// The architectures made of residual blocks, run over chosen positions alone, say what they say when run over all.
#include "tests/support/plugin_expert.hpp"
#include "tests/support/tiny_model.hpp"

#include <catch2/catch.hpp>

namespace tenon::test {
namespace {

constexpr std::int64_t kLength = 200;
const std::vector<std::int64_t> kChosen = {3, 90, 95, 130, 199}; // gaps longer and shorter than a window of 64

std::unique_ptr<Composition> with_one(const Tiny& tiny, const std::string& name, const std::string& suffix) {
  std::vector<ExpertPackage> packages = tiny_experts(*tiny.model, {causal("one")});
  json::object config = {{"inner_width", 16}};
  if (name == "convolution") config["depth"] = 3, config["kernel_size"] = 5;
  packages[1].expert = PluginKind{"tenon_" + name, "tenon." + name + suffix, config}.grown(tiny.model->shape().width);
  packages[1].expert->prepare(TENON_INFERENCE);
  return std::make_unique<Composition>(tiny.model, packages, Routing{}, 0.0, Composition::Options{true, {}});
}

// The expert alone at the chosen positions, the base everywhere else.
at::Tensor alone_at_chosen() {
  at::Tensor w_TE = at::zeros({kLength, 2});
  w_TE.select(1, 0).fill_(1.0);
  for (const std::int64_t position : kChosen) w_TE[position][0].fill_(0.0), w_TE[position][1].fill_(1.0);
  return w_TE;
}

// The expert's outputs at every position, run as one.
at::Tensor dense(Composition& composition, const std::vector<std::int32_t>& ids) {
  const at::Tensor h_TC = composition.model().trunk().forward(Batch::whole(tensor_of(ids).unsqueeze(0)));
  const tenon_span span{0, kLength, 0, nullptr};
  const at::Tensor base_TC = composition.experts()[0].forward(h_TC, {}, {&span, 1});
  return composition.experts()[1].forward(h_TC, base_TC, {&span, 1});
}

// What the merge gives, sequence and state kept, in chunks.
at::Tensor sparse(Composition& composition, const std::vector<std::int32_t>& ids, std::int64_t chunk) {
  const at::Tensor w_TE = alone_at_chosen();
  Sequence sequence = composition.new_sequence();
  std::vector<at::Tensor> parts;
  for (std::int64_t at = 0; at < kLength; at += chunk) {
    const at::Tensor w_NE = w_TE.narrow(0, at, chunk);
    const auto some = std::span(ids).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(chunk));
    parts.push_back(composition.middle(Batch::next(sequence, some), &w_NE));
  }
  return at::cat(parts);
}

} // namespace

TEST_CASE("mlp, mixture, convolution, recurrent and state space run sparsely say what they say run over everything") {
  const Tiny tiny;
  const auto ids = tokens("text", kLength);
  for (const std::string name : {"mlp", "mixture", "convolution", "recurrent", "state_space"})
    for (const std::string suffix : {"", "_middle"}) {
      INFO("tenon." << name << suffix);
      const auto composition = with_one(tiny, name, suffix);
      const at::Tensor chosen = at::tensor(kChosen), expected = dense(*composition, ids).index_select(0, chosen);
      for (const std::int64_t chunk : {1, 40, 200})
        CHECK(largest_difference(sparse(*composition, ids, chunk).index_select(0, chosen), expected) < 1e-4);
      if (name != "convolution") continue;
      composition->experts().work[1] = {};
      (void)sparse(*composition, ids, 200);
      CHECK(composition->experts().work[1].run_rows == 4 + (131 - 27) + 64); // 4 to 26 are skipped, and 131 to 135
    }
}

} // namespace tenon::test
