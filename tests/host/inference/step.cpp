#include "host/inference/step.hpp"

#include "host/execution/arrears.hpp"
#include "tests/support/packed_tiny.hpp"

#include <catch2/catch.hpp>

namespace tenon::test {
namespace {

const std::vector<ExpertKind> kExperts = {causal("one"), token("two"), recurrent("three"), window("four")};

Session session_of(Composition& composition, const std::vector<std::int32_t>& ids, std::vector<bool> excluded = {}) {
  SessionOptions options;
  options.prefill_chunk = 7;
  options.excluded = std::move(excluded);
  Session session(composition, options);
  session.append(ids);
  return session;
}

std::vector<float> copy(std::span<const float> logits) { return {logits.begin(), logits.end()}; }

std::vector<float> alone(Composition& composition, const std::vector<std::int32_t>& ids,
                         std::vector<bool> excluded = {}) {
  return copy(session_of(composition, ids, std::move(excluded)).logits());
}

std::vector<std::vector<std::int32_t>> texts() {
  return {tokens("a", 90), tokens("b", 3), tokens("c", 41), tokens("d", 66)};
}

// A few rows of each session at a time until all have run; at most this many rows of catching up a step.
int run_together(Composition& composition, std::vector<Session>& sessions, std::int64_t catch_up_rows) {
  for (int steps = 0;; ++steps) {
    std::vector<StepPart> parts;
    for (std::size_t i = 0; i < sessions.size(); ++i) {
      const auto left = static_cast<std::int64_t>(sessions[i].tokens().size() - sessions[i].positions_run());
      if (left == 0) continue;
      parts.push_back({&sessions[i], sessions[i].held() ? 0 : std::min<std::int64_t>(left, 5 + 6 * (i % 2))});
    }
    if (parts.empty()) return steps;
    step(composition, parts, catch_up_rows);
  }
}

TEST_CASE("a session's logits are those of the last position of the whole text run at once") {
  PackedTiny tiny(each_packed_format());
  CAPTURE(format_name(tiny.model->format()));
  for (const std::vector<ExpertKind>& kinds : {std::vector<ExpertKind>{}, {causal("one")}}) {
    const auto composition = tiny.compose(kinds);
    for (const auto& ids : texts()) {
      const at::Tensor logits_TV = composition->forward(Batch::whole(tensor_of(ids).unsqueeze(0)));
      const at::Tensor last_V = logits_TV[-1].contiguous();
      CHECK(alone(*composition, ids) == copy({last_V.data_ptr<float>(), static_cast<std::size_t>(last_V.numel())}));
    }
  }
}

TEST_CASE("sessions that run together get the bits they would get alone, whatever the policy and who is with them") {
  PackedTiny tiny(each_packed_format());
  CAPTURE(format_name(tiny.model->format()));
  for (const char* policy : {"token", "sticky", "sequence"})
    for (const std::int64_t catch_up_rows : {std::numeric_limits<std::int64_t>::max(), std::int64_t{4}}) {
      CAPTURE(policy, catch_up_rows);
      Routing routing{"top_k", 2, 1.0, policy};
      routing.average_over = std::string(policy) == "sequence" ? 1 : 3;
      const auto composition = tiny.compose(kExperts, routing);
      std::vector<Session> sessions;
      for (const auto& ids : texts()) sessions.push_back(session_of(*composition, ids));
      run_together(*composition, sessions, catch_up_rows);
      for (std::size_t i = 0; i < sessions.size(); ++i) {
        CAPTURE(i);
        CHECK(copy(sessions[i].logits()) == alone(*composition, texts()[i]));
      }
    }
}

TEST_CASE("a session whose expert has much to catch up is held, and gets the bits of one that was never held") {
  PackedTiny tiny(each_packed_format());
  CAPTURE(format_name(tiny.model->format()));
  Routing routing{"top_k", 1, 1.0, "sequence"};
  routing.decide_after = 60;
  const auto composition = tiny.compose({recurrent("late")}, routing, 1e3);
  const auto late = tokens("a", 90);
  const std::vector<float> expected = alone(*composition, late);
  REQUIRE(session_of(*composition, late).positions_run() == 0);
  Session session = session_of(*composition, late);
  (void)session.logits();
  REQUIRE(session.strengths(70)[1] == 1.0f); // or there is nothing to catch up

  recurrent_largest_call = 0;
  Session slow = session_of(*composition, late), other = session_of(*composition, tokens("b", 40));
  int held = 0, steps = 0;
  for (; slow.positions_run() < late.size(); ++steps) {
    const auto left = static_cast<std::int64_t>(late.size() - slow.positions_run());
    std::vector<StepPart> parts = {{&slow, slow.held() ? 0 : std::min<std::int64_t>(left, 8)}};
    const std::size_t before = other.positions_run();
    if (before < other.tokens().size()) parts.push_back({&other, 1});
    step(*composition, parts, 8);
    held += slow.held();
    if (parts.size() == 2) CHECK(other.positions_run() == before + 1); // it never waits
  }
  CHECK(held >= 56 / 8 - 1);
  CHECK(recurrent_largest_call <= 16); // its own rows, and what a step may catch up
  CHECK(copy(slow.logits()) == expected);
}

TEST_CASE("of two sessions with much and little to catch up, neither waits for the other's, and both get their bits") {
  PackedTiny tiny(each_packed_format());
  CAPTURE(format_name(tiny.model->format()));
  const auto composition = tiny.compose({recurrent("always")}, {"top_k", 1, 1.0, "token"}, 1e3);
  // Cut back, the expert has to begin again: it owes all but the last token of what is left.
  const auto cut_back = [&](const std::string& name, std::size_t length) {
    Session session = session_of(*composition, tokens(name, 90));
    (void)session.logits();
    session.truncate(length);
    session.append(tokens("next", 1));
    return session;
  };
  const auto text = [](const std::string& name, std::size_t length) {
    auto ids = tokens(name, 90);
    ids.resize(length);
    ids.push_back(tokens("next", 1)[0]);
    return ids;
  };
  Session much = cut_back("a", 80), little = cut_back("b", 3), some = cut_back("c", 20);
  std::vector<StepPart> parts = {{&much, 1}, {&little, 1}, {&some, 1}};
  step(*composition, parts, 12);
  CHECK((much.held() && some.held()));
  CHECK_FALSE(little.held());
  int steps = 1;
  for (parts = {{&much, 0}, {&some, 0}}; some.held(); ++steps) step(*composition, parts, 12);
  CHECK(steps <= 4);
  CHECK(much.held());
  for (parts = {{&much, 0}}; much.held(); ++steps) step(*composition, parts, 12);
  CHECK(steps <= 10); // 103 rows in all, 12 a step
  CHECK(copy(little.logits()) == alone(*composition, text("b", 3)));
  CHECK(copy(some.logits()) == alone(*composition, text("c", 20)));
  CHECK(copy(much.logits()) == alone(*composition, text("a", 80)));
}

TEST_CASE("a held session can be forked, cut back and asked for its logits like any other") {
  PackedTiny tiny(each_packed_format());
  CAPTURE(format_name(tiny.model->format()));
  Routing routing{"top_k", 1, 1.0, "sequence"};
  routing.decide_after = 30;
  const auto composition = tiny.compose({recurrent("late")}, routing, 1e3);
  const auto ids = tokens("a", 50);
  Session held = session_of(*composition, ids);
  while (!held.held()) {
    const StepPart part{&held, 10};
    step(*composition, {&part, 1}, 3);
  }
  const std::vector<float> expected = alone(*composition, ids);
  Session fork = held.fork();
  CHECK_FALSE(fork.held());
  CHECK(copy(fork.logits()) == expected);
  CHECK(copy(held.logits()) == expected);
}

TEST_CASE("a session forked and cut back goes on with the bits of one that only ever read the shorter text") {
  PackedTiny tiny(each_packed_format());
  CAPTURE(format_name(tiny.model->format()));
  const auto composition = tiny.compose(kExperts, {"top_k", 2, 1.0, "token"});
  const auto ids = tokens("a", 60), other = tokens("b", 20);
  Session session = session_of(*composition, ids);
  const std::vector<float> expected = copy(session.logits());
  for (const std::size_t length : {60u, 59u, 33u, 1u}) {
    CAPTURE(length);
    std::vector<std::int32_t> shorter(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(length));
    Session fork = session.fork();
    fork.truncate(length);
    CHECK(copy(fork.logits()) == alone(*composition, shorter));
    fork.append(other);
    shorter.insert(shorter.end(), other.begin(), other.end());
    CHECK(copy(fork.logits()) == alone(*composition, shorter));
  }
  CHECK(copy(session.logits()) == expected);
}

TEST_CASE("a session without some experts is that of a composition without them") {
  PackedTiny tiny(each_packed_format());
  CAPTURE(format_name(tiny.model->format()));
  const auto ids = tokens("text", 60);
  for (const char* policy : {"token", "sticky", "sequence"}) {
    CAPTURE(policy);
    Routing routing{"top_k", 2, 1.0, policy};
    routing.average_over = std::string(policy) == "sequence" ? 1 : 3;
    const auto all = tiny.compose(kExperts, routing), fewer = tiny.compose({kExperts[0], kExperts[2]}, routing);
    const std::vector<float> expected = alone(*fewer, ids);
    CHECK(alone(*all, ids, {false, false, true, false, true}) == expected);
    CHECK(alone(*all, ids) != expected);
  }
}

TEST_CASE("a strict fault in a step takes every session back to where it was") {
  const Tiny tiny;
  Composition::Options options;
  options.strict = true;
  const auto composition =
      tiny.compose({causal("one"), faulty("bad", "throw", 1)}, {"softmax", 2, 1.0, "token"}, 0.0, options);
  Session one = session_of(*composition, tokens("a", 6)), two = session_of(*composition, tokens("b", 9));
  const std::vector<StepPart> parts = {{&one, 3}, {&two, 3}};
  step(*composition, parts);
  CHECK_THROWS_AS(step(*composition, parts), Error);
  CHECK((one.positions_run() == 3 && two.positions_run() == 3));
  CHECK_FALSE(one.held());
}

TEST_CASE("what experts have missed is named, the base before whoever stands on it") {
  const Tiny tiny;
  const auto composition = tiny.compose({recurrent("r"), window("w"), token("t"), causal("c")});
  Sequence sequence = composition->new_sequence();
  const auto ids = tokens("text", 30);
  const auto only = [](std::initializer_list<std::int64_t> slots, std::int64_t rows) {
    at::Tensor w_TE = at::zeros({rows, 5});
    for (const std::int64_t slot : slots) w_TE.select(1, slot).fill_(1.0 / static_cast<double>(slots.size()));
    return w_TE;
  };
  const at::Tensor first = only({4}, 20);
  (void)composition->middle(Batch::next(sequence, std::span(ids).first(20)), &first);
  (void)composition->read(Batch::next(sequence, std::span(ids).subspan(20)));
  const auto owed = [&](std::initializer_list<std::int64_t> slots) {
    std::string out;
    for (const Arrears& one : arrears(composition->experts(), sequence, 20, only(slots, 10)))
      out += std::to_string(one.slot) + ":" + std::to_string(one.rows) + " ";
    return out;
  };
  CHECK(owed({4}) == "");
  CHECK(owed({0}) == "0:20 ");
  CHECK(owed({1, 4}) == "0:20 1:20 ");
  CHECK(owed({3}) == "0:20 ");
  catch_up(composition->experts(), sequence, 0, 12);
  CHECK(owed({1}) == "0:8 1:20 ");
  catch_up(composition->experts(), sequence, 0, 8);
  catch_up(composition->experts(), sequence, 1, 5);
  CHECK(owed({1, 2}) == "1:15 ");
}

} // namespace
} // namespace tenon::test
