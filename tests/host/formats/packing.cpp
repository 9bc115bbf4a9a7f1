#include "host/formats/packing.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

namespace tenon {
namespace {

// A dialogue of this many tokens, the last of which counts.
MaskedDocument dialogue(std::size_t size, std::int32_t token) {
  MaskedDocument made{std::vector<std::int32_t>(size, token), std::vector<bool>(size, false)};
  made.counts.back() = true;
  return made;
}

std::vector<std::int32_t> tokens_of(const std::vector<MaskedDocument>& packed) {
  std::vector<std::int32_t> all;
  for (const MaskedDocument& document : packed) all.insert(all.end(), document.tokens.begin(), document.tokens.end());
  return all;
}

} // namespace

TEST_CASE("dialogues stay whole, each in the first block with room, and padding fills the rest") {
  const auto packed = pack({dialogue(3, 1), dialogue(2, 2), dialogue(1, 3), dialogue(2, 4)}, 4, 9);
  CHECK(tokens_of(packed) == std::vector<std::int32_t>{1, 1, 1, 3, 2, 2, 4, 4});
  const auto loose = pack({dialogue(3, 1), dialogue(3, 2)}, 4, 9);
  CHECK(tokens_of(loose) == std::vector<std::int32_t>{1, 1, 1, 9, 2, 2, 2, 9});
  CHECK(loose[1].counts == std::vector<bool>{false}); // padding
  CHECK(pack({}, 4, 9).empty());
}

TEST_CASE("a dialogue longer than a block is cut, and pieces in which nothing counts are left out") {
  MaskedDocument lengthy = dialogue(10, 1);
  for (std::size_t i = 0; i < 10; ++i) lengthy.tokens[i] = static_cast<std::int32_t>(i);
  lengthy.counts = {false, false, false, false, true, false, false, true, true, true};
  // 0..3 has no answer; of 8, 9 the first has lost what came before it.
  const auto packed = pack({lengthy}, 4, 99);
  CHECK(tokens_of(packed) == std::vector<std::int32_t>{4, 5, 6, 7, 8, 9, 99, 99});
  CHECK(packed[0].counts == std::vector<bool>{false, false, false, true});
  CHECK(packed[1].counts == std::vector<bool>{false, true});
}

TEST_CASE("every token of many dialogues is packed once, in whole blocks, with little padding") {
  std::vector<MaskedDocument> dialogues;
  std::size_t total = 0;
  for (std::size_t i = 0; i < 500; ++i) {
    dialogues.push_back(dialogue(2 + i * 37 % 60, static_cast<std::int32_t>(i)));
    total += dialogues.back().tokens.size();
  }
  const std::vector<std::int32_t> tokens = tokens_of(pack(dialogues, 64, 1000));
  CHECK(tokens.size() % 64 == 0);
  const auto padding = static_cast<std::size_t>(std::count(tokens.begin(), tokens.end(), 1000));
  CHECK(tokens.size() == total + padding);
  CHECK(padding < total / 10);
}

} // namespace tenon
