#include "host/formats/shards.hpp"

#include "registry/base/error.hpp"
#include "registry/base/sha256.hpp"
#include "tests/support/mutate.hpp"
#include "tests/support/scratch.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <fstream>
#include <optional>

using namespace tenon;
using Documents = std::vector<std::vector<std::int32_t>>;

namespace {

const std::string kTokenizer = "sha256:" + sha256("a tokenizer");

// A shard's bytes with the digest at the end made right again.
std::string sealed(std::string bytes) {
  if (bytes.size() < 32) return bytes;
  bytes.resize(bytes.size() - 32);
  const std::string hex = sha256(bytes);
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

template <typename T>
std::string with(std::string bytes, std::size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
  return sealed(bytes);
}

struct Fixture {
  Fixture() {
    write_shard(path, Documents{{1, 2, 3}, {}, {4, 0, 9, 9}}, 10, kTokenizer);
    bytes = read_file(path);
  }
  // Thousands of times: a new file, because writing over an old one waits for the disk.
  void put(const std::string& changed) {
    std::filesystem::remove(path);
    std::ofstream(path, std::ios::binary) << changed;
  }
  std::string refusal_of(const std::string& changed) {
    put(changed);
    try {
      Shard::open(path);
    } catch (const Error& error) {
      CHECK(error.code == Code::integrity);
      return error.what();
    }
    return "";
  }

  Scratch scratch;
  std::filesystem::path path = scratch.path() / "a.tokens";
  std::string bytes;
};

} // namespace

TEST_CASE_METHOD(Fixture, "shard gives back what was written") {
  const Shard shard = Shard::open(path);
  CHECK(std::vector<std::int32_t>(shard.tokens().begin(), shard.tokens().end()) ==
        std::vector<std::int32_t>{1, 2, 3, 4, 0, 9, 9});
  CHECK(shard.document_count() == 3);
  CHECK(shard.document(1).empty());
  CHECK(shard.document(2).size() == 4);
  CHECK(shard.document(2)[1] == 0);
  CHECK(shard.vocab_size() == 10);
  CHECK(shard.tokenizer_digest() == kTokenizer);
  CHECK(shard.digest() == "sha256:" + sha256(bytes.substr(0, bytes.size() - 32)));
}

TEST_CASE_METHOD(Fixture, "shard cuts whole blocks from the stream, across documents") {
  const Shard shard = Shard::open(path);
  CHECK(shard.block_count(3) == 2);
  CHECK(shard.block(1, 3)[0] == 4);
  CHECK(shard.block_count(8) == 0);
  CHECK_THROWS_AS(shard.block(2, 3), Error);
  CHECK_THROWS_AS(shard.document(3), Error);
}

TEST_CASE_METHOD(Fixture, "shard outlives the object it was copied from") {
  std::optional<Shard> first = Shard::open(path);
  const Shard copy = *first;
  first.reset();
  CHECK(copy.tokens()[6] == 9);
}

TEST_CASE("shard may be empty") {
  const Scratch scratch;
  write_shard(scratch.path() / "empty", Documents{}, 10, kTokenizer);
  const Shard shard = Shard::open(scratch.path() / "empty");
  CHECK(shard.document_count() == 0);
  CHECK(shard.tokens().empty());
  CHECK(shard.block_count(4) == 0);
}

TEST_CASE("shard is not written with a token outside the vocabulary, and nothing is left behind") {
  const Scratch scratch;
  CHECK_THROWS_AS(write_shard(scratch.path() / "bad", Documents{{1, 10}}, 10, kTokenizer), Error);
  CHECK_THROWS_AS(write_shard(scratch.path() / "bad", Documents{{-1}}, 10, kTokenizer), Error);
  CHECK(std::filesystem::is_empty(scratch.path()));
}

TEST_CASE_METHOD(Fixture, "shard with a flipped byte is refused, wherever it is") {
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    std::string changed = bytes;
    changed[at] = static_cast<char>(changed[at] ^ 0x10);
    CHECK(refusal_of(changed) != "");
  }
}

TEST_CASE_METHOD(Fixture, "shard cut short or with more at its end is refused") {
  for (std::size_t size = 0; size < bytes.size(); ++size) CHECK(refusal_of(bytes.substr(0, size)) != "");
  CHECK(refusal_of(bytes + '\0') != "");
}

TEST_CASE_METHOD(Fixture, "shard whose digest is right but whose contents contradict each other is refused") {
  CHECK(refusal_of(with<std::uint32_t>(bytes, 8, 3)).find("found version 3, need 1 or 2") != std::string::npos);
  CHECK(refusal_of(with<std::uint32_t>(bytes, 12, 9)).find("token 5 is 9") != std::string::npos);
  CHECK(refusal_of(with<std::uint32_t>(bytes, 12, 0)).find("vocabulary of 0") != std::string::npos);
  CHECK(refusal_of(with<std::uint32_t>(bytes, 12, ~0u)).find("vocabulary of 4294967295") != std::string::npos);
  CHECK(refusal_of(with<std::uint64_t>(bytes, 16, ~0ull)).find("more than") != std::string::npos);
  CHECK(refusal_of(with<std::uint64_t>(bytes, 24, ~0ull)).find("more than") != std::string::npos);
  CHECK(refusal_of(with<std::uint64_t>(bytes, 16, 8)).find("7") != std::string::npos);
  CHECK(refusal_of(with<std::int32_t>(bytes, 96, -1)).find("token 0 is -1") != std::string::npos);
  const std::size_t starts = 96 + 7 * 4 + 4;
  CHECK(refusal_of(with<std::uint64_t>(bytes, starts, 1)).find("documents reach from 1") != std::string::npos);
  CHECK(refusal_of(with<std::uint64_t>(bytes, starts + 8, 100)).find("starts before") != std::string::npos);
}

namespace {

// Two blocks of four: a dialogue of three tokens and one of padding; a dialogue of four.
struct Packed : Fixture {
  Packed() {
    const std::vector<MaskedDocument> documents = {
        {{1, 2, 3}, {false, true, true}}, {{9}, {false}}, {{4, 5, 6, 7}, {false, false, true, false}}};
    write_packed_shard(path, documents, 4, 10, kTokenizer);
    bytes = read_file(path);
  }
};

} // namespace

TEST_CASE_METHOD(Packed, "shard of dialogues says which tokens count, and where padding begins") {
  const Shard shard = Shard::open(path);
  CHECK(shard.packed_length() == 4);
  std::vector<bool> counts;
  for (std::size_t i = 0; i < shard.tokens().size(); ++i) counts.push_back(shard.counts(i));
  CHECK(counts == std::vector<bool>{false, true, true, false, false, false, true, false});
  CHECK_FALSE(shard.is_padding(0));
  CHECK(shard.is_padding(1));
  CHECK(shard.block_text(0, 4) == 3);
  CHECK(shard.block_text(1, 4) == 4);
  const Fixture plain; // of which everything counts
  const Shard ordinary = Shard::open(plain.path);
  CHECK(ordinary.packed_length() == 0);
  CHECK(ordinary.counts(0));
  CHECK_FALSE(ordinary.is_padding(1)); // an empty document of ordinary text
  CHECK(ordinary.block_text(1, 3) == 3);
}

TEST_CASE_METHOD(Packed, "shard of dialogues that is damaged or contradicts itself is refused") {
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    std::string changed = bytes;
    changed[at] = static_cast<char>(changed[at] ^ 0x10);
    CHECK(refusal_of(changed) != "");
  }
  CHECK(refusal_of(with<std::uint64_t>(bytes, 64, 3)).find("whole blocks of 3") != std::string::npos);
  CHECK(refusal_of(with<std::uint64_t>(bytes, 64, 0)).find("whole blocks of 0") != std::string::npos);
  CHECK(refusal_of(with<std::uint64_t>(bytes, bytes.size() - 40, 1 << 8)).find("beyond the last") != std::string::npos);
  CHECK(refusal_of(with<std::uint32_t>(bytes, 8, 1)) != ""); // bytes too many for ordinary text
}

TEST_CASE("shard of dialogues is not written unless whole blocks are filled") {
  const Scratch scratch;
  const std::vector<MaskedDocument> short_of_one = {{{1, 2, 3}, {true, true, true}}}, half_masked = {{{1, 2}, {true}}};
  CHECK_THROWS_AS(write_packed_shard(scratch.path() / "bad", short_of_one, 4, 10, kTokenizer), Error);
  CHECK_THROWS_AS(write_packed_shard(scratch.path() / "bad", half_masked, 2, 10, kTokenizer), Error);
  CHECK(std::filesystem::is_empty(scratch.path()));
}

TEST_CASE_METHOD(Packed, "mutated shards of dialogues are read or refused, every bit of them readable") {
  Mutator mutator(23);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    put(sealed(mutator.mutate(bytes)));
    try {
      const Shard shard = Shard::open(path);
      std::size_t counted = 0, text = 0;
      for (std::size_t t = 0; t < shard.tokens().size(); ++t) counted += shard.counts(t);
      const std::size_t length = std::max<std::size_t>(1, shard.packed_length());
      for (std::size_t b = 0; b < shard.block_count(length); ++b) text += shard.block_text(b, length);
      CHECK(counted <= shard.tokens().size());
      CHECK(text <= shard.tokens().size());
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(refused > 0);
  CHECK(refused < 3000);
}

TEST_CASE_METHOD(Fixture, "mutated shards are read or refused, never worse, and allocate no more than the file") {
  Mutator mutator(17);
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    const std::string changed = mutator.mutate(bytes);
    put(i % 4 ? sealed(changed) : changed);
    const AllocationWatch watch;
    try {
      const Shard shard = Shard::open(path);
      std::size_t tokens = 0;
      for (std::size_t d = 0; d < shard.document_count(); ++d) tokens += shard.document(d).size();
      CHECK(tokens == shard.tokens().size());
      for (std::int32_t token : shard.tokens()) CHECK((token >= 0 && token < shard.vocab_size()));
    } catch (const Error&) {
      ++refused;
    }
    CHECK(watch.largest() < std::size_t{64} << 10);
  }
  CHECK(refused > 0);
  CHECK(refused < 3000);
}
