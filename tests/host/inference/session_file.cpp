#include "host/inference/session_file.hpp"

#include "host/inference/generate.hpp"
#include "kernels/cpu/key_values.hpp"
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
  options.sampling = {5.0, 0, 1.0, 5}; // warm: left to itself the tiny model repeats one token
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
      CHECK(copy(restored.session.logits()) == copy(session.logits()));
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
  SavedSession restored = restore_session(*composition, path);
  CHECK(written(restored.session, 20).tokens == written(session, 20).tokens);
  CHECK(copy(restored.session.logits()) == copy(session.logits()));
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

TEST_CASE("a session in which one bit has flipped is refused as damaged") {
  PackedTiny tiny;
  const auto composition = tiny.compose({kExperts[0], kExperts[2]}, {"top_k", 2, 1.0, "sticky"});
  const auto path = tiny.scratch.path() / "saved";
  save_session(read_session(*composition, 20), path);
  const SafetensorsFile whole(path);
  std::vector<std::byte> bytes = bytes_of(path);
  std::size_t payload = 0;
  for (const TensorView& one : whole.tensors()) payload += one.bytes.size();
  CHECK_NOTHROW(restore_session(*composition, SafetensorsFile(bytes, "copy")));
  for (std::size_t at = 0; at < bytes.size(); at += at < bytes.size() - payload ? 1 : 61) {
    CAPTURE(at);
    const std::byte was = bytes[at];
    bytes[at] ^= std::byte{1} << at % 8;
    if (at < bytes.size() - payload)
      CHECK_THROWS_AS(restore_session(*composition, SafetensorsFile(bytes, "copy")), Error);
    else
      CHECK_THROWS_WITH(restore_session(*composition, SafetensorsFile(bytes, "copy")), Catch::Contains("damaged"));
    bytes[at] = was;
  }
}

TEST_CASE("keys and values are saved in the two bytes in which they are kept") {
  PackedTiny tiny(each_packed_format());
  CAPTURE(format_name(tiny.model->format()));
  const auto composition = tiny.compose({kExperts[0]});
  const auto path = tiny.scratch.path() / "saved";
  save_session(read_session(*composition, 20), path);
  const bool halves = cpu::chosen_key_format() == cpu::KeyFormat::bf16;
  const SafetensorsFile file(path);
  for (const char* name : {"trunk/0", "trunk/1", "head/0", "expert.0/0"})
    CHECK(dtype_name(file.at(name).dtype) == std::string(halves ? "BF16" : "F32"));
  CHECK(file.at("h").dtype == Dtype::F32);
}

// As if it had been saved so.
void write_sealed(const std::filesystem::path& path, std::span<const TensorView> tensors, const std::string& head) {
  write_safetensors(path, tensors, {{"tenon.session", head}, {"tenon.session.sha256", session_digest(head, tensors)}});
}

TEST_CASE("a session made up with fewer rows of the base than experts stand on is refused with both numbers") {
  PackedTiny tiny;
  const auto composition = tiny.compose({kExperts[0], kExperts[2], kExperts[3]}, {"top_k", 2, 1.0, "sticky"});
  const auto path = tiny.scratch.path() / "saved", cut = tiny.scratch.path() / "cut";
  save_session(read_session(*composition, 20), path);
  const SafetensorsFile whole(path);
  std::vector<TensorView> tensors = whole.tensors();
  const auto base = std::find_if(tensors.begin(), tensors.end(), [](const auto& one) { return one.name == "base"; });
  REQUIRE((base != tensors.end() && base->shape[0] > 5));
  base->bytes = base->bytes.first(base->bytes.size() / base->shape[0] * 5);
  base->shape[0] = 5;
  write_sealed(cut, tensors, whole.metadata().at("tenon.session"));
  CHECK_THROWS_WITH(restore_session(*composition, cut), Catch::Contains("found 5 rows of base, need"));
}

TEST_CASE("a session made up with a digest to match is refused, or runs as some other text would") {
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
    try {
      if (i % 2) {
        const std::vector<std::byte> bytes = mutator.mutate(valid);
        const SafetensorsFile file(bytes, "fuzz");
        const auto found = file.metadata().find("tenon.session");
        write_sealed(damaged, file.tensors(), found == file.metadata().end() ? "" : found->second);
      } else {
        write_sealed(damaged, whole.tensors(), mutate_json(mutator, head));
      }
      Session session = restore_session(*composition, damaged).session;
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
