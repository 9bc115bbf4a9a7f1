#include "host/routing/policy.hpp"

#include "host/inference/session.hpp"
#include "host/routing/router.hpp"
#include "host/routing/strengths.hpp"
#include "tests/support/tiny_model.hpp"

#include <catch2/catch.hpp>

namespace tenon::test {
namespace {

const std::vector<ExpertKind> kExperts = {causal("one"), token("two"), recurrent("three"), window("four")};

const std::vector<Routing> kPolicies = {{"top_k", 2, 1.0, "token"},
                                        {"top_k", 2, 1.0, "token", 2.0, 32, 5},
                                        {"top_k", 2, 0.7, "sticky", 0.5},
                                        {"top_k", 1, 1.0, "sticky", 0.5, 32, 16},
                                        {"top_k", 1, 1.0, "sticky", 1.0},
                                        {"top_k", 2, 1.0, "sequence", 2.0, 7},
                                        {"softmax", 2, 1.0, "sequence", 2.0, 2}};

at::Tensor scores_of(std::initializer_list<std::initializer_list<float>> rows) {
  std::vector<at::Tensor> out;
  for (const auto& row : rows) out.push_back(at::tensor(std::vector<float>(row)));
  return at::stack(out);
}

Routing sticky(std::int64_t k, double margin) { return {"top_k", k, 1.0, "sticky", margin}; }

std::vector<std::int64_t> strongest(const at::Tensor& w_TE) {
  const at::Tensor best_T = w_TE.argmax(1);
  return {best_T.data_ptr<std::int64_t>(), best_T.data_ptr<std::int64_t>() + best_T.numel()};
}

at::Tensor whole_strengths(Composition& composition, const std::vector<std::int32_t>& ids) {
  const Batch batch = Batch::whole(tensor_of(ids).unsqueeze(0));
  return composition.router().strengths(composition.model().trunk().forward(batch), batch);
}

at::Tensor session_strengths(const Session& session) {
  std::vector<at::Tensor> rows;
  for (std::size_t position = 0; position < session.positions_run(); ++position)
    rows.push_back(at::tensor(session.strengths(position)));
  return at::stack(rows);
}

TEST_CASE("an averaged score is the mean of the last positions, and the base's prior stays as it is") {
  const at::Tensor scores = scores_of({{7, 3, 0}, {7, 5, 1}, {7, 1, 2}, {7, 0, 9}});
  CHECK(at::equal(average_scores(scores, 3), scores_of({{7, 3, 0}, {7, 4, 0.5f}, {7, 3, 1}, {7, 2, 4}})));
  CHECK(at::equal(average_scores(scores, 1), scores));
}

TEST_CASE("a single word of another kind does not change the expert where scores are averaged") {
  const Normalization plain{at::zeros({1}), at::ones({1})};
  const at::Tensor h = scores_of({{-9}, {1}, {1}, {-1}, {1}, {-1}, {-1}, {-1}, {-1}});
  const Batch batch = Batch::whole(at::zeros({1, 9}, at::kLong));
  const auto chosen = [&](std::int64_t over) {
    const Router router(plain, {{at::tensor({1.0f}), 0.0}}, {"top_k", 1, 1.0, "token", 2.0, 32, over}, 0.0);
    return strongest(router.strengths(h, batch));
  };
  CHECK(chosen(1) == std::vector<std::int64_t>{0, 1, 1, 0, 1, 0, 0, 0, 0});
  CHECK(chosen(3) == std::vector<std::int64_t>{0, 1, 1, 1, 1, 0, 0, 0, 0}); // position 0 counts for nothing
}

TEST_CASE("a sticky sequence keeps its expert until another's score exceeds it by more than the margin") {
  const at::Tensor scores = scores_of({{0, 1, 0}, {0, 1, 2.9f}, {0, 1, 3}, {0, 1, 3.1f}, {4, 1, 3.1f}, {6, 1, 3.1f}});
  PolicyState state;
  CHECK(strongest(sticky_strengths(scores, 1, sticky(1, 2.0), state)) == std::vector<std::int64_t>{1, 1, 1, 2, 2, 0});
  REQUIRE(state.kept.size() == 3);
  CHECK(state.kept[1].position == 4);
}

TEST_CASE("sticky strengths are a softmax over the kept set, the base a candidate like any other") {
  PolicyState state;
  const at::Tensor w = sticky_strengths(scores_of({{0, 3, 2, -1}, {0, 1, 2, 3.5f}}), 1, sticky(2, 3.0), state);
  CHECK(w[0][0].item<float>() == 0.0f);
  const at::Tensor pair = at::tensor({1.0f, 2.0f}).softmax(0);
  CHECK(w[1][1].item<float>() == Approx(pair[0].item<float>())); // kept, though now neither is the best
  CHECK(w[1][2].item<float>() == Approx(pair[1].item<float>()));
  CHECK(w[1][3].item<float>() == 0.0f);
}

TEST_CASE("sticky without a margin is the policy token") {
  const at::Tensor scores = normal("scores", {200, 6}, 2.0);
  for (const std::int64_t k : {1, 2, 3, 6, 9}) {
    PolicyState state;
    CHECK(largest_difference(sticky_strengths(scores, 1, sticky(k, 0.0), state), top_k_strengths(scores, k, 1.0)) <
          1e-6);
  }
}

TEST_CASE("a sequence is decided by the mean scores of its first tokens, the base until then") {
  const Normalization plain{at::zeros({2}), at::ones({2})};
  const Router router(plain, {{at::tensor({1.0f, 0.0f}), 0.0}, {at::tensor({0.0f, 1.0f}), 0.0}},
                      {"top_k", 1, 1.0, "sequence", 2.0, 4}, 0.0);
  // The first row is left out, and what comes after the fourth changes nothing.
  const at::Tensor h = scores_of({{99, 0}, {0, 9}, {3, 0}, {3, 0}, {0, 99}, {0, 99}});
  const Batch batch = Batch::whole(at::zeros({1, 6}, at::kLong));
  CHECK(strongest(router.strengths(h, batch)) == std::vector<std::int64_t>{0, 0, 0, 0, 2, 2});
  const Batch shorter = Batch::whole(at::zeros({1, 4}, at::kLong));
  CHECK(strongest(router.strengths(h.narrow(0, 0, 4), shorter)) == std::vector<std::int64_t>{0, 0, 0, 0});
}

TEST_CASE("under every policy a whole text gets the strengths that it gets token by token, and in chunks") {
  const Tiny tiny;
  const auto ids = tokens("text", 40);
  for (const Routing& routing : kPolicies) {
    INFO(routing.policy);
    const auto composition = tiny.compose(kExperts, routing, 0.2);
    const at::Tensor expected = whole_strengths(*composition, ids);
    CHECK(largest_difference(expected.sum(1), at::ones({40})) < 1e-6);
    for (const std::int64_t chunk : {1, 3, 40}) {
      Session session(*composition, {chunk, 0, {}});
      session.append(ids);
      (void)session.logits();
      CHECK(largest_difference(session_strengths(session), expected) < 1e-4);
    }
  }
}

TEST_CASE("under every policy a sequence cut back or forked is routed as if it had never been longer") {
  const Tiny tiny;
  const auto ids = tokens("text", 30), other = tokens("other", 10);
  for (const Routing& routing : kPolicies) {
    const auto composition = tiny.compose(kExperts, routing, 0.2);
    Session session(*composition, {4, 0, {}});
    session.append(ids);
    (void)session.logits();
    for (const std::size_t length : {1u, 3u, 6u, 7u, 8u, 19u, 29u}) {
      INFO(routing.policy << " cut back to " << length);
      Session copy = session.fork();
      copy.truncate(length);
      copy.append(other);
      (void)copy.logits();
      std::vector<std::int32_t> text(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(length));
      text.insert(text.end(), other.begin(), other.end());
      CHECK(largest_difference(session_strengths(copy), whole_strengths(*composition, text)) < 1e-4);
    }
    CHECK(largest_difference(session_strengths(session), whole_strengths(*composition, ids)) < 1e-4);
  }
}

// Of one sequence whose rows come in chunks.
struct ChunkedSequence {
  const Router& router;
  Sequence sequence = Sequence();
  std::vector<at::Tensor> strengths = {};

  // Rows up to `end`, `chunk` at a time.
  void go_on(const at::Tensor& h_TC, std::int64_t end, std::int64_t chunk) {
    for (std::int64_t at = sequence.length(); at < end; at += chunk) {
      const std::int64_t count = std::min(chunk, end - at);
      sequence.h.append(h_TC.narrow(0, at, count));
      strengths.push_back(router.strengths(h_TC.narrow(0, at, count), {{}, {{0, count, at, &sequence}}}));
    }
  }
};

TEST_CASE(
    "averaged strengths are the same bits in any chunks, after a cut, in a fork, and where nothing is remembered") {
  const at::Tensor h_TC = normal("h", {60, 8}, 1.0);
  std::vector<Row> rows;
  for (std::int64_t i = 0; i < 5; ++i) rows.push_back({normal("row" + std::to_string(i), {8}, 1.0), 0.0});
  for (const char* policy : {"token", "sticky"}) {
    const Router router({at::zeros({8}), at::ones({8})}, rows, {"top_k", 2, 1.0, policy, 0.3, 32, 5}, 0.2);
    const at::Tensor whole_TE = router.strengths(h_TC, Batch::whole(at::zeros({1, 60}, at::kLong)));
    for (const std::int64_t chunk : {1, 3, 7, 40}) {
      CAPTURE(policy, chunk);
      ChunkedSequence one{router};
      one.go_on(h_TC, 30, chunk);
      one.sequence.policy.scored = 0;
      one.go_on(h_TC, 50, chunk);
      CHECK(at::equal(at::cat(one.strengths), whole_TE.narrow(0, 0, 50)));
      for (const std::int64_t cut : {1, 2, 4, 20, 50}) {
        ChunkedSequence copy{router, one.sequence.fork()};
        copy.sequence.truncate(cut);
        copy.go_on(h_TC, 60, chunk);
        CHECK(at::equal(at::cat(copy.strengths), whole_TE.narrow(0, cut, 60 - cut)));
      }
    }
  }
}

TEST_CASE("scores of rows that a cut took away are not those of the rows that came instead") {
  const at::Tensor h_TC = normal("h", {31, 8}, 1.0), other_TC = normal("other", {31, 8}, 1.0);
  const Router router({at::zeros({8}), at::ones({8})}, {{normal("row", {8}, 1.0), 0.0}},
                      {"softmax", 2, 1.0, "token", 2.0, 32, 5}, 0.0);
  ChunkedSequence cut{router}, fresh{router};
  cut.go_on(h_TC, 30, 30);
  cut.sequence.truncate(0);
  for (ChunkedSequence* one : {&cut, &fresh}) { // rows that were given their strengths
    one->sequence.h.append(other_TC.narrow(0, 0, 30));
    one->go_on(other_TC, 31, 1);
  }
  CHECK(at::equal(cut.strengths.back(), fresh.strengths.back()));
}

TEST_CASE("a sticky sequence changes its experts less often than the policy token does") {
  const Tiny tiny;
  const auto ids = tokens("text", 100);
  const auto changes = [&](const Routing& routing) {
    const at::Tensor chosen = whole_strengths(*tiny.compose(kExperts, routing, 0.2), ids).ne(0);
    return chosen.narrow(0, 2, 98).ne(chosen.narrow(0, 1, 98)).any(1).sum().item<std::int64_t>();
  };
  const std::int64_t token = changes({"top_k", 2, 1.0, "token"}), kept = changes(sticky(2, 1.0));
  CHECK(kept < token / 2);
}

TEST_CASE("of the kept that are equally bad the higher slot gives way") {
  PolicyState state;
  (void)sticky_strengths(scores_of({{0, 1, 1, -5}, {0, 1, 1, 9}}), 1, sticky(2, 0.5), state);
  CHECK(state.kept.back().slots == std::vector<std::int64_t>{1, 3});
}

} // namespace
} // namespace tenon::test
