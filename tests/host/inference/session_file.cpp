#include "host/inference/session_file.hpp"

#include "host/inference/generate.hpp"
#include "tests/support/mutate_json.hpp"
#include "tests/support/packed_tiny.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

namespace tenon::test {
namespace {

const std::vector<ExpertKind> kExperts = {causal("one"), token("two"), recurrent("three"), window_rows("four", 4)};

Generation written(Session& session, std::int64_t count) {
  GenerateOptions options;
  options.max_tokens = count;
  options.sampling = {0.9, 0, 1.0, 5};
  return generate(session, options);
}

Generation written(Session&& session, std::int64_t count) { return written(session, count); }

Session read_session(Composition& composition, std::size_t length, SessionOptions options = {}) {
  Session session(composition, std::move(options));
  session.append(tokens("text", length));
  (void)session.logits();
  return session;
}

std::vector<float> copy(std::span<const float> logits) { return {logits.begin(), logits.end()}; }

std::vector<std::byte> bytes_of(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  return {begin, begin + text.size()};
}

TEST_CASE("a session that was saved goes on with the same bits, whatever the policy and the experts") {
  PackedTiny tiny(each_packed_format());
  CAPTURE(format_name(tiny.model->format()));
  const auto path = tiny.scratch.path() / "saved";
  for (const char* policy : {"token", "sticky", "sequence"})
    for (const std::size_t length : {1, 5, 40, 70}) {
      CAPTURE(policy, length);
      Routing routing{"top_k", 2, 1.0, policy};
      routing.average_over = std::string(policy) == "sequence" ? 1 : 3;
      const auto composition = tiny.compose(kExperts, routing), other = tiny.compose(kExperts, routing);
      Session session = read_session(*composition, length);
      (void)written(session, 3);
      save_session(session, path, {{"said", "hello"}});
      SavedSession restored = restore_session(*other, path);
      CHECK(restored.note.at("said") == "hello");
      CHECK(restored.session.tokens() == session.tokens());
      CHECK(restored.session.positions_run() == session.positions_run());
      CHECK(restored.session.strengths(0) == session.strengths(0));
      Session again = restored.session.fork(), fresh(*composition);
      fresh.append(session.tokens());
      CHECK(copy(again.logits()) == copy(fresh.logits()));
      CHECK(written(restored.session, 20).tokens == written(session, 20).tokens);
      CHECK(restored.session.speed().prefill_tokens == 0); // nothing was read again
    }
}

TEST_CASE("a session saved before anything ran, and one without some experts, come back as they were") {
  PackedTiny tiny(each_packed_format());
  CAPTURE(format_name(tiny.model->format()));
  const auto composition = tiny.compose(kExperts, {"top_k", 2, 1.0, "token"});
  const auto path = tiny.scratch.path() / "saved";
  Session fresh(*composition);
  fresh.append(tokens("text", 9));
  save_session(fresh, path);
  CHECK(written(restore_session(*composition, path).session, 5).tokens == written(fresh, 5).tokens);

  SessionOptions without;
  without.excluded = {false, true, false, true, false};
  Session session = read_session(*composition, 30, without);
  save_session(session, path);
  CHECK(written(restore_session(*composition, path).session, 20).tokens == written(session, 20).tokens);
}

TEST_CASE("a session of another composition, or routed otherwise, is refused with both sides") {
  PackedTiny tiny;
  const auto composition = tiny.compose(kExperts), fewer = tiny.compose({kExperts[0]}),
             sticky = tiny.compose(kExperts, {"top_k", 2, 1.0, "sticky"});
  const auto path = tiny.scratch.path() / "saved";
  save_session(read_session(*composition, 9), path);
  for (Composition* other : {fewer.get(), sticky.get()})
    CHECK_THROWS_WITH(restore_session(*other, path),
                      Catch::Contains(other == sticky.get() ? "routing: " : "experts: ") &&
                          Catch::Contains(" then, ") && Catch::Contains(" now") &&
                          Catch::Contains("--compute and TENON_KEYS"));
  write_safetensors(path, {}, {{"other", "thing"}});
  CHECK_THROWS_WITH(restore_session(*composition, path), Catch::Contains("no session"));
  SessionOptions narrow;
  narrow.context = 5;
  save_session(read_session(*composition, 9), path);
  CHECK_THROWS_WITH(restore_session(*composition, path, narrow), Catch::Contains("context holds 5"));
}

TEST_CASE("a damaged session is refused, or runs as some other text would") {
  PackedTiny tiny;
  const auto composition = tiny.compose({kExperts[0], kExperts[2], kExperts[3]}, {"top_k", 2, 1.0, "sticky"});
  const auto path = tiny.scratch.path() / "saved", damaged = tiny.scratch.path() / "damaged";
  save_session(read_session(*composition, 20), path);
  const std::vector<std::byte> valid = bytes_of(path);
  const SafetensorsFile whole(path);
  const std::string head = whole.metadata().at("tenon.session");
  Mutator mutator(17);
  int read = 0, refused = 0;
  for (int i = 0; i < 800; ++i) {
    std::vector<std::byte> bytes;
    if (i % 2) {
      bytes = mutator.mutate(valid);
    } else {
      write_safetensors(damaged, whole.tensors(), {{"tenon.session", mutate_json(mutator, head)}});
      bytes = bytes_of(damaged);
    }
    try {
      Session session = restore_session(*composition, SafetensorsFile(bytes, "fuzz")).session;
      session.truncate(session.tokens().size() / 2 + 1);
      (void)session.logits();
      ++read;
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(read > 50);
  CHECK(refused > 200);
}

} // namespace
} // namespace tenon::test
