#include "host/formats/tokenizer.hpp"

#include "host/formats/bpe.hpp"
#include "host/formats/gguf.hpp"
#include "host/formats/utf8.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "tests/support/smollm2.hpp"

#include <catch2/catch.hpp>
#include <random>

using namespace tenon;
using Ids = std::vector<std::int32_t>;

namespace {

// Every byte, and the merges that make " the".
TokenizerData tiny() {
  TokenizerData data;
  for (const std::string& symbol : byte_symbols()) data.tokens.push_back(symbol);
  for (const auto& [left, right] : {std::pair{"t", "h"}, {"th", "e"}, {"\u0120", "the"}}) {
    data.merges.emplace_back(left, right);
    data.tokens.push_back(std::string(left) + right);
  }
  const auto next = [&] { return static_cast<std::int32_t>(data.tokens.size() + data.added.size()); };
  data.added.push_back({.id = next(), .content = "<|end|>"});
  data.added.push_back({.id = next(), .content = "<|end|>!"});
  data.added.push_back({.id = next(), .content = "<user>", .special = false});
  data.eos = data.added[0].id;
  return data;
}

// As tiny, without 01, C0 and FF.
TokenizerData tiny_with_gaps() {
  TokenizerData data = tiny();
  std::vector<std::string> kept;
  for (const std::string& token : data.tokens) {
    if (token != byte_symbols()[0x01] && token != byte_symbols()[0xC0] && token != byte_symbols()[0xFF]) {
      kept.push_back(token);
    }
  }
  data.tokens = kept;
  for (AddedToken& token : data.added) token.id -= 3;
  data.eos = data.added[0].id;
  return data;
}

std::string random_bytes(std::mt19937_64& random, std::size_t length) {
  // Much of what breaks decoders: lead bytes cut off, surrogates, and the escapes of missing bytes.
  static const std::vector<std::string> parts = {"\xED",         "\xED\xB0\x81", "\xED\xB3\xBF", "\xED\xB3", "\xB0",
                                                 "\xED\xA0\x80", "\xF0\x9F",     "\xC0",         "\xFF",     "\x01",
                                                 " the",         "\u00e9",       "\U0001F44D",   "1 ",       "<|end|>"};
  std::string bytes;
  while (bytes.size() < length) {
    if (random() % 3 == 0) {
      bytes.push_back(static_cast<char>(random() % 256));
    } else {
      bytes += parts[random() % parts.size()];
    }
  }
  return bytes;
}

std::string message_of(const TokenizerData& data) {
  try {
    Tokenizer tokenizer(data);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

} // namespace

TEST_CASE("tokenizer brings any bytes back, with every vocabulary") {
  std::mt19937_64 random(7);
  const Tokenizer tokenizers[] = {Tokenizer(byte_tokenizer()), Tokenizer(tiny()), Tokenizer(tiny_with_gaps()),
                                  Tokenizer(read_gguf_tokenizer(GgufFile(smollm2_gguf())))};
  CHECK(tokenizers[1].has_every_byte());
  CHECK_FALSE(tokenizers[2].has_every_byte());
  std::size_t wrong = 0;
  for (const Tokenizer& tokenizer : tokenizers) {
    for (int i = 0; i < 400; ++i) {
      const std::string bytes = random_bytes(random, random() % 40);
      wrong += tokenizer.decode(tokenizer.encode(bytes)) != bytes;
      wrong += tokenizer.decode(tokenizer.encode(bytes, true)) != bytes;
    }
    for (int byte = 0; byte < 256; ++byte) {
      const std::string one(1, static_cast<char>(byte));
      wrong += tokenizer.decode(tokenizer.encode(one)) != one;
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("tokenizer writes a byte that the vocabulary lacks as a lone surrogate") {
  const Tokenizer tokenizer(tiny_with_gaps());
  CHECK(tokenizer.encode("\x01") == Ids{*tokenizer.find("\xED"), *tokenizer.find("\xB0"), *tokenizer.find("\x81")});
  // Such a surrogate in the text itself has its first byte written so.
  CHECK(tokenizer.encode("\xED\xB0\x81").size() == 5);
  CHECK(tokenizer.decode(tokenizer.encode("\xED\xB0\x81")) == "\xED\xB0\x81");
}

TEST_CASE("streamed text is whole characters, and all of it, whatever the ids") {
  std::mt19937_64 random(11);
  for (const Tokenizer& tokenizer : {Tokenizer(byte_tokenizer()), Tokenizer(tiny_with_gaps())}) {
    std::size_t halves = 0, wrong = 0;
    for (int i = 0; i < 500; ++i) {
      Ids ids = tokenizer.encode(random_bytes(random, 20));
      for (int extra = 0; extra < 5; ++extra) {
        ids.insert(ids.begin() + static_cast<std::ptrdiff_t>(random() % (ids.size() + 1)),
                   static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(tokenizer.vocab_size())));
      }
      for (bool skip : {false, true}) {
        StreamDecoder stream(tokenizer, skip);
        std::string all;
        for (std::int32_t id : ids) {
          const std::string piece = stream.push(id);
          halves += utf8_valid_prefix(piece) != piece.size();
          all += piece;
        }
        all += stream.flush();
        wrong += all != utf8_replaced(tokenizer.decode(ids, skip));
        wrong += !stream.flush().empty();
      }
    }
    CHECK(halves == 0);
    CHECK(wrong == 0);
  }
}

TEST_CASE("streamed text holds a character back until its last byte is there") {
  const Tokenizer tokenizer(byte_tokenizer());
  StreamDecoder stream(tokenizer);
  CHECK(stream.push(0xF0) == "");
  CHECK(stream.push(0x9F) == "");
  CHECK(stream.push(0x91) == "");
  CHECK(stream.push(0x8D) == "\U0001F44D");
  CHECK(stream.push(0xE2) == "");
  CHECK(stream.push('a') == "\uFFFDa");
  CHECK(stream.push(0xE2) == "");
  CHECK(stream.flush() == "\uFFFD");
}

TEST_CASE("byte tokenizer has 256 bytes and four specials") {
  const Tokenizer tokenizer(byte_tokenizer());
  CHECK(tokenizer.vocab_size() == 260);
  CHECK(tokenizer.encode("A\xFF") == Ids{65, 255});
  CHECK(tokenizer.encode("A<|eos|>", true) == Ids{65, 257});
  CHECK(tokenizer.encode("<|eos|>").size() == 7);
  CHECK(tokenizer.bos() == 256);
  CHECK(tokenizer.separator() == 257);
  CHECK(tokenizer.decode(Ids{65, 257}, true) == "A");
}

TEST_CASE("tokenizer merges in the order it learnt") {
  const Tokenizer tokenizer(tiny());
  CHECK(tokenizer.encode("the the") == Ids{257, 258});
  CHECK(tokenizer.encode("hte").size() == 3);
  CHECK(tokenizer.find(" the") == 258);
  CHECK_FALSE(tokenizer.find("no such token"));
}

TEST_CASE("tokenizer takes the longest added token, and special ones only where asked") {
  const Tokenizer tokenizer(tiny());
  const std::int32_t end = *tokenizer.find("<|end|>"), end_mark = *tokenizer.find("<|end|>!");
  CHECK(tokenizer.encode("<|end|>!<|end|>", true) == Ids{end_mark, end});
  CHECK(tokenizer.encode("<|end|>").size() == 7);
  CHECK(tokenizer.encode("<user>") == Ids{*tokenizer.find("<user>")});
}

TEST_CASE("tokenizer puts BOS before a prompt where the model says so") {
  TokenizerData data = tiny();
  data.bos = data.eos;
  CHECK(Tokenizer(data).encode_prompt("the") == Ids{257});
  data.add_bos = true;
  CHECK(Tokenizer(data).encode_prompt("the") == Ids{*data.bos, 257});
  CHECK(Tokenizer(data).encode("the") == Ids{257});
}

TEST_CASE("tokenizer takes a known word whole where merges are ignored") {
  TokenizerData data = tiny();
  data.merges.pop_back();
  CHECK(Tokenizer(data).encode(" the").size() == 2);
  data.ignore_merges = true;
  CHECK(Tokenizer(data).encode(" the") == Ids{258});
}

TEST_CASE("tokenizer handles a word of a megabyte") {
  const Tokenizer tokenizer(tiny());
  std::string word;
  while (word.size() < 1u << 20) word += "the";
  CHECK(tokenizer.encode(word).size() == word.size() / 3);
  const std::string spaces(1u << 20, ' ');
  CHECK(tokenizer.encode(spaces + "the").back() == 258);
  CHECK(tokenizer.decode(tokenizer.encode(std::string(1u << 20, '\xFF'))).size() == 1u << 20);
}

TEST_CASE("tokenizer refuses an id outside the vocabulary") {
  const Tokenizer tokenizer(byte_tokenizer());
  CHECK_THROWS_WITH(tokenizer.decode(Ids{260}), Catch::Contains("found the id 260") && Catch::Contains("0 to 259"));
  CHECK_THROWS_AS(tokenizer.token_bytes(-1), Error);
}

TEST_CASE("tokenizer refuses an unknown splitter by name, with the known") {
  TokenizerData data = tiny();
  data.split = "llama-bpe";
  const std::string message = message_of(data);
  CHECK(message.find("llama-bpe") != std::string::npos);
  CHECK(message.find("gpt2, smollm") != std::string::npos);
}

TEST_CASE("tokenizer refuses data that contradict themselves") {
  TokenizerData data = tiny();
  data.merges.emplace_back("t", "h");
  CHECK(message_of(data).find("repeats merge 0") != std::string::npos);
  data = tiny();
  data.merges.emplace_back("q", "x");
  CHECK(message_of(data).find("\"qx\"") != std::string::npos);
  data = tiny();
  data.tokens.push_back("t");
  data.added.clear();
  data.eos.reset();
  CHECK(message_of(data).find("twice") != std::string::npos);
  data = tiny();
  data.tokens[5] = "\u4eba";
  CHECK(message_of(data).find("byte-level symbols") != std::string::npos);
  data = tiny();
  data.eos = 9999;
  CHECK(message_of(data).find("eos is token 9999") != std::string::npos);
  data = tiny();
  data.add_bos = true;
  CHECK(message_of(data).find("no bos") != std::string::npos);
  data = tiny();
  data.added[1].id = 700;
  data.added.pop_back();
  CHECK(message_of(data).find("700") != std::string::npos);
  data = tiny();
  data.type = "wordpiece";
  CHECK(message_of(data).find("wordpiece") != std::string::npos);
}

TEST_CASE("an added token that the vocabulary spells otherwise keeps both spellings") {
  TokenizerData data = tiny();
  data.tokens.push_back("otherwise"); // the place of <|end|>
  const Tokenizer tokenizer(data);
  CHECK(tokenizer.token_bytes(data.added[0].id) == "<|end|>");
  CHECK(tokenizer.json().find("\"otherwise\"") != std::string::npos);
  CHECK(Tokenizer::from_json(tokenizer.json()).digest() == tokenizer.digest());
}

TEST_CASE("tokenizer refuses a vocabulary in which lacking bytes cannot be written") {
  TokenizerData data = tiny_with_gaps();
  std::erase(data.tokens, byte_symbols()[0xED]);
  for (AddedToken& token : data.added) --token.id;
  data.eos.reset();
  CHECK(message_of(data).find("lacks byte 237") != std::string::npos);
}
