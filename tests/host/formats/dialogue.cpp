#include "host/formats/dialogue.hpp"

#include "registry/base/error.hpp"
#include "tests/support/mutate_json.hpp"

#include <algorithm>
#include <catch2/catch.hpp>

namespace tenon {

TEST_CASE("a dialogue as text is read back as it was, and other members of a message change nothing") {
  const std::string line =
      R"([{"role": "user", "content": "a\n\"b\"", "name": "Eve"}, {"role": "assistant", "content": "c"}])";
  const std::vector<ChatMessage> dialogue = read_dialogue(parse_json(line, "test"), "test");
  CHECK(dialogue == std::vector<ChatMessage>{{"user", "a\n\"b\""}, {"assistant", "c"}});
  CHECK(dialogue_from_text(dialogue_text(dialogue)) == dialogue);
}

TEST_CASE("a damaged dialogue is read and written as tokens, or refused") {
  const Tokenizer tokenizer(byte_tokenizer());
  const ChatTemplate form = ChatTemplate::named("chatml");
  const std::string valid =
      R"([{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])";
  Mutator mutator(29);
  int read = 0, refused = 0;
  for (int i = 0; i < 4000; ++i) {
    try {
      const std::string text = i % 2 ? mutator.mutate(valid) : mutate_json(mutator, valid);
      const std::vector<ChatMessage> dialogue = read_dialogue(parse_json(text, "fuzz"), "fuzz");
      const MaskedDocument document = tokenise_dialogue(dialogue, form, tokenizer);
      CHECK(document.counts.size() == document.tokens.size());
      if (has_answer(dialogue)) CHECK(std::count(document.counts.begin(), document.counts.end(), true) > 1);
      CHECK(dialogue_from_text(dialogue_text(dialogue)) == dialogue);
      ++read;
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(read > 100);
  CHECK(refused > 1000);
}

} // namespace tenon
