#include "host/training/plan.hpp"

#include "registry/base/error.hpp"

#include <catch2/catch.hpp>

namespace tenon {
namespace {

json::object small_plan() {
  return {{"architecture", "tenon.low_rank"}, {"model", "tiny"}, {"data", {{"paths", json::array{"docs"}}}}};
}

TrainingPlan with(std::initializer_list<std::string> assignments) {
  json::object plan = small_plan();
  for (const std::string& assignment : assignments) set_field(plan, assignment);
  return TrainingPlan::parse(plan, "plan");
}

} // namespace

TEST_CASE("a plan fills in every default") {
  const TrainingPlan plan = with({});
  CHECK(plan.data.sequence_length == 256);
  CHECK(plan.row.objective == RowObjective::domain);
  CHECK(plan.row.l2 == Approx(1e-3));
  CHECK(plan.train.learning_rate == Approx(2e-3));
  CHECK(plan.train.general_every == 6);
  CHECK_FALSE(plan.train.bfloat16);
  // What is recorded is complete, and reads back as itself.
  CHECK(TrainingPlan::parse(plan.json, "plan").digest() == plan.digest());
}

TEST_CASE("--set reaches any field, and a bare name is the expert's configuration") {
  const TrainingPlan plan = with({"train.steps=7", "rank=3", "config.targets=[\"q\"]", "row.objective=joint",
                                  "license=MIT", "train.dtype=bfloat16"});
  CHECK(plan.train.steps == 7);
  CHECK(plan.config.at("rank").as_int64() == 3);
  CHECK(plan.config.at("targets").as_array().at(0).as_string() == "q");
  CHECK(plan.row.objective == RowObjective::joint);
  CHECK(plan.license == "MIT");
  CHECK(plan.train.bfloat16);
}

TEST_CASE("a plan refuses what its schema does not know or allow, by name") {
  for (const auto& [assignment, named] :
       std::vector<std::pair<std::string, std::string>>{{"train.stepz=7", "train"},
                                                        {"train.steps=0", "steps"},
                                                        {"train.dtype=float16", "dtype"},
                                                        {"data.sequence_length=1.5", "sequence_length"},
                                                        {"general.blocks=-1", "blocks"}}) {
    INFO(assignment);
    try {
      with({assignment});
      FAIL("accepted");
    } catch (const Error& error) {
      CHECK(error.code == Code::usage);
      CHECK_THAT(error.message, Catch::Contains(named));
    }
  }
}

TEST_CASE("a template for text, which has none, is refused") {
  CHECK_THROWS_WITH(with({"data.template=chatml"}),
                    Catch::Contains("data.template=chatml") && Catch::Contains("data.format=chat"));
  CHECK(with({"data.template=chatml", "data.format=chat"}).data.chat_template == "chatml");
}

TEST_CASE("--set refuses what is no assignment") {
  json::object plan = small_plan();
  for (const std::string assignment : {"rank", "=3", "model.deeper=1", "train..steps=1"})
    CHECK_THROWS_AS(set_field(plan, assignment), Error);
}

TEST_CASE("what --set gives a field of text is text, whatever it looks like") {
  const TrainingPlan plan = with({"summary=2026", "version=2.0", "license=null", "data.field=[body]"});
  CHECK(plan.summary == "2026");
  CHECK(plan.version == "2.0");
  CHECK(plan.license == "null");
  CHECK(plan.data.field == "[body]");
  CHECK(with({R"(summary="2026")"}).summary == "2026"); // as JSON has it
  CHECK(with({"train.steps=3", "word=2026"}).config.at("word") == json::value(2026));
}

TEST_CASE("a plan's digest leaves out where the text and the cache lie, and nothing else") {
  const std::string digest = with({}).digest();
  json::object moved = small_plan();
  moved["data"].as_object()["paths"] = json::array{"elsewhere/docs"};
  CHECK(TrainingPlan::parse(moved, "plan").digest() == digest);
  CHECK(with({"streams.budget_gib=3"}).digest() == digest);
  for (const std::string change : {"rank=8", "train.seed=1", "row.l2=0.1", "data.sequence_length=64",
                                   "streams.dtype=bfloat16", "checkpoint_every=7"}) {
    INFO(change);
    CHECK(with({change}).digest() != digest);
  }
}

TEST_CASE("steps on general text take turns, and are counted") {
  const TrainingPlan plan = with({"train.steps=20", "train.batch=2", "train.accumulate=3"});
  std::int64_t general = 0;
  for (std::int64_t step = 0; step < 20; ++step) {
    CHECK(plan.general_steps_before(step) == general);
    general += plan.is_general_step(step);
  }
  CHECK(general == 3);
  CHECK(plan.domain_sequences() == 17 * 6);
  CHECK_FALSE(with({"train.kl_weight=0"}).is_general_step(5));
  CHECK_FALSE(with({"train.general_every=0"}).is_general_step(5));
}

TEST_CASE("fields that a way of learning does not use are refused by name, where they were given") {
  for (const auto& [in_a_pass, assignment] :
       std::vector<std::pair<bool, std::string>>{{true, "train.learning_rate=0.1"},
                                                 {true, "train.steps=300"},
                                                 {true, "evaluate_every=5"},
                                                 {true, "row.objective=joint"},
                                                 {false, "pass.blocks=10"}}) {
    INFO(assignment);
    const TrainingPlan plan = with({assignment});
    CHECK_NOTHROW(plan.check_used(!in_a_pass));
    try {
      plan.check_used(in_a_pass);
      FAIL("accepted");
    } catch (const Error& error) {
      CHECK(error.code == Code::usage);
      CHECK_THAT(error.message, Catch::Contains(assignment.substr(0, assignment.find('='))));
      CHECK_THAT(error.message, Catch::Contains("tenon.low_rank"));
    }
  }
  CHECK_NOTHROW(with({"train.seed=3", "pass.blocks=20", "row.l2=0.1"}).check_used(true));
  CHECK_NOTHROW(with({"train.steps=3"}).check_used(false));
}

} // namespace tenon
