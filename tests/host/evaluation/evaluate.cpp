#include "host/evaluation/evaluate.hpp"

#include "host/evaluation/arms.hpp"
#include "host/evaluation/results.hpp"
#include "host/formats/utf8.hpp"
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
  const auto composition =
      tiny.compose({causal("one"), token("two"), recurrent("three"), window("four")}, {"top_k", 1, 1.0, "token"});
  const Batch batch = Batch::whole(at::stack({tensor_of(tokens("a", 24)), tensor_of(tokens("b", 24))}));
  (void)composition->middle(batch);
  const Work said = sparse_work(composition->last_strengths(), composition->experts(), batch);
  CHECK(said.run_rows == composition->experts().total_work().run_rows);
  CHECK(said.dense_rows == composition->experts().total_work().dense_rows);
  CHECK(said.skipped() > 0);
}

TEST_CASE("scores are those of the forward path, arm by arm") {
  const Tiny tiny;
  const Routing routing{"top_k", 2, 1.0, "token"};
  const auto composition = tiny.compose(kExperts, routing, 0.2);
  const Shard text = shard_of(tiny, "text", 16 * 9 + 5);
  const Evaluation out = evaluate(*composition, {{{"text", "", text}}, {}, {}}, options_of(16));
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
  const EvaluationInput corpora = {{{"text", "", shard_of(tiny, "text", 16 * 40)}}, {}, {}};
  EvaluationOptions options = options_of(16);
  options.blocks = 10;
  std::int64_t done = 0;
  options.progress = [&](const std::string& what, std::int64_t now, std::int64_t total) {
    CHECK((what == "blocks" && now > done && total == 10));
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
  const Evaluation out = evaluate(*composition, {{{"text", "", shard_of(tiny, "text", 64)}}, {}, {}}, options_of(16));
  double strengths = 0, shares = 0;
  for (const Load& load : out.corpora[0].loads) strengths += load.mean_strength, shares += load.share_strongest;
  CHECK(strengths == Approx(1.0));
  CHECK(shares == Approx(1.0));
  CHECK(out.corpora[0].loads[0].share_strongest == 1.0);
}

TEST_CASE("of dialogues, only predictions of what counts are scored, in blocks of their own length") {
  const Tiny tiny;
  const auto composition = tiny.compose(kExperts);
  std::vector<MaskedDocument> documents;
  for (const char* name : {"a", "b"}) documents.push_back({tokens(name, 16), std::vector<bool>(16, false)});
  documents[0].counts[5] = documents[0].counts[15] = documents[1].counts[9] = true;
  const auto path = tiny.scratch.path() / "talks.tokens";
  write_packed_shard(path, documents, 16, tiny.model->tokenizer().vocab_size(), tiny.model->tokenizer().digest());
  const EvaluationInput talks{{{"talks", "", Shard::open(path)}}, {}, {}};
  const Evaluation out = evaluate(*composition, talks, options_of(16));
  CHECK(out.corpora[0].tokens == 3);
  double sum = 0;
  for (const MaskedDocument& document : documents) {
    const at::Tensor ids = tensor_of(document.tokens);
    const at::Tensor log_p = composition->forward(Batch::whole(ids.unsqueeze(0))).to(at::kDouble).log_softmax(1);
    double block = 0;
    for (std::size_t t = 1; t < 16; ++t)
      if (document.counts[t]) block -= log_p[static_cast<std::int64_t>(t) - 1][document.tokens[t]].item<double>();
    sum += block / static_cast<double>(std::count(document.counts.begin(), document.counts.end(), true));
  }
  CHECK(out.corpora[0].arm("composed").nll.mean == Approx(sum / 2).epsilon(1e-6));
  CHECK_THROWS_WITH(evaluate(*composition, talks, options_of(8)), Catch::Contains("--sequence-length 16"));
}

TEST_CASE("an untrained expert fails the check") {
  const Tiny tiny;
  std::vector<ExpertPackage> packages = tiny_experts(*tiny.model, {token("legal")});
  for (const ExpertParameter& parameter : packages[1].expert->parameters()) // at birth it says what the base says
    if (parameter.name == "out.weight") packages[1].expert->bind(parameter.name, at::zeros(parameter.tensor.sizes()));
  packages[1].expert->prepare(TENON_INFERENCE);
  Composition composition(tiny.model, packages, {}, 0.0, {});
  const std::vector<EvaluationCorpus> corpora = {{"law", "legal", shard_of(tiny, "law", 200)},
                                                 {"news", "general", shard_of(tiny, "news", 200)}};
  const Evaluation out = evaluate(composition, {corpora, {}, {}}, options_of(16));
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
      (void)evaluate(*composition, {{corpus}, {}, {}}, options_of(length));
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
  const Evaluation out = evaluate(*composition, {{{"text", "", shard_of(tiny, "text", 64)}}, {}, {}}, options_of(16));
  CHECK(said.size() == 1);
  CHECK(out.masked == std::vector<std::string>{"bad"});
  CHECK(out.corpora[0].arm("alone:bad").nll.mean == out.corpora[0].arm("base").nll.mean);
}

double mean_minimum(const std::vector<const ArmScore*>& arms) {
  double sum = 0;
  for (std::size_t block = 0; block < arms[0]->block_nll.size(); ++block) {
    double least = arms[0]->block_nll[block];
    for (const ArmScore* arm : arms) least = std::min(least, arm->block_nll[block]);
    sum += least;
  }
  return sum / static_cast<double>(arms[0]->block_nll.size());
}

TEST_CASE("oracles take the best of base and experts in hindsight, and regret is composed minus that") {
  const Tiny tiny;
  const auto composition = tiny.compose(kExperts, {"top_k", 2, 1.0, "token"}, 0.2);
  const std::vector<EvaluationCorpus> corpora = {{"a", "", shard_of(tiny, "a", 16 * 6)},
                                                 {"b", "", shard_of(tiny, "b", 16 * 5)}};
  const Evaluation out = evaluate(*composition, {corpora, {}, {}}, options_of(16));
  for (const CorpusScore& score : out.corpora) {
    const std::vector<const ArmScore*> singles = {&score.arm("base"), &score.arm("alone:one"), &score.arm("alone:two"),
                                                  &score.arm("alone:three")};
    for (const ArmScore* one : singles) CHECK(score.arm("oracle:corpus").nll.mean <= one->nll.mean);
    CHECK(score.arm("oracle:corpus").nll.mean == score.arm(score.corpus_oracle).nll.mean);
    CHECK(score.arm("oracle:token").nll.mean <= mean_minimum(singles)); // a finer choice than one a block
    const double composed = score.arm("composed").nll.mean;
    CHECK(score.regret->corpus.mean == Approx(composed - score.arm("oracle:corpus").nll.mean));
    CHECK(score.regret->token.mean == Approx(composed - score.arm("oracle:token").nll.mean));
    CHECK(score.regret->token.low < score.regret->token.mean);
  }
  for (const char* other : {"alone:one", "alone:two", "alone:three"})
    CHECK(out.pooled_arm(out.best_single).nll.mean <= out.pooled_arm(other).nll.mean);
}

TEST_CASE("with blocks of two tokens the token oracle is the best of each block") {
  const Tiny tiny;
  const auto composition = tiny.compose(kExperts);
  // The one prediction is position 0's, which is the base's in every arm.
  const Evaluation out = evaluate(*composition, {{{"a", "", shard_of(tiny, "a", 40)}}, {}, {}}, options_of(2));
  CHECK(out.corpora[0].arm("oracle:token").nll.mean == out.corpora[0].arm("base").nll.mean);
  CHECK(out.corpora[0].arm("alone:one").nll.mean == out.corpora[0].arm("base").nll.mean);
}

TEST_CASE("an expert that is only compared with is scored alone, and changes nobody's scores") {
  const Tiny tiny;
  const Shard text = shard_of(tiny, "text", 16 * 9);
  const auto composition = tiny.compose({causal("one"), token("two")});
  const VersusExpert rival{"rival", tiny_expert(*tiny.model, recurrent("three"))};
  const Evaluation with = evaluate(*composition, {{{"text", "", text}}, {}, {rival}}, options_of(16)),
                   never = evaluate(*composition, {{{"text", "", text}}, {}, {}}, options_of(16)),
                   inside = evaluate(*tiny.compose(kExperts), {{{"text", "", text}}, {}, {}}, options_of(16));
  CHECK(with.corpora[0].arm("alone:rival").nll.mean == Approx(inside.corpora[0].arm("alone:three").nll.mean));
  for (const ArmScore& arm : never.corpora[0].arms)
    CHECK(with.corpora[0].arm(arm.arm).nll.mean == Approx(arm.nll.mean).epsilon(1e-6));
  CHECK_FALSE(with.expert("rival")->composed);
  CHECK(with.corpora[0].loads.size() == 3);
  CHECK_THROWS_AS(evaluate(*composition, {{{"text", "", text}}, {}, {{"two", rival.package}}}, options_of(16)), Error);
}

TEST_CASE("a faulty expert that is only compared with ends the evaluation") {
  const Tiny tiny;
  const auto composition = tiny.compose({token("two")});
  const VersusExpert rival{"rival", tiny_expert(*tiny.model, faulty("bad", "nan"))};
  CHECK_THROWS_AS(evaluate(*composition, {{{"text", "", shard_of(tiny, "a", 64)}}, {}, {rival}}, options_of(16)),
                  Error);
}

TEST_CASE("experts on the base and experts that replace it stand in two tables") {
  const Tiny tiny;
  const auto composition = tiny.compose(kExperts);
  const Evaluation out = evaluate(*composition, {{{"text", "", shard_of(tiny, "a", 64)}}, {}, {}}, options_of(16));
  CHECK(out.expert("one")->form == ExpertForm::replacing);
  CHECK(out.expert("two")->form == ExpertForm::on_base);
  std::vector<std::vector<std::string>> rows;
  for (const ResultTable& table : tables(out)) {
    if (table.title.rfind("Experts", 0) != 0) continue;
    rows.emplace_back();
    for (const auto& row : table.rows) rows.back().push_back(row[0]);
  }
  CHECK(rows == std::vector<std::vector<std::string>>{{"two", "three"}, {"one"}});
}

TEST_CASE("a passage holds its text, and the strengths and losses of each prediction") {
  const Tiny tiny;
  const auto composition = tiny.compose(kExperts);
  EvaluationOptions options = options_of(16);
  options.passages = 2;
  const Shard text = shard_of(tiny, "text", 16 * 9);
  const Evaluation out = evaluate(*composition, {{{"text", "", text}}, {}, {}}, options);
  REQUIRE(out.corpora[0].passages.size() == 2);
  for (const Passage& passage : out.corpora[0].passages) {
    std::string joined;
    for (const std::string& piece : passage.pieces) joined += piece;
    CHECK(joined ==
          utf8_replaced(tiny.model->tokenizer().decode(text.block(static_cast<std::size_t>(passage.block), 16))));
    REQUIRE(passage.strengths.size() == 15);
    double sum = 0;
    for (const double nll : passage.nll_composed) sum += nll;
    const auto block = static_cast<std::size_t>(passage.block);
    CHECK(sum / 15 == Approx(out.corpora[0].arm("composed").block_nll[block]));
    for (const auto& strengths : passage.strengths) {
      float all = 0;
      for (const float w : strengths) all += w;
      CHECK(all == Approx(1.0f));
    }
  }
}

} // namespace
} // namespace tenon::test
