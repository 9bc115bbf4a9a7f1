#include "host/routing/strengths.hpp"
#include "host/routing/router.hpp"
#include "registry/base/error.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>

using namespace tenon;

namespace {

Normalization plain(std::int64_t width) { return {at::zeros({width}), at::ones({width})}; }

Row row(std::initializer_list<float> r, double b) { return {at::tensor(std::vector<float>(r)), b}; }

} // namespace

TEST_CASE("top-k strengths are a softmax over the chosen and sum to one") {
  const at::Tensor scores = at::tensor({1.0f, 3.0f, 2.0f, -1.0f}).view({1, 4});
  const at::Tensor w = top_k_strengths(scores, 2, 1.0);
  const at::Tensor pair = at::tensor({3.0f, 2.0f}).softmax(0);
  CHECK(w[0][1].item<float>() == Approx(pair[0].item<float>()));
  CHECK(w[0][2].item<float>() == Approx(pair[1].item<float>()));
  CHECK(w[0][0].item<float>() == 0.0f);
  CHECK(w[0][3].item<float>() == 0.0f);
  CHECK(at::equal(top_k_strengths(scores, 4, 0.5), softmax_strengths(scores, 0.5)));
}

TEST_CASE("where all experts but the base are excluded, the base has all the strength, whatever row came before") {
  const float none = -std::numeric_limits<float>::infinity();
  const at::Tensor scores_NE = at::tensor({0.1f, 3.0f, 2.0f, 1.0f, 0.1f, none, none, none, 0.1f, none, none, 0.1f})
                                   .view({3, 4}),
                   w_NE = top_k_strengths(scores_NE, 2, 1.0);
  CHECK(w_NE[1].equal(at::tensor({1.0f, 0.0f, 0.0f, 0.0f})));
  CHECK(w_NE[2].equal(at::tensor({0.5f, 0.0f, 0.0f, 0.5f})));
}

TEST_CASE("sparsemax and entmax use as many experts as their scores warrant, and sum to one") {
  const at::Tensor scores = at::tensor({1.0f, 1.5f, 0.9f, -2.0f}).view({1, 4});
  const at::Tensor sparse = sparsemax_strengths(scores, 1.0), some = entmax_strengths(scores, 1.0);
  // t = (1.0 + 1.5 + 0.9 - 1) / 3
  CHECK(sparse[0][1].item<float>() == Approx(0.7f));
  CHECK(sparse[0][0].item<float>() == Approx(0.2f));
  CHECK(sparse[0][2].item<float>() == Approx(0.1f));
  CHECK(sparse[0][3].item<float>() == 0.0f);
  CHECK(some.sum().item<float>() == Approx(1.0f));
  CHECK((some[0][3].item<float>() == 0.0f && some[0][2].item<float>() > sparse[0][2].item<float>()));
  CHECK(sparsemax_strengths(scores, 0.1)[0][1].item<float>() == 1.0f);
  CHECK(at::allclose(entmax_strengths(at::zeros({2, 3}), 1.0), at::full({2, 3}, 1.0f / 3.0f)));
}

TEST_CASE("scores that are not numbers, or have no end, give strengths that are none, whatever the rule") {
  for (const float bad : {NAN, INFINITY}) {
    const at::Tensor scores = at::tensor({1.0f, bad, 0.5f}).view({1, 3});
    for (const at::Tensor& w : {top_k_strengths(scores, 2, 1.0), sparsemax_strengths(scores, 1.0),
                                entmax_strengths(scores, 1.0), softmax_strengths(scores, 1.0)})
      CHECK(w.isnan().all().item<bool>());
  }
}

TEST_CASE("a tie at the border of top-k goes to the lower slot, so that the base wins it") {
  const at::Tensor w = top_k_strengths(at::zeros({1, 3}), 1, 1.0);
  CHECK(w[0][0].item<float>() == 1.0f);
}

TEST_CASE("a masked expert's strength goes to the base") {
  at::Tensor w = at::tensor({0.2f, 0.5f, 0.3f}).view({1, 3});
  give_to_base(w, 1);
  CHECK(w[0][0].item<float>() == Approx(0.7f));
  CHECK(w[0][1].item<float>() == 0.0f);
}

TEST_CASE("position 0 takes the base, every other position its scores") {
  const Router router(plain(2), {row({10, 0}, 0)}, {"softmax", 2, 1.0, "token"}, 0.0);
  const Batch batch = Batch::whole(at::zeros({2, 3}, at::kLong));
  const at::Tensor w = router.strengths(at::ones({6, 2}), batch);
  for (const std::int64_t first : {0, 3}) CHECK(w[first][0].item<float>() == 1.0f);
  CHECK(w[1][1].item<float>() > 0.99f);
}

TEST_CASE("a further row changes no bit of another expert's scores") {
  const at::Tensor h = at::randn({50, 8});
  const Row a{at::randn({8}), 0.3}, b{at::randn({8}), -0.2};
  const Routing routing{"softmax", 2, 1.0, "token"};
  const at::Tensor alone = Router(plain(8), {a}, routing, 0).scores(h),
                   both = Router(plain(8), {a, b}, routing, 0).scores(h);
  CHECK(at::equal(alone.select(1, 1), both.select(1, 1)));
}

TEST_CASE("however many rows and experts there are, every score is the one it would be alone") {
  const std::int64_t experts = 200, count = 130;
  const at::Tensor h = at::randn({count, 8});
  std::vector<Row> rows;
  for (std::int64_t i = 0; i < experts; ++i) rows.push_back({at::randn({8}), 0.1 * static_cast<double>(i)});
  const Routing routing{"softmax", 2, 1.0, "token"};
  const at::Tensor all = Router(plain(8), rows, routing, 0).scores(h);
  for (const std::int64_t expert : {0, 63, 64, 127, 128, 199})
    for (const std::int64_t row : {0, 63, 64, 129}) {
      const Router alone(plain(8), {rows[static_cast<std::size_t>(expert)]}, routing, 0);
      CHECK(all[row][expert + 1].item<float>() == alone.scores(h.narrow(0, row, 1))[0][1].item<float>());
    }
}

TEST_CASE("the prior is the least that gives the base its share of general text") {
  const Router router(plain(4), {row({1, 0, 0, 0}, 1.0), row({0, 1, 0, 0}, 1.0)}, {"top_k", 2, 1.0, "token"}, 0.0);
  const at::Tensor scores = router.scores(at::randn({2000, 4}));
  const double prior = fit_prior(scores, router, 0.9);
  const auto share = [&](double c) {
    at::Tensor moved = scores.clone();
    moved.select(1, 0).fill_(c);
    return router.sparsify(moved).select(1, 0).mean().item<double>();
  };
  CHECK(prior > 0);
  CHECK(share(prior) >= 0.9);
  CHECK(share(prior - 0.01) < 0.9);
}

TEST_CASE("an expert that general text never chooses needs no prior") {
  const Router router(plain(4), {row({0, 0, 0, 0}, -20.0)}, {"top_k", 2, 1.0, "token"}, 0.0);
  CHECK(fit_prior(router.scores(at::randn({100, 4})), router, 0.9) == 0.0);
}

TEST_CASE("the router refuses strengths and policies that it does not have, by name") {
  CHECK_THROWS_WITH(Router(plain(4), {}, Routing({"gumbel", 2, 1.0, "token"}), 0.0), Catch::Contains("gumbel"));
  CHECK_THROWS_WITH(Router(plain(4), {}, Routing({"top_k", 2, 1.0, "lazy"}), 0.0),
                    Catch::Contains("lazy") && Catch::Contains("sticky"));
  CHECK_THROWS_WITH(Router(plain(4), {}, Routing({"softmax", 2, 1.0, "sticky"}), 0.0), Catch::Contains("softmax"));
}

TEST_CASE("rows and statistics of another width than the model's are refused with both") {
  CHECK_THROWS_WITH(Router(plain(4), {row({1}, 0.0)}, {}, 0.0),
                    Catch::Contains("row of 1 numbers") && Catch::Contains("4 wide"));
  CHECK_THROWS_WITH(Router({at::zeros({4}), at::ones({3})}, {}, {}, 0.0), Catch::Contains("deviations"));
}
