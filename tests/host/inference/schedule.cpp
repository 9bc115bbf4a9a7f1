#include "host/inference/schedule.hpp"

#include "tests/support/packed_tiny.hpp"

#include <catch2/catch.hpp>

#include <algorithm>
#include <limits>
#include <map>

namespace tenon::test {
namespace {

const std::vector<ExpertKind> kExperts = {causal("one"), token("two"), recurrent("three"), window("four")};

BatchRequest request(const std::string& id, std::vector<std::int32_t> prompt, std::int64_t count = 12) {
  BatchRequest out;
  out.id = id;
  out.prompt = std::move(prompt);
  out.options.max_tokens = count;
  // Warm: left to itself the tiny model repeats one token, whatever it has read.
  out.options.sampling = {5.0, 0, 0.95, std::hash<std::string>{}(id)};
  return out;
}

std::map<std::string, Answer> all_answers(Scheduler& scheduler) {
  std::map<std::string, Answer> out;
  while (!scheduler.idle())
    for (Answer& answer : scheduler.step()) out.emplace(answer.id, std::move(answer));
  return out;
}

Generation alone(Composition& composition, const BatchRequest& request) {
  SessionOptions options;
  options.excluded = request.excluded;
  Session session(composition, options);
  session.append(request.prompt);
  return generate(session, request.options);
}

std::size_t different(std::vector<std::int32_t> ids) {
  std::sort(ids.begin(), ids.end());
  return static_cast<std::size_t>(std::unique(ids.begin(), ids.end()) - ids.begin());
}

std::vector<std::int32_t> joined(std::vector<std::int32_t> a, const std::vector<std::int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

std::vector<BatchRequest> some_requests() {
  std::vector<BatchRequest> out;
  const std::size_t lengths[] = {1, 60, 9, 33, 2, 90, 17};
  for (std::size_t i = 0; i < std::size(lengths); ++i)
    out.push_back(request("r" + std::to_string(i), tokens("prompt", lengths[i], i), 5 + 4 * static_cast<int>(i)));
  out[2].excluded = {false, true, false, true, false};
  out[4].options.sampling.temperature = 0;
  return out;
}

TEST_CASE("requests answered together, joining and leaving, are answered as each would be alone") {
  PackedTiny tiny(each_packed_format());
  CAPTURE(format_name(tiny.model->format()));
  const auto composition = tiny.compose(kExperts, {"top_k", 2, 1.0, "token"});
  for (const ScheduleOptions& options : {ScheduleOptions{3, 16, 0, 0, true}, ScheduleOptions{8, 5, 0, 0, false}}) {
    Scheduler scheduler(*composition, options);
    for (const BatchRequest& one : some_requests()) scheduler.submit(one);
    const auto answers = all_answers(scheduler);
    REQUIRE(answers.size() == some_requests().size());
    for (const BatchRequest& one : some_requests()) {
      CAPTURE(one.id);
      const Generation expected = alone(*composition, one);
      const Answer& found = answers.at(one.id);
      CHECK(found.made.tokens == expected.tokens);
      if (one.options.sampling.temperature > 0) CHECK(different(expected.tokens) > 2);
      CHECK(found.made.text == expected.text);
      CHECK(found.made.finish == expected.finish);
      std::int64_t strongest = 0;
      for (const SlotShare& share : found.shares) strongest += share.strongest;
      CHECK(strongest == static_cast<std::int64_t>(found.made.tokens.size()));
    }
  }
}

TEST_CASE("while a long prompt is read the others write a token each step, and a short prompt does not wait for it") {
  PackedTiny tiny;
  const auto composition = tiny.compose({});
  Scheduler scheduler(*composition, {4, 8, 0, 0, true});
  scheduler.submit(request("writer", tokens("a", 1), 40));
  CHECK(scheduler.step().empty());
  scheduler.submit(request("long", tokens("b", 100), 2));
  scheduler.submit(request("short", tokens("c", 3), 1));
  std::int64_t before = scheduler.tokens_written();
  int steps = 0;
  for (bool read = false; !read; ++steps) {
    const std::vector<Answer> done = scheduler.step();
    CHECK(scheduler.tokens_written() > before);
    before = scheduler.tokens_written();
    if (steps == 0) CHECK((done.size() == 1 && done[0].id == "short"));
    for (const Answer& answer : done) read = read || answer.id == "long";
  }
  CHECK(steps >= 100 / 8);
}

TEST_CASE("a request goes on from what another has read of the same beginning, live or finished") {
  PackedTiny tiny(each_packed_format());
  CAPTURE(format_name(tiny.model->format()));
  const auto composition = tiny.compose(kExperts, {"top_k", 2, 1.0, "token"});
  const auto beginning = tokens("system", 50);
  Scheduler scheduler(*composition, {4, 16, 0, 0, true});
  std::vector<BatchRequest> requests;
  for (int i = 0; i < 5; ++i)
    requests.push_back(request("r" + std::to_string(i), joined(beginning, tokens("question", 10, i + 1)), 6));
  for (int i = 0; i < 4; ++i) scheduler.submit(requests[i]);
  auto answers = all_answers(scheduler);
  scheduler.submit(requests[4]); // everybody has left
  answers.merge(all_answers(scheduler));
  CHECK(answers.at("r0").reused_tokens == 0);
  for (int i = 0; i < 5; ++i) {
    const Answer& found = answers.at(requests[i].id);
    CHECK(found.made.tokens == alone(*composition, requests[i]).tokens);
    CHECK(different(found.made.tokens) > 2);
    if (i > 0) CHECK(found.reused_tokens >= 50);
    CHECK(found.reused_tokens < found.prompt_tokens);
  }
}

TEST_CASE("nothing is taken over from a text that other experts have read") {
  PackedTiny tiny(each_packed_format());
  CAPTURE(format_name(tiny.model->format()));
  const auto composition = tiny.compose(kExperts, {"top_k", 2, 1.0, "token"});
  Scheduler scheduler(*composition, {4, 64, 0, 0, true});
  BatchRequest with = request("with", tokens("text", 60)), without = request("without", tokens("text", 60));
  without.excluded = {false, true, true, true, true};
  scheduler.submit(with);
  scheduler.submit(without);
  const auto answers = all_answers(scheduler);
  CHECK(answers.at("without").reused_tokens == 0);
  CHECK(answers.at("without").made.tokens == alone(*composition, without).tokens);
}

TEST_CASE("states stay within the budget, requests wait for room, and one that can never have it is refused") {
  PackedTiny tiny;
  const auto composition = tiny.compose(kExperts, {"top_k", 2, 1.0, "token"});
  const std::uint64_t one = StateSize(*composition).bytes(128);
  Scheduler scheduler(*composition, {8, 64, 2 * one, 0, true});
  for (int i = 0; i < 6; ++i) scheduler.submit(request("r" + std::to_string(i), tokens("prompt", 40, i)));
  (void)scheduler.step();
  CHECK(scheduler.running() == 2);
  CHECK(all_answers(scheduler).size() == 6);
  CHECK(static_cast<std::uint64_t>(composition->pool()->peak_bytes()) <= 2 * one);

  Scheduler narrow(*composition, {8, 64, one / 2, 0, true});
  CHECK_THROWS_WITH(narrow.submit(request("r", tokens("prompt", 40))),
                    Catch::Contains("budget") && Catch::Contains("--budget " + std::to_string(one)));
}

TEST_CASE("a request for any number of tokens needs no more than the context holds, however large the two are") {
  PackedTiny tiny;
  const auto composition = tiny.compose({});
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  const std::uint64_t whole = StateSize(*composition).bytes(128);
  Scheduler narrow(*composition, {8, 64, whole - 1, 0, true});
  CHECK_THROWS_WITH(narrow.submit(request("r", tokens("prompt", 40), most)),
                    Catch::Contains("up to 128 tokens") && Catch::Contains("--budget " + std::to_string(whole)));
  Scheduler enough(*composition, {8, 64, whole, 0, true});
  enough.submit(request("r", tokens("prompt", 40), most));
  CHECK(all_answers(enough).at("r").made.tokens.size() == 88);

  Scheduler endless(*composition, {8, 64, whole, most, true});
  CHECK_THROWS_WITH(endless.submit(request("r", tokens("prompt", 40), most)), Catch::Contains("found a budget"));
  endless.submit(request("few", tokens("prompt", 40), 3));
  CHECK(all_answers(endless).at("few").made.tokens.size() == 3);
}

TEST_CASE("the largest budget there is holds every request, as none does") {
  PackedTiny tiny;
  const auto composition = tiny.compose({});
  for (const std::uint64_t budget : {std::numeric_limits<std::uint64_t>::max(), std::uint64_t{0}}) {
    Scheduler scheduler(*composition, {8, 64, budget, 0, true});
    for (int i = 0; i < 3; ++i) scheduler.submit(request("r" + std::to_string(i), tokens("prompt", 40, i)));
    (void)scheduler.step();
    CHECK(scheduler.running() == 3);
    CHECK(all_answers(scheduler).size() == 3);
  }
}

TEST_CASE("a request that waits behind others ends with the next step once it is cancelled") {
  PackedTiny tiny;
  const auto composition = tiny.compose({});
  Scheduler scheduler(*composition, {1, 64, 0, 0, true});
  for (const char* id : {"running", "first", "second", "third"}) scheduler.submit(request(id, tokens(id, 4), 30));
  (void)scheduler.step();
  CHECK(scheduler.cancel("second"));
  const std::vector<Answer> ended = scheduler.step();
  REQUIRE(ended.size() == 1);
  CHECK(ended[0].id == "second");
  CHECK(ended[0].made.finish == Finish::interrupted);
  CHECK((scheduler.running() == 1 && scheduler.waiting() == 2));
  CHECK(all_answers(scheduler).size() == 3);
}

TEST_CASE("a request whose expert fails ends alone with the error, and the others get what they would alone") {
  PackedTiny tiny;
  Composition::Options strict;
  strict.strict = true;
  const auto composition =
      tiny.compose({faulty("bad", "throw"), causal("good")}, {"softmax", 2, 1.0, "token"}, 0, strict);
  Scheduler scheduler(*composition, {4, 16, 0, 0, true});
  std::vector<BatchRequest> requests;
  for (int i = 0; i < 4; ++i) {
    requests.push_back(request("r" + std::to_string(i), tokens("prompt", 20 + 9 * i, i)));
    requests.back().excluded = {false, i != 1, false};
    scheduler.submit(requests.back());
  }
  const auto answers = all_answers(scheduler);
  REQUIRE(answers.size() == 4);
  for (const BatchRequest& one : requests) {
    CAPTURE(one.id);
    const Answer& found = answers.at(one.id);
    if (one.id == "r1") {
      REQUIRE(found.error);
      CHECK(found.error->code == Code::plugin);
      CHECK_THAT(found.error->message, Catch::Contains("lost my memory"));
    } else {
      CHECK_FALSE(found.error);
      CHECK(found.made.tokens == alone(*composition, one).tokens);
    }
  }
}

TEST_CASE("an error that meets all who are under way alike is the step's") {
  PackedTiny tiny;
  Composition::Options strict;
  strict.strict = true;
  const auto composition = tiny.compose({faulty("bad", "throw")}, {"softmax", 2, 1.0, "token"}, 0, strict);
  Scheduler scheduler(*composition, {4, 16, 0, 0, true});
  for (const char* id : {"a", "b"}) scheduler.submit(request(id, tokens(id, 9)));
  CHECK_THROWS_WITH(all_answers(scheduler), Catch::Contains("lost my memory"));
}

TEST_CASE("a request that is cancelled ends with what it has, waiting or under way, and the others go on") {
  PackedTiny tiny;
  const auto composition = tiny.compose({});
  Scheduler scheduler(*composition, {1, 64, 0, 0, true});
  scheduler.submit(request("running", tokens("a", 4), 30));
  scheduler.submit(request("waiting", tokens("b", 4), 30));
  scheduler.submit(request("other", tokens("c", 4), 30));
  for (int i = 0; i < 3; ++i) (void)scheduler.step();
  CHECK(scheduler.cancel("running"));
  CHECK(scheduler.cancel("waiting"));
  CHECK_FALSE(scheduler.cancel("nobody"));
  const auto answers = all_answers(scheduler);
  CHECK(answers.at("running").made.finish == Finish::interrupted);
  CHECK(answers.at("running").made.tokens.size() == 3);
  CHECK(answers.at("waiting").made.tokens.empty());
  CHECK(answers.at("other").made.tokens.size() == 30);
}

TEST_CASE("requests that cannot be run are refused when they are submitted") {
  const Tiny tiny;
  const auto composition = tiny.compose({});
  Scheduler scheduler(*composition, {});
  CHECK_THROWS_WITH(scheduler.submit(request("r", {})), Catch::Contains("empty prompt"));
  CHECK_THROWS_WITH(scheduler.submit(request("r", tokens("a", 200))),
                    Catch::Contains("200 tokens, the context holds 128"));
  CHECK_THROWS_WITH(scheduler.submit(request("r", {3, 260})), Catch::Contains("token 260, the vocabulary has 260"));
  BatchRequest odd = request("r", tokens("a", 3));
  odd.options.sampling.top_p = 2;
  CHECK_THROWS_WITH(scheduler.submit(odd), Catch::Contains("top-p"));
  scheduler.submit(request("r", tokens("a", 3)));
  CHECK_THROWS_WITH(scheduler.submit(request("r", tokens("a", 3))), Catch::Contains("twice"));
}

TEST_CASE("an answer ends where the context is full") {
  const Tiny tiny;
  const auto composition = tiny.compose({});
  Scheduler scheduler(*composition, {4, 64, 0, 10, true});
  scheduler.submit(request("r", tokens("a", 7), 50));
  const auto answers = all_answers(scheduler);
  CHECK(answers.at("r").made.finish == Finish::context);
  CHECK(answers.at("r").made.tokens.size() == 3);
}

TEST_CASE("what ran before an expert's fault is not taken over behind it") {
  PackedTiny tiny;
  const auto composition = tiny.compose({causal("one")}, {"softmax", 2, 1.0, "token"});
  Scheduler scheduler(*composition, {4, 64, 0, 0, true});
  scheduler.submit(request("before", tokens("text", 60)));
  (void)all_answers(scheduler);
  composition->experts().fault(1, Error(Code::plugin, "one", "gone"));
  const BatchRequest after = request("after", tokens("text", 60));
  scheduler.submit(after);
  const auto answers = all_answers(scheduler);
  CHECK(answers.at("after").reused_tokens == 0);
  CHECK(answers.at("after").made.tokens == alone(*composition, after).tokens);
}

TEST_CASE("an answer gives back its memory though nothing of it is kept") {
  PackedTiny tiny;
  const auto composition = tiny.compose({});
  Scheduler scheduler(*composition, {8, 64, StateSize(*composition).bytes(20), 0, GENERATE(false, true)});
  for (int i = 0; i < 3; ++i) scheduler.submit(request("r" + std::to_string(i), tokens("prompt", 4, i), 8));
  std::size_t answered = 0;
  for (int steps = 0; steps < 100 && !scheduler.idle(); ++steps) answered += scheduler.step().size();
  CHECK(answered == 3);
}

} // namespace
} // namespace tenon::test
