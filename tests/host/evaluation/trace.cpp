#include "host/evaluation/trace.hpp"

#include "tests/support/tiny_model.hpp"

#include <catch2/catch.hpp>

#include <cmath>
#include <cstring>

namespace tenon::test {
namespace {

const std::vector<ExpertKind> kExperts = {causal("one"), token("two"), recurrent("three"), window("four")};

EvaluationCorpus corpus(const Tiny& tiny, const std::string& name, std::vector<std::size_t> documents) {
  std::vector<std::vector<std::int32_t>> texts;
  for (const std::size_t count : documents) texts.push_back(tokens(name + std::to_string(count), count));
  const auto path = tiny.scratch.path() / (name + ".tokens");
  write_shard(path, texts, tiny.model->tokenizer().vocab_size(), tiny.model->tokenizer().digest());
  return {name, "", Shard::open(path)};
}

TraceOptions options_of(std::int64_t length, const Replay* replay = nullptr) {
  TraceOptions options;
  options.sequence_length = length;
  options.replay = replay;
  return options;
}

at::Tensor read(const SafetensorsFile& file, const std::string& name) {
  const TensorView& view = file.at(name);
  const auto type = view.dtype == Dtype::F32 ? at::kFloat : view.dtype == Dtype::I32 ? at::kInt : at::kLong;
  at::Tensor out = at::empty(std::vector<std::int64_t>(view.shape.begin(), view.shape.end()), type);
  std::memcpy(out.data_ptr(), view.bytes.data(), view.bytes.size());
  return out;
}

TEST_CASE("a trace holds scores, strengths, choices and losses of every token, as the forward path gives them") {
  const Tiny tiny;
  const auto composition = tiny.compose(kExperts, {"top_k", 2, 0.7, "token"}, 0.2);
  const EvaluationCorpus news = corpus(tiny, "news", {20, 30, 3});
  const auto path = tiny.scratch.path() / "t.safetensors";
  const TraceResult result = trace(*composition, {news}, path, options_of(16));
  const SafetensorsFile file(path);
  const at::Tensor scores = read(file, "news/scores"), strengths = read(file, "news/strengths"),
                   chosen = read(file, "news/chosen"), nll = read(file, "news/nll");
  CHECK(read(file, "news/documents").equal(at::tensor(std::vector<std::int64_t>{0, 20, 50, 53})));
  CHECK(chosen.sizes() == at::IntArrayRef({53, 2}));
  double sum = 0;
  for (const auto& [first, length] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{0, 16}, {16, 16}, {32, 16}, {48, 5}}) {
    const auto ids = news.tokens.tokens().subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(length));
    const at::Tensor tokens_T = tensor_of({ids.begin(), ids.end()});
    CHECK(read(file, "news/tokens").narrow(0, first, length).equal(tokens_T.to(at::kInt)));
    const Batch batch = Batch::whole(tokens_T.unsqueeze(0));
    const at::Tensor log_p = composition->forward(batch).log_softmax(1);
    const at::Tensor expected =
        -log_p.narrow(0, 0, length - 1).gather(1, tokens_T.narrow(0, 1, length - 1).unsqueeze(1)).squeeze(1);
    CHECK(largest_difference(nll.narrow(0, first, length - 1), expected) < 1e-4);
    CHECK(std::isnan(nll[first + length - 1].item<float>()));
    CHECK(largest_difference(strengths.narrow(0, first, length), composition->last_strengths()) < 1e-5);
    CHECK(largest_difference(scores.narrow(0, first, length),
                             composition->router().scores(tiny.model->trunk().forward(batch))) < 1e-4);
    CHECK(chosen[first][0].item<std::int32_t>() == 0); // the base alone
    CHECK(chosen[first][1].item<std::int32_t>() == -1);
    sum += expected.sum().item<double>();
  }
  CHECK(result.corpora.at(0).predictions == 49);
  CHECK(result.corpora.at(0).nll == Approx(sum / 49).epsilon(1e-4));
  CHECK(chosen.select(1, 0).equal(strengths.argmax(1).to(at::kInt)));
  CHECK(result.work.at(1).skipped() > 0);
}

TEST_CASE("replaying a trace reproduces its losses, whatever the router now says") {
  const Tiny tiny;
  const std::vector<EvaluationCorpus> corpora = {corpus(tiny, "news", {50}), corpus(tiny, "law", {33})};
  const auto first = tiny.scratch.path() / "first", again = tiny.scratch.path() / "again";
  const auto composition = tiny.compose(kExperts, {"top_k", 2, 0.7, "sticky", 0.5}, 0.2),
             other = tiny.compose(kExperts, {"softmax", 2, 3.0, "token"}, -1.0);
  const TraceResult one = trace(*composition, corpora, first, options_of(16));
  const Replay replay(first, *other, corpora, 16);
  const TraceResult two = trace(*other, corpora, again, options_of(16, &replay));
  const SafetensorsFile before(first), after(again);
  for (const char* name : {"news", "law"}) {
    const std::string prefix = std::string(name) + "/";
    CHECK(read(before, prefix + "strengths").equal(read(after, prefix + "strengths")));
    CHECK_FALSE(read(before, prefix + "scores").equal(read(after, prefix + "scores")));
    const at::Tensor nll = read(before, prefix + "nll"), same = read(after, prefix + "nll");
    CHECK(largest_difference(nll.nan_to_num(), same.nan_to_num()) < 1e-5);
  }
  for (std::size_t i = 0; i < corpora.size(); ++i)
    CHECK(one.corpora[i].nll == Approx(two.corpora[i].nll).epsilon(1e-5));
  CHECK(one.work[1].run_rows == two.work[1].run_rows);
}

TEST_CASE("an evaluation that replays a trace scores its strengths beside the router's") {
  const Tiny tiny;
  const std::vector<EvaluationCorpus> corpora = {corpus(tiny, "news", {85})};
  const auto path = tiny.scratch.path() / "t";
  const auto composition = tiny.compose(kExperts, {"top_k", 2, 1.0, "sequence", 2.0, 4}, 0.2),
             other = tiny.compose(kExperts, {"top_k", 1, 1.0, "token"}, 0.2);
  EvaluationOptions options;
  options.sequence_length = 16;
  const double composed = evaluate(*composition, {corpora, {}, {}}, options).corpora[0].arm("composed").nll.mean;
  (void)trace(*composition, corpora, path, options_of(16));
  const Replay replay(path, *other, corpora, 16);
  options.replay = &replay;
  const CorpusScore score = evaluate(*other, {corpora, {}, {}}, options).corpora[0];
  CHECK(score.arm("replayed").nll.mean == Approx(composed).epsilon(1e-5));
  CHECK(score.arm("replayed").nll.mean != Approx(score.arm("composed").nll.mean).epsilon(1e-5));
}

TEST_CASE("a trace of another composition, text or block length is refused with both sides") {
  const Tiny tiny;
  const EvaluationCorpus news = corpus(tiny, "news", {50}), longer = {"news", "", corpus(tiny, "other", {51}).tokens};
  const auto path = tiny.scratch.path() / "t";
  const auto composition = tiny.compose(kExperts), other = tiny.compose({causal("one"), token("five")});
  (void)trace(*composition, {news}, path, options_of(16));
  const auto refused = [&](const Composition& with, const EvaluationCorpus& text, std::int64_t length) {
    try {
      (void)Replay(path, with, {text}, length);
    } catch (const Error& error) {
      CHECK(error.code == Code::incompatible);
      return error.message;
    }
    return std::string("nothing was refused");
  };
  CHECK_THAT(refused(*other, news, 16), Catch::Contains("two 1.0.0") && Catch::Contains("five 1.0.0"));
  CHECK_THAT(refused(*composition, longer, 16), Catch::Contains("50 tokens") && Catch::Contains("has 51"));
  CHECK_THAT(refused(*composition, {"law", "", news.tokens}, 16), Catch::Contains("news") && Catch::Contains("law"));
  CHECK_THAT(refused(*composition, news, 32), Catch::Contains("16") && Catch::Contains("32"));
}

TEST_CASE("what a trace records of a masked expert is the base's share, as it was applied") {
  const Tiny tiny;
  const auto composition = tiny.compose({faulty("bad", "nan")}, {"softmax", 2, 1.0, "token"});
  const auto path = tiny.scratch.path() / "t";
  const TraceResult result = trace(*composition, {corpus(tiny, "news", {40})}, path, options_of(16));
  CHECK(result.masked == std::vector<std::string>{"bad"});
  CHECK(read(SafetensorsFile(path), "news/strengths").select(1, 1).eq(0).all().item<bool>());
}

TEST_CASE("an interrupted trace leaves no file") {
  const Tiny tiny;
  const auto composition = tiny.compose({});
  TraceOptions options = options_of(16);
  int calls = 0;
  options.interrupted = [&] { return ++calls > 1; };
  const auto path = tiny.scratch.path() / "out" / "t";
  try {
    (void)trace(*composition, {corpus(tiny, "news", {2100})}, path, options);
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code == Code::interrupted);
  }
  CHECK(std::filesystem::is_empty(path.parent_path()));
}

} // namespace
} // namespace tenon::test
