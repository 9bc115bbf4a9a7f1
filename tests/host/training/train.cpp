#include "host/training/train.hpp"

#include "host/formats/corpus.hpp"
#include "host/training/checkpoint.hpp"
#include "host/training/evidence.hpp"
#include "host/training/run_folder.hpp"
#include "host/training/trainer.hpp"
#include "registry/base/error.hpp"
#include "registry/base/sha256.hpp"
#include "tests/support/tiny_model.hpp"
#include "tests/support/tiny_plan.hpp"

#include <ATen/ATen.h>
#include <unistd.h>

#include <catch2/catch.hpp>

namespace tenon {
namespace {

namespace fs = std::filesystem;

const test::TinyRegistry& tiny() {
  static const test::TinyRegistry one;
  return one;
}

TrainingPlan plan_with(const std::vector<std::string>& assignments) {
  return test::tiny_plan(tiny(), "tenon.low_rank", assignments, {"rank=2"});
}

struct Training {
  fs::path folder;
  std::vector<std::string> assignments = {};
  std::string name = "sums";
  std::int64_t halt_after = 0;
  TrainingHooks hooks = {};

  TrainingResult operator()() const {
    const Loader loader = tiny().loader();
    return train_expert(loader, {name, plan_with(assignments), folder, {}, halt_after}, hooks);
  }
};

Error error_of(const Training& run) {
  try {
    run();
  } catch (const Error& error) {
    return error;
  }
  FAIL("trained, where an error was due");
  return Error(Code::bug, "", "");
}

std::vector<std::string> lines_of(const fs::path& path) {
  std::vector<std::string> lines;
  const std::string text = read_file(path);
  for (std::size_t start = 0; start < text.size();) {
    const std::size_t end = text.find('\n', start);
    lines.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return lines;
}

std::int64_t step_of(const fs::path& folder) { return peek_checkpoint(folder / ".run/checkpoint.safetensors")->step; }

} // namespace

TEST_CASE("training lowers held-out perplexity, and its folder can be published, loaded and composed") {
  const Scratch scratch;
  const TrainingResult result = Training{scratch.path() / "sums", {"train.steps=60"}}();
  const json::value evidence = result.evidence;
  const JsonReader reader(evidence, "evidence");
  CHECK(reader.at("lower_than_base").at("alone").at("percent").number() > 10.0);
  CHECK(reader.at("lower_than_base").at("alone").at("interval95").at(0).number() > 0.0);
  CHECK(reader.at("perplexity").at("mixture").number() < reader.at("perplexity").at("base").number());
  CHECK(result.steps == 60);

  const Entry entry = tiny().registry.publish(draft_from_folder(scratch.path() / "sums"));
  const Loader loader = tiny().loader();
  const auto model = loader.model(tiny().registry.resolve(PackageRequest::parse("tiny"), Kind::model));
  const ExpertPackage base = loader.base(*model), expert = loader.expert(entry, *model, &base);
  REQUIRE(expert.row.has_value());
  CHECK(expert.row->r_C.size(0) == 32);
  CHECK(expert.manifest.contract.base_digest == model->contract().base_digest);
  CHECK(expert.manifest.profile.has_value());
  CHECK(expert.manifest.evidence.size() == 1);
  for (const WeightRecord& weight : expert.manifest.weights) // only what is its own
    CHECK((weight.source.rfind("base:", 0) == 0) == (weight.name.find(".weight") != std::string::npos));
  // Nothing of the trainer's machine goes out with it.
  CHECK(canonical_json(entry.manifest).find(tiny().path().string()) == std::string::npos);
}

TEST_CASE("twenty steps are ten, a stop, and ten more, bit for bit") {
  const Scratch scratch;
  const std::vector<std::string> how = {GENERATE("row.objective=domain", "row.objective=joint")};
  const Training straight{scratch.path() / "straight", how};
  straight();
  Training halted{scratch.path() / "halted", how};
  halted.halt_after = 10;
  const Error stop = error_of(halted);
  CHECK(stop.code == Code::interrupted);
  CHECK_THAT(stop.remedy, Catch::Contains("same command"));
  CHECK(step_of(halted.folder) == 10);
  CHECK_FALSE(fs::exists(halted.folder / "expert.json"));
  halted.halt_after = 0;
  CHECK(halted().steps == 10);
  for (const char* file :
       {"weights.safetensors", "row.safetensors", "profile.safetensors", ".run/checkpoint.safetensors"})
    CHECK(sha256_file(straight.folder / file) == sha256_file(halted.folder / file));
  CHECK(read_file(straight.folder / "expert.json") == read_file(halted.folder / "expert.json"));
}

TEST_CASE("a killed training goes on from its last checkpoint, and its metrics name each step once") {
  const Scratch scratch;
  Training run{scratch.path() / "sums"};
  run.halt_after = 10;
  error_of(run);
  // As if it had been killed at step 12: metrics beyond the checkpoint, the last line torn.
  write_file(run.folder / ".run/metrics.jsonl",
             read_file(run.folder / ".run/metrics.jsonl") + "{\"step\":11}\nnothing\n{\"step\":12}\n{\"st");
  write_file(run.folder / ".run/.checkpoint.safetensors.7.1.tmp", "half");
  run.halt_after = 0;
  run();
  std::vector<std::int64_t> steps;
  for (const std::string& line : lines_of(run.folder / ".run/metrics.jsonl"))
    steps.push_back(JsonReader(parse_json(line, "metrics"), "metrics").at("step").integer());
  REQUIRE(steps.size() == 20);
  for (std::size_t i = 0; i < steps.size(); ++i) CHECK(steps[i] == static_cast<std::int64_t>(i + 1));
  CHECK_FALSE(fs::exists(run.folder / ".run/.checkpoint.safetensors.7.1.tmp"));
}

TEST_CASE("Ctrl-C during a step saves the steps made") {
  const Scratch scratch;
  Training run{scratch.path() / "sums"};
  bool training = false;
  int asked = 0;
  run.hooks.begin = [&](const std::string& what, std::int64_t, const std::string&, std::int64_t) {
    training = what.rfind("training", 0) == 0;
  };
  run.hooks.stop = [&] { return training && ++asked == 3; };
  CHECK(exit_status(error_of(run).code) == 130);
  CHECK(step_of(run.folder) == 3);
}

TEST_CASE("a finished training has nothing left to do") {
  const Scratch scratch;
  const Training run{scratch.path() / "sums", {"train.steps=2"}};
  run();
  const std::string before = sha256_file(run.folder / "weights.safetensors");
  const TrainingResult again = run();
  CHECK(again.was_finished);
  CHECK(again.evidence.at("kind") == "held-out perplexity");
  CHECK(sha256_file(run.folder / "weights.safetensors") == before);
  // A file of the package is gone: it is written again from the checkpoint, to the same bytes.
  fs::remove(run.folder / "weights.safetensors");
  CHECK_FALSE(run().was_finished);
  CHECK(sha256_file(run.folder / "weights.safetensors") == before);
}

TEST_CASE("a folder with another training or anything else is refused, and left as it is") {
  const Scratch scratch;
  Training run{scratch.path() / "sums", {"train.steps=2"}};
  run();
  const std::string before = sha256_file(run.folder / "weights.safetensors"),
                    held_out = sha256_file(run.folder / ".run/held_out.tokens");
  run.assignments = {"train.steps=2", "data.seed=1"};
  CHECK_THAT(error_of(run).message, Catch::Contains("another"));
  CHECK(sha256_file(run.folder / ".run/held_out.tokens") == held_out);
  run.assignments = {"train.steps=2", "train.seed=1"};
  const Error other = error_of(run);
  CHECK(other.code == Code::usage);
  CHECK_THAT(other.message, Catch::Contains("another plan"));
  CHECK_THAT(other.remedy, Catch::Contains("--out"));
  CHECK(sha256_file(run.folder / "weights.safetensors") == before);
  write_file(scratch.path() / "mine/letter.txt", "dear");
  CHECK(error_of(Training{scratch.path() / "mine"}).code == Code::usage);
  CHECK(read_file(scratch.path() / "mine/letter.txt") == "dear");
}

TEST_CASE("seeds differ, and the same seed gives the same expert") {
  const Scratch scratch;
  const auto weights = [&](const std::string& name, const std::string& seed) {
    Training{scratch.path() / name, {"train.steps=3", seed}}();
    return sha256_file(scratch.path() / name / "weights.safetensors");
  };
  const std::string a = weights("a", "train.seed=1");
  CHECK(weights("b", "train.seed=1") == a);
  CHECK(weights("c", "train.seed=2") != a);
}

TEST_CASE("a loss that is not finite stops the training with status 6 and keeps the last good checkpoint") {
  const Scratch scratch;
  const Training run{scratch.path() / "sums", {"train.learning_rate=1e36", "train.warmup=0", "checkpoint_every=1"}};
  const Error error = error_of(run);
  CHECK(exit_status(error.code) == 6);
  CHECK_THAT(error.remedy, Catch::Contains("learning_rate"));
  const at::Tensor a = Weights::open(run.folder / ".run/checkpoint.safetensors", "", {}).at("row/r");
  CHECK(a.isfinite().all().item<bool>());
  CHECK_FALSE(fs::exists(run.folder / "expert.json"));
}

TEST_CASE("bfloat16, batches, accumulation and the other rows train too") {
  const Scratch scratch;
  int number = 0;
  for (const std::vector<std::string>& change :
       std::vector<std::vector<std::string>>{{"train.dtype=bfloat16"},
                                             {"train.batch=3", "train.accumulate=2"},
                                             {"row.objective=joint"},
                                             {"row.objective=ntp", "train.general_every=0"},
                                             {"streams.dtype=bfloat16"},
                                             {"evaluate_every=4"}}) {
    std::vector<std::string> assignments = {"train.steps=12"};
    assignments.insert(assignments.end(), change.begin(), change.end());
    const TrainingResult result = Training{scratch.path() / std::to_string(number++), assignments}();
    INFO(change.front());
    const json::value evidence = result.evidence;
    const JsonReader perplexity = JsonReader(evidence, "evidence").at("perplexity");
    CHECK(perplexity.at("alone").number() < perplexity.at("base").number());
  }
}

TEST_CASE("accumulated batches give the step of one large batch") {
  const Scratch scratch;
  std::vector<at::Tensor> rows;
  const auto weights = [&](const std::string& name, std::vector<std::string> how) {
    how.insert(how.end(), {"train.steps=2", "row.objective=joint"});
    Training{scratch.path() / name, how}();
    CHECK(Training{scratch.path() / name, how}().was_finished);
    rows.push_back(Weights::open(scratch.path() / name / ".run/checkpoint.safetensors", "", {}).at("m/row.r"));
    return Weights::open(scratch.path() / name / "weights.safetensors", "", {}).at("blocks.0.attention.q.b");
  };
  const at::Tensor large = weights("large", {"train.batch=4"}),
                   small = weights("small", {"train.batch=2", "train.accumulate=2"});
  CHECK(at::allclose(large, small, 1e-3, 1e-6));
  CHECK(at::allclose(rows[0], rows[1], 1e-3, 1e-6));
}

namespace {

// Dialogues whose questions are noise and whose answers are sums; the plan that trains on them.
std::vector<std::string> chat_plan(const fs::path& folder) {
  std::string lines;
  const RandomStream noise(5, "questions");
  for (std::uint64_t i = 0; i < 150; ++i) {
    std::string question;
    for (std::uint64_t k = 0; k < 12; ++k) question += static_cast<char>('a' + noise.below(12 * i + k, 26));
    const std::string answer = test::sums_text(8, i);
    lines += canonical_json(
                 json::object{{"messages", json::array{json::object{{"role", "user"}, {"content", question}},
                                                       json::object{{"role", "assistant"}, {"content", answer}}}}}) +
             "\n";
  }
  write_file(folder / "chats.jsonl", lines);
  return {"data.paths=[\"" + (folder / "chats.jsonl").string() + "\"]",
          "data.format=chat",
          "data.template=chatml",
          "data.sequence_length=96",
          "data.max_tokens=0",
          "data.held_out_blocks=8",
          "evaluate_blocks=4"};
}

} // namespace

TEST_CASE("training on dialogues learns the answers, and its loss is theirs alone") {
  const Scratch scratch, texts;
  std::vector<std::string> plan = chat_plan(texts.path());
  plan.insert(plan.end(), {"train.steps=40", "train.batch=2", "train.accumulate=2", "train.alone_share=1"});
  const Training run{scratch.path() / "sums", plan};
  const TrainingResult result = run();
  const json::value evidence = result.evidence;
  CHECK(JsonReader(evidence, "evidence").at("lower_than_base").at("alone").at("interval95").at(0).number() > 0.0);

  // The first step's loss, over: at birth the expert is the base.
  const Loader loader = tiny().loader();
  const auto model = loader.model(tiny().registry.resolve(PackageRequest::parse("tiny"), Kind::model));
  const ExpertPackage base = loader.base(*model);
  CorpusOptions options;
  options.sequence_length = 96, options.held_out_blocks = 8;
  options.chat = ChatTemplate::named("chatml");
  const Shard shard =
      prepare_corpus({texts.path() / "chats.jsonl"}, model->tokenizer(), options, tiny().cache() / "corpora").train;
  const json::value first = parse_json(lines_of(run.folder / ".run/metrics.jsonl").front(), "metrics");
  double sum = 0;
  std::int64_t count = 0;
  at::NoGradGuard no_grad;
  for (const json::value& number : first.at("blocks").as_array()) {
    const auto block = static_cast<std::size_t>(number.to_number<std::int64_t>());
    const auto ids = shard.block(block, 96);
    const at::Tensor tokens = at::tensor(std::vector<std::int64_t>(ids.begin(), ids.end()), at::kLong);
    const Batch batch = Batch::whole(tokens.unsqueeze(0));
    const auto spans = batch.spans([](Sequence& s) -> ModuleState& { return s.experts[0]; });
    const at::Tensor log_p =
        model->head().forward(base.expert->forward(model->trunk().forward(batch), {}, spans), batch).log_softmax(1);
    for (std::int64_t t = 1; t < 96; ++t) {
      if (!shard.counts(block * 96 + static_cast<std::size_t>(t))) continue;
      sum -= log_p[t - 1][tokens[t].item<std::int64_t>()].item<double>();
      ++count;
    }
  }
  CHECK(count > 0);
  CHECK(first.at("loss").to_number<double>() == Approx(sum / static_cast<double>(count)).epsilon(1e-4));
}

TEST_CASE("dialogues for a model without a chat template are refused with the templates there are") {
  const Scratch scratch, texts;
  std::vector<std::string> plan = chat_plan(texts.path());
  plan.push_back("data.template=\"\"");
  const Error error = error_of(Training{scratch.path() / "x", plan});
  CHECK(exit_status(error.code) == 4);
  CHECK_THAT(error.what(), Catch::Contains("chatml, llama3") && Catch::Contains("data.template=NAME"));
  CHECK_FALSE(fs::exists(scratch.path() / "x"));
}

TEST_CASE("an architecture nobody has is refused with the list of those there are") {
  const Scratch scratch;
  const Error error = error_of(Training{scratch.path() / "x", {"architecture=acme.magic"}});
  CHECK(error.code == Code::not_found);
  CHECK_THAT(error.message, Catch::Contains("acme.magic"));
  CHECK_THAT(error.message, Catch::Contains("tenon.low_rank"));
  CHECK_FALSE(fs::exists(scratch.path() / "x")); // nothing is left behind
}

TEST_CASE("a configuration against its schema is refused, field by field") {
  const Scratch scratch;
  for (const char* wrong : {"rank=0", "rank=\"many\"", "depth=3"}) {
    INFO(wrong);
    const Error error = error_of(Training{scratch.path() / "x", {wrong}});
    CHECK(error.code == Code::usage);
    CHECK_THAT(error.what(), Catch::Contains(std::string(wrong).substr(0, std::string(wrong).find('='))));
  }
}

TEST_CASE("text that is missing, empty, binary or too small is refused before anything is computed") {
  const Scratch scratch;
  write_file(scratch.path() / "empty.txt", "");
  write_file(scratch.path() / "binary.txt", std::string(5000, '\0'));
  write_file(scratch.path() / "small.txt", "a few words");
  for (const auto& [name, code] : std::vector<std::pair<std::string, Code>>{{"missing.txt", Code::not_found},
                                                                            {"empty.txt", Code::usage},
                                                                            {"binary.txt", Code::usage},
                                                                            {"small.txt", Code::usage}}) {
    INFO(name);
    const Error error =
        error_of(Training{scratch.path() / "x", {"data.paths=[\"" + (scratch.path() / name).string() + "\"]"}});
    CHECK(error.code == code);
    CHECK_FALSE(fs::exists(scratch.path() / "x/.run/checkpoint.safetensors"));
  }
}

TEST_CASE("a folder that may not be written is refused as the environment's fault") {
  const Scratch scratch;
  fs::permissions(scratch.path(), fs::perms::owner_read | fs::perms::owner_exec | fs::perms::others_exec);
  const bool root = geteuid() == 0;
  tiny(); // built as ourselves
  if (root) REQUIRE(seteuid(65534) == 0);
  Error error(Code::bug, "", "");
  try {
    RunFolder folder(scratch.path() / "x");
  } catch (const Error& thrown) {
    error = thrown;
  }
  if (root) REQUIRE(seteuid(0) == 0);
  fs::permissions(scratch.path(), fs::perms::owner_all);
  CHECK(error.code == Code::environment);
  CHECK_THAT(error.remedy, Catch::Contains("--out"));
}

TEST_CASE("an expert that throws, or gives NaN, a wrong shape or no gradient, is found out before any training") {
  const test::Tiny model;
  Subject subject;
  subject.model = model.model;
  subject.base = test::tiny_expert(*model.model, test::causal("base"));
  for (const char* fault : {"throw", "nan", "shape", "type", "none"}) { // "none" has no parameters: no gradient
    INFO(fault);
    subject.expert = test::tiny_expert(*model.model, test::faulty("liar", fault)).expert;
    try {
      try_out(subject, 32);
      FAIL("was not found out");
    } catch (const Error& error) {
      CHECK(exit_status(error.code) == 7);
      CHECK_THAT(error.what(), Catch::Contains("liar"));
    }
  }
  subject.expert = test::tiny_expert(*model.model, test::token("honest")).expert;
  CHECK_NOTHROW(try_out(subject, 32));
}

TEST_CASE("the mixture gives position 0 to the base, exactly, and strength 1 to the expert, exactly") {
  const at::Tensor n = test::normal("n", {8, 4}, 1.0), y = test::normal("y", {8, 4}, 1.0),
                   base = test::normal("b", {8, 4}, 1.0);
  const at::Tensor w = mixture_strengths(n, at::ones({4}), at::zeros({1}), 4);
  for (const std::int64_t i : {0, 4}) CHECK(w[i].item<float>() == 0.0f);
  CHECK(w[1].item<double>() == Approx(1 / (1 + std::exp(-n[1].sum().item<double>()))));
  const at::Tensor m = mix(y, base, w);
  CHECK(m[0].equal(base[0]));
  CHECK(m[4].equal(base[4]));
  CHECK(mix(y, base, at::ones({8})).equal(y));
}

TEST_CASE("a difference in pairs has Student's interval") {
  // Differences 1, 2, 3, 4, 5: mean 3, standard error 0.7071, t(4) = 2.776.
  const Interval difference = paired_difference({0, 0, 0, 0, 0}, {1, 2, 3, 4, 5});
  CHECK(difference.mean == Approx(3.0));
  CHECK(difference.high - difference.mean == Approx(2.776 * std::sqrt(0.5)).epsilon(0.005));
}

} // namespace tenon
