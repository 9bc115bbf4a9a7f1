#include "host/formats/bpe.hpp"

#include "host/formats/splitter.hpp"
#include "registry/base/error.hpp"

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>
#include <random>

using namespace tenon;
using Ids = std::vector<std::int32_t>;

namespace {

// The definition, word for word: the lowest rank anywhere, leftmost first, until nothing merges.
Ids merged_by_definition(const std::vector<Merge>& merges, Ids ids) {
  for (;;) {
    std::size_t best_rank = merges.size(), best_at = 0;
    for (std::size_t at = 0; at + 1 < ids.size(); ++at) {
      for (std::size_t rank = 0; rank < best_rank; ++rank) {
        if (merges[rank].left != ids[at] || merges[rank].right != ids[at + 1]) continue;
        best_rank = rank;
        best_at = at;
      }
    }
    if (best_rank == merges.size()) return ids;
    ids[best_at] = merges[best_rank].result;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best_at) + 1);
  }
}

// Merges of three letters and of what they make, in random order of rank.
std::vector<Merge> random_merges(std::mt19937_64& random) {
  std::map<std::pair<int, int>, bool> used;
  std::vector<Merge> merges;
  std::int32_t next = 3;
  while (merges.size() < 12) {
    const auto left = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(next));
    const auto right = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(next));
    if (used[{left, right}]) continue;
    used[{left, right}] = true;
    merges.push_back({left, right, next++});
  }
  std::shuffle(merges.begin(), merges.end(), random);
  return merges;
}

std::vector<std::string> words_of(const char* splitter, std::string_view text) {
  std::vector<std::string_view> views;
  Splitter(splitter).split(text, views);
  return {views.begin(), views.end()};
}

using Words = std::vector<std::string>;

} // namespace

TEST_CASE("bpe merges short and long words as the definition says") {
  std::mt19937_64 random(3);
  std::size_t wrong = 0;
  for (int round = 0; round < 40; ++round) {
    const std::vector<Merge> merges = random_merges(random);
    const Bpe bpe(merges);
    for (std::size_t length : {0u, 1u, 2u, 3u, 7u, 31u, 32u, 33u, 34u, 90u}) {
      Ids ids(length);
      for (std::int32_t& id : ids) id = static_cast<std::int32_t>(random() % 3);
      Ids out;
      bpe.merge(ids, out);
      wrong += out != merged_by_definition(merges, ids);
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("bpe refuses a pair that stands twice") {
  const std::vector<Merge> merges = {{0, 1, 2}, {1, 0, 3}, {0, 1, 4}};
  CHECK_THROWS_WITH(Bpe(merges), Catch::Contains("merge 2 repeats merge 0"));
}

TEST_CASE("bpe writes each byte as one printable character, and reads it back") {
  std::string all, bytes;
  for (const std::string& symbol : byte_symbols()) all += symbol;
  REQUIRE(symbols_to_bytes(all, bytes));
  REQUIRE(bytes.size() == 256);
  for (int byte = 0; byte < 256; ++byte)
    CHECK(static_cast<unsigned char>(bytes[static_cast<std::size_t>(byte)]) == byte);
  CHECK(byte_symbols()[' '] == "\u0120");
  CHECK_FALSE(symbols_to_bytes("\u4eba", bytes));
  CHECK_FALSE(symbols_to_bytes(" ", bytes));
}

TEST_CASE("splitter cuts words as GPT-2 does") {
  CHECK(words_of("gpt2", "I don't  know 123 x") == Words{"I", " don", "'t", " ", " know", " 123", " x"});
  CHECK(words_of("gpt2", "a\n\n b  ") == Words{"a", "\n\n", " b", "  "});
  CHECK(words_of("gpt2", "\u00bd\u4eba!") == Words{"\u00bd", "\u4eba", "!"});
}

TEST_CASE("splitter of SmolLM2 leaves every numeral alone") {
  CHECK(words_of("smollm", "a 12  3!") == Words{"a", " ", "1", "2", "  ", "3", "!"});
  CHECK(words_of("smollm", "1's") == Words{"1", "'s"});
}

TEST_CASE("splitter does not take a Mongolian vowel separator for white space") {
  CHECK(words_of("gpt2", "a\u180e\u180e b") == Words{"a", "\u180e\u180e", " b"});
}

TEST_CASE("splitter knows the letters and numerals of Unicode 16") {
  CHECK(words_of("gpt2", "a\U00031350b\U000105C0") == Words{"a\U00031350b\U000105C0"});
  CHECK(words_of("smollm", "\U0001CCF0\U0001CCF1") == Words{"\U0001CCF0", "\U0001CCF1"});
}

TEST_CASE("splitter words joined are the text") {
  std::mt19937_64 random(5);
  static const Words parts = {"'s", " ", "\n", "\u00a0", "7", "x", "\u0301", "!", "\u3000", "'", "\u2167"};
  for (int i = 0; i < 300; ++i) {
    std::string text, joined;
    for (std::uint64_t n = random() % 12; n > 0; --n) text += parts[random() % parts.size()];
    for (const std::string& word : words_of(i % 2 ? "gpt2" : "smollm", text)) joined += word;
    CHECK(joined == text);
  }
}
