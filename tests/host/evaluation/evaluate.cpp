#include "host/evaluation/evaluate.hpp"

#include "host/evaluation/arms.hpp"
#include "host/evaluation/report.hpp"
#include "tests/support/tiny_model.hpp"

#include <catch2/catch.hpp>

namespace tenon::test {
namespace {

const std::vector<ExpertKind> kExperts = {causal("one"), token("two"), recurrent("three")};

Shard shard_of(const Tiny& tiny, const std::string& name, std::size_t count) {
  const std::vector<std::vector<std::int32_t>> documents = {tokens(name, count)};
  const auto path = tiny.scratch.path() / (name + ".tokens");
  write_shard(path, documents, tiny.model->tokenizer().vocab_size(), tiny.model->tokenizer().digest());
  return Shard::open(path);
}

EvaluationOptions options_of(std::int64_t length) {
  EvaluationOptions options;
  options.sequence_length = length;
  return options;
}

// The mean over blocks of what the forward path says, computed without any of the evaluation's own arithmetic.
double by_forward(Composition& composition, const Shard& shard, std::size_t length) {
  double sum = 0;
  for (std::size_t i = 0; i < shard.block_count(length); ++i) {
    const auto block = shard.block(i, length);
    const at::Tensor ids = tensor_of({block.begin(), block.end()});
    const at::Tensor log_p = composition.forward(Batch::whole(ids.unsqueeze(0))).to(at::kDouble).log_softmax(1);
    const auto last = static_cast<std::int64_t>(length) - 1;
    sum -= log_p.narrow(0, 0, last).gather(1, ids.narrow(0, 1, last).unsqueeze(1)).mean().item<double>();
  }
  return sum / static_cast<double>(shard.block_count(length));
}

TEST_CASE("mixing outputs that are there gives what the merge gives, in every arm") {
  const Tiny tiny;
  for (const std::string strengths : {"softmax", "top_k"}) {
    const auto composition = tiny.compose(kExperts, {strengths, 2, 0.7, "token"}, 0.2);
    const Batch batch = Batch::whole(at::stack({tensor_of(tokens("a", 24)), tensor_of(tokens("b", 24))}));
    const at::Tensor h_NC = tiny.model->trunk().forward(batch);
    const auto outputs = dense_outputs(composition->experts(), h_NC, batch);
    const auto arms = make_arms(*composition, h_NC, batch, {});
    CHECK(arms.size() == 2 + 3 + 1 + 1 + 3);
    for (const Arm& arm : arms)
      for (const at::Tensor& w_NE : arm.strengths_NE) {
        CHECK(largest_difference(w_NE.sum(1), at::ones({48})) < 1e-6);
        CHECK(w_NE[0][0].item<float>() == 1.0f); // position 0 takes the base
        CHECK(w_NE[24][0].item<float>() == 1.0f);
        CHECK(largest_difference(mix(w_NE, outputs), composition->middle(batch, &w_NE)) < 1e-5);
      }
  }
}

TEST_CASE("the work said to be skipped is the work the merge skips") {
  const Tiny tiny;
  const auto composition = tiny.compose(kExperts, {"top_k", 1, 1.0, "token"});
  const Batch batch = Batch::whole(at::stack({tensor_of(tokens("a", 24)), tensor_of(tokens("b", 24))}));
  (void)composition->middle(batch);
  const Work said = sparse_work(composition->last_strengths(), composition->experts(), batch);
  CHECK(said.run_rows == composition->experts().work.run_rows);
  CHECK(said.dense_rows == composition->experts().work.dense_rows);
  CHECK(said.skipped() > 0);
}

TEST_CASE("cross-entropy does not depend on how many logits are made at once") {
  const Tiny tiny;
  const Batch batch = Batch::whole(at::stack({tensor_of(tokens("a", 24)), tensor_of(tokens("b", 24))}));
  const at::Tensor m_NC = tiny.model->trunk().forward(batch);
  const at::Tensor whole = next_token_nll(tiny.model->head(), m_NC, batch, 1000);
  CHECK(whole.sizes() == at::IntArrayRef({2, 23}));
  for (const std::int64_t chunk : {1, 7, 46})
    CHECK(largest_difference(next_token_nll(tiny.model->head(), m_NC, batch, chunk), whole) < 1e-5);
}

TEST_CASE("scores are those of the forward path, arm by arm") {
  const Tiny tiny;
  const Routing routing{"top_k", 2, 1.0, "token"};
  const auto composition = tiny.compose(kExperts, routing, 0.2);
  const Shard text = shard_of(tiny, "text", 16 * 9 + 5);
  const Evaluation out = evaluate(*composition, {{"text", "", text}}, options_of(16));
  const CorpusScore& score = out.corpora.at(0);
  CHECK(score.blocks == 9);
  CHECK(score.tokens == 9 * 15);
  CHECK(score.arm("composed").nll.mean == Approx(by_forward(*composition, text, 16)).epsilon(1e-5));
  CHECK(score.arm("base").nll.mean == Approx(by_forward(*tiny.compose({}), text, 16)).epsilon(1e-5));
  CHECK(score.arm("base").versus_base.mean == 0.0);
  // Removing is never having had it: the others' rows and the prior stay.
  CHECK(score.arm("without:two").nll.mean ==
        Approx(by_forward(*tiny.compose({causal("one"), recurrent("three")}, routing, 0.2), text, 16)).epsilon(1e-5));
  for (const char* arm : {"alone:one", "alone:two", "alone:three", "uniform", "random", "without:one", "without:three"})
    CHECK(score.arm(arm).nll.low < score.arm(arm).nll.mean);
  CHECK(out.pooled_arm("uniform").nll.mean == Approx(score.arm("uniform").nll.mean));
}

TEST_CASE("an evaluation gives the same numbers twice, and blocks asked for are spread over the text") {
  const Tiny tiny;
  const auto composition = tiny.compose(kExperts);
  const std::vector<EvaluationCorpus> corpora = {{"text", "", shard_of(tiny, "text", 16 * 40)}};
  EvaluationOptions options = options_of(16);
  options.blocks = 10;
  std::int64_t done = 0;
  options.progress = [&](std::int64_t now, std::int64_t total) {
    CHECK((now > done && total == 10));
    done = now;
  };
  const Evaluation one = evaluate(*composition, corpora, options),
                   two = evaluate(*composition, corpora, options = options_of(16));
  CHECK(one.corpora[0].blocks == 10);
  CHECK(two.corpora[0].blocks == 40);
  CHECK(one.corpora[0].arm("base").block_nll[1] == Approx(two.corpora[0].arm("base").block_nll[4]));
  CHECK(to_json(two) == to_json(evaluate(*composition, corpora, options)));
  options.seed = 1;
  CHECK(to_json(two) != to_json(evaluate(*composition, corpora, options)));
}

TEST_CASE("loads are shares of positions, the first of a block left out") {
  const Tiny tiny;
  // A prior of a thousand: the base takes everything.
  const auto composition = tiny.compose(kExperts, {"top_k", 2, 1.0, "token"}, 1000.0);
  const Evaluation out = evaluate(*composition, {{"text", "", shard_of(tiny, "text", 64)}}, options_of(16));
  double strengths = 0, shares = 0;
  for (const Load& load : out.corpora[0].loads) strengths += load.mean_strength, shares += load.share_strongest;
  CHECK(strengths == Approx(1.0));
  CHECK(shares == Approx(1.0));
  CHECK(out.corpora[0].loads[0].share_strongest == 1.0);
}

TEST_CASE("an untrained expert fails the check") {
  const Tiny tiny;
  std::vector<ExpertPackage> packages = tiny_experts(*tiny.model, {token("legal")});
  for (const ExpertParameter& parameter : packages[1].expert->parameters()) // at birth it says what the base says
    if (parameter.name == "out.weight") packages[1].expert->bind(parameter.name, at::zeros(parameter.tensor.sizes()));
  packages[1].expert->prepare(TENON_INFERENCE);
  Composition composition(tiny.model, packages, {}, 0.0, {});
  const Evaluation out = evaluate(
      composition, {{"law", "legal", shard_of(tiny, "law", 200)}, {"news", "general", shard_of(tiny, "news", 200)}},
      options_of(16));
  const std::vector<EvaluationVerdict> verdicts = judge(out);
  const auto verdict = [&](const std::string& rule) {
    return *std::find_if(verdicts.begin(), verdicts.end(),
                         [&](const EvaluationVerdict& one) { return one.rule == rule; });
  };
  CHECK_FALSE(verdict("gain").passed);
  CHECK_FALSE(verdict("kept").passed);
  CHECK(verdict("general").passed);
  CHECK_FALSE(verdict("pooled").passed);
  CHECK_FALSE(to_json(out, &verdicts).at("passed").as_bool());
}

TEST_CASE("corpora that cannot be scored are refused, both sides named") {
  const Tiny tiny;
  const auto composition = tiny.compose({token("legal")});
  const Shard text = shard_of(tiny, "text", 40);
  const auto refused = [&](const EvaluationCorpus& corpus, std::int64_t length) {
    try {
      (void)evaluate(*composition, {corpus}, options_of(length));
    } catch (const Error& error) {
      return error;
    }
    return Error(Code::bug, "", "nothing was refused");
  };
  CHECK_THAT(refused({"text", "", text}, 41).what(), Catch::Contains("40") && Catch::Contains("41"));
  CHECK(refused({"text", "medical", text}, 16).code == Code::usage);
  CHECK(refused({"text", "", text}, 1).code == Code::usage);
  const auto path = tiny.scratch.path() / "foreign.tokens";
  const std::vector<std::vector<std::int32_t>> documents = {tokens("x", 64)};
  write_shard(path, documents, 260, "sha256:" + std::string(64, 'a'));
  CHECK(refused({"text", "", Shard::open(path)}, 16).code == Code::incompatible);
}

TEST_CASE("an expert at fault is masked in an evaluation, and named") {
  const Tiny tiny;
  std::vector<std::string> said;
  Composition::Options options;
  options.say = [&](const std::string& line) { said.push_back(line); };
  const auto composition = tiny.compose({token("legal"), faulty("bad", "nan")}, {}, 0.0, options);
  const Evaluation out = evaluate(*composition, {{"text", "", shard_of(tiny, "text", 64)}}, options_of(16));
  CHECK(said.size() == 1);
  CHECK(out.masked == std::vector<std::string>{"bad"});
  CHECK(out.corpora[0].arm("alone:bad").nll.mean == out.corpora[0].arm("base").nll.mean);
}

} // namespace
} // namespace tenon::test
