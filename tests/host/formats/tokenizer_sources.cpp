// Where tokenizers come from: Hugging Face files, GGUF files, and Tenon's own. What we do not have is refused by name.
#include "host/formats/gguf.hpp"
#include "host/formats/tokenizer.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "registry/base/json.hpp"
#include "tests/support/mutate.hpp"
#include "tests/support/scratch.hpp"

#include <boost/json.hpp>
#include <catch2/catch.hpp>
#include <cstring>

using namespace tenon;

namespace {

std::filesystem::path small_file() {
  return std::filesystem::path(TENON_TEST_DATA) / "goldens/tokenizer/small.tokenizer.json";
}

json::object small() { return read_json(small_file()).as_object(); }

std::string refusal_of(const json::object& root) {
  try {
    Tokenizer tokenizer(parse_hf_tokenizer(json::serialize(root), "tokenizer.json"));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// A GGUF file with metadata alone: strings, arrays of strings, and booleans.
class Gguf {
 public:
  Gguf& text(const std::string& key, const std::string& value) { return entry(key, 8).string(value); }
  Gguf& boolean(const std::string& key, bool value) { return entry(key, 7).number<std::uint8_t>(value); }
  Gguf& integer(const std::string& key, std::uint32_t value) { return entry(key, 4).number(value); }
  Gguf& texts(const std::string& key, const std::vector<std::string>& values) {
    entry(key, 9).number<std::uint32_t>(8).number<std::uint64_t>(values.size());
    for (const std::string& value : values) string(value);
    return *this;
  }
  Gguf& integers(const std::string& key, const std::vector<std::int32_t>& values) {
    entry(key, 9).number<std::uint32_t>(5).number<std::uint64_t>(values.size());
    for (std::int32_t value : values) number(value);
    return *this;
  }

  // The message that reading the tokenizer is refused with, or "".
  std::string refusal() const {
    const std::string file = bytes();
    try {
      Tokenizer tokenizer(read_gguf_tokenizer(GgufFile(std::as_bytes(std::span(file)), "test.gguf")));
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  std::string bytes() const {
    Gguf head;
    head.out_ = "GGUF";
    head.number<std::uint32_t>(3).number<std::uint64_t>(0).number(entries_);
    return head.out_ + out_;
  }

 private:
  template <typename T>
  Gguf& number(T value) {
    char raw[sizeof value];
    std::memcpy(raw, &value, sizeof value);
    out_.append(raw, sizeof value);
    return *this;
  }
  Gguf& string(const std::string& value) {
    number<std::uint64_t>(value.size());
    out_ += value;
    return *this;
  }
  Gguf& entry(const std::string& key, std::uint32_t type) {
    ++entries_;
    return string(key).number(type);
  }

  std::string out_;
  std::uint64_t entries_ = 0;
};

Gguf small_gguf(const std::string& model = "gpt2", const std::string& pre = "gpt-2", int types_missing = 0) {
  const TokenizerData data = parse_hf_tokenizer(read_file(small_file()), "small");
  std::vector<std::string> tokens = data.tokens, merges;
  std::vector<std::int32_t> types(tokens.size(), 1);
  types[0] = 3;
  types.resize(types.size() - static_cast<std::size_t>(types_missing));
  for (const auto& [left, right] : data.merges) merges.push_back(left + " " + right);
  return Gguf()
      .text("tokenizer.ggml.model", model)
      .text("tokenizer.ggml.pre", pre)
      .texts("tokenizer.ggml.tokens", tokens)
      .texts("tokenizer.ggml.merges", merges)
      .integers("tokenizer.ggml.token_type", types);
}

// Mostly damage that is still JSON, so that it gets past the parser.
std::string mutated(std::string text, Mutator& mutator) {
  const std::size_t at = mutator.below(text.size());
  switch (mutator.below(4)) {
    case 0: return mutator.mutate(text);
    case 1: text.erase(at, mutator.below(64)); return text;
    case 2: text.insert(at, 1, text[at]); return text;
    default: text[at] = "0123456789[]{},:\"-e"[mutator.below(19)]; return text;
  }
}

} // namespace

TEST_CASE("hf tokenizer refuses each component that it does not have, by name") {
  json::object root = small();
  root["normalizer"] = json::object{{"type", "NFKC"}};
  CHECK(refusal_of(root).find("normalizer NFKC") != std::string::npos);
  root["normalizer"] = json::object{{"type", "NFC"}}; // "[user]" would be looked for in composed text
  CHECK(refusal_of(root).find("\"[user]\" that is looked for in normalised text") != std::string::npos);
  root = small();
  root["pre_tokenizer"] = json::object{{"type", "Metaspace"}, {"replacement", "_"}};
  CHECK(refusal_of(root).find("Metaspace") != std::string::npos);
  root = small();
  root["pre_tokenizer"].as_object()["add_prefix_space"] = true;
  CHECK(refusal_of(root).find("add_prefix_space") != std::string::npos);
  root = small();
  root["model"].as_object()["type"] = "Unigram";
  CHECK(refusal_of(root).find("Unigram") != std::string::npos);
  root = small();
  root["model"].as_object()["byte_fallback"] = true;
  CHECK(refusal_of(root).find("byte_fallback") != std::string::npos);
  root = small();
  root["decoder"].as_object()["type"] = "Fuse";
  CHECK(refusal_of(root).find("Fuse") != std::string::npos);
  root = small();
  root["added_tokens"].as_array()[0].as_object()["single_word"] = true;
  CHECK(refusal_of(root).find("single_word") != std::string::npos);
  root = small();
  root["truncation"] = json::object{{"max_length", 5}};
  CHECK(refusal_of(root).find("truncation") != std::string::npos);
}

TEST_CASE("hf tokenizer knows patterns by their text and SmolLM2's digits, and refuses another pattern") {
  const auto level = [](bool regex) {
    return json::object{{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", regex}};
  };
  const auto split_by = [&](const char* pattern) {
    json::object root = small();
    root["pre_tokenizer"] =
        json::object{{"type", "Sequence"},
                     {"pretokenizers", json::array{json::object{{"type", "Split"},
                                                                {"pattern", json::object{{"Regex", pattern}}},
                                                                {"behavior", "Isolated"},
                                                                {"invert", false}},
                                                   level(false)}}};
    return root;
  };
  const char* gpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  CHECK(parse_hf_tokenizer(json::serialize(split_by(gpt2)), "x").split == "gpt2");
  CHECK(refusal_of(split_by(R"(\p{N}{1,3})")).find(R"(\p{N}{1,3})") != std::string::npos);
  json::object root = small();
  root["pre_tokenizer"] = json::object{
      {"type", "Sequence"},
      {"pretokenizers", json::array{json::object{{"type", "Digits"}, {"individual_digits", true}}, level(true)}}};
  CHECK(parse_hf_tokenizer(json::serialize(root), "x").split == "smollm");
  root["pre_tokenizer"].as_object()["pretokenizers"].as_array()[0].as_object()["individual_digits"] = false;
  CHECK(refusal_of(root).find("individual_digits") != std::string::npos);
}

TEST_CASE("hf tokenizer takes a leading token of the post-processor as BOS, and refuses more") {
  json::object root = small();
  const json::object bos{{"SpecialToken", json::object{{"id", "<|im_start|>"}, {"type_id", 0}}}};
  const json::object text{{"Sequence", json::object{{"id", "A"}, {"type_id", 0}}}};
  root["post_processor"] = json::object{{"type", "TemplateProcessing"}, {"single", json::array{bos, text}}};
  const TokenizerData data = parse_hf_tokenizer(json::serialize(root), "x");
  CHECK(data.add_bos);
  CHECK(data.bos == 1500);
  root["post_processor"].as_object()["single"].as_array().push_back(bos);
  CHECK(refusal_of(root).find("TemplateProcessing") != std::string::npos);

  const auto in_sequence = [&](json::array processors) {
    root["post_processor"] = json::object{{"type", "Sequence"}, {"processors", std::move(processors)}};
    return json::serialize(root);
  };
  const json::object level{{"type", "ByteLevel"}},
      leading{{"type", "TemplateProcessing"}, {"single", json::array{bos, text}}};
  CHECK(parse_hf_tokenizer(in_sequence({level, leading}), "x").add_bos);
  CHECK_FALSE(parse_hf_tokenizer(in_sequence({level}), "x").add_bos);
  CHECK_THROWS_WITH(parse_hf_tokenizer(in_sequence({leading, leading}), "x"), Catch::Contains("a second"));
  CHECK_THROWS_WITH(parse_hf_tokenizer(in_sequence({level, json::object{{"type", "Roberta"}}}), "x"),
                    Catch::Contains("Roberta"));
}

TEST_CASE("hf directory gives BOS, EOS and the chat template") {
  const Scratch scratch;
  std::filesystem::copy_file(small_file(), scratch.path() / "tokenizer.json");
  write_file(scratch.path() / "tokenizer_config.json",
             R"({"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>", "add_bos_token": true,
                 "chat_template": "{{ messages }}"})");
  const TokenizerData data = read_hf_tokenizer(scratch.path());
  CHECK(data.bos == 1500);
  CHECK(data.eos == 1501);
  CHECK(data.add_bos);
  CHECK(data.chat_template == "{{ messages }}");
  write_file(scratch.path() / "chat_template.jinja", "{{ other }}");
  CHECK(read_hf_tokenizer(scratch.path()).chat_template == "{{ other }}");
  write_file(scratch.path() / "tokenizer_config.json", R"({"eos_token": "<none>"})");
  CHECK_THROWS_WITH(read_hf_tokenizer(scratch.path()), Catch::Contains("<none>"));
}

TEST_CASE("gguf tokenizer is refused by name when its model or pre-tokenizer is unknown") {
  CHECK(small_gguf().refusal() == "");
  CHECK(small_gguf("llama").refusal().find("\"llama\"") != std::string::npos);
  const std::string message = small_gguf("gpt2", "falcon").refusal();
  CHECK(message.find("\"falcon\"") != std::string::npos);
  CHECK(message.find("gpt-2, smollm, llama-bpe, qwen2") != std::string::npos);
}

TEST_CASE("gguf tokenizer brings what its pre-tokenizer's name stands for") {
  const auto read = [](const Gguf& gguf) {
    const std::string file = gguf.bytes();
    return read_gguf_tokenizer(GgufFile(std::as_bytes(std::span(file)), "test.gguf"));
  };
  const TokenizerData llama = read(small_gguf("gpt2", "llama-bpe").integer("tokenizer.ggml.bos_token_id", 0));
  CHECK(llama.split == "llama3");
  CHECK(llama.ignore_merges);
  CHECK(llama.add_bos);
  CHECK_FALSE(read(small_gguf("gpt2", "llama-bpe")
                       .integer("tokenizer.ggml.bos_token_id", 0)
                       .boolean("tokenizer.ggml.add_bos_token", false))
                  .add_bos);
  const TokenizerData qwen = read(small_gguf("gpt2", "qwen2").integer("tokenizer.ggml.bos_token_id", 0));
  CHECK(qwen.split == "qwen2");
  CHECK(qwen.normalizer == "nfc");
  CHECK_FALSE(qwen.add_bos);
}

TEST_CASE("a tokenizer that normalises composes text, but no special token's") {
  TokenizerData data = parse_hf_tokenizer(
      read_file(std::filesystem::path(TENON_TEST_DATA) / "goldens/tokenizer/qwen2.tokenizer.json"), "x");
  data.added.push_back({.id = 1003, .content = "<e\u0301>"});
  const Tokenizer tokenizer(data);
  CHECK(tokenizer.encode("cafe\u0301") == tokenizer.encode("caf\u00e9"));
  CHECK(tokenizer.decode(tokenizer.encode("cafe\u0301, \xff")) == "caf\u00e9, \xff");
  CHECK(tokenizer.encode("e<e\u0301>", true).back() == 1003);
  CHECK(tokenizer.json().find("\"normalizer\":\"nfc\"") != std::string::npos);
  CHECK(Tokenizer(byte_tokenizer()).json().find("normalizer") == std::string::npos);
}

TEST_CASE("gguf tokenizer is refused when its parts do not fit each other") {
  CHECK(small_gguf("gpt2", "gpt-2", 1).refusal().find("token_type has 1499") != std::string::npos);
  CHECK(small_gguf().integer("tokenizer.ggml.eos_token_id", 1500).refusal().find("1500") != std::string::npos);
  CHECK(small_gguf().boolean("tokenizer.ggml.add_eos_token", true).refusal().find("add_eos") != std::string::npos);
  CHECK(Gguf().refusal().find("tokenizer.ggml.model") != std::string::npos);
}

TEST_CASE("own tokenizer.json is strict: unknown and missing members, and another spelling, are refused") {
  const Tokenizer tokenizer(byte_tokenizer());
  CHECK(Tokenizer::from_json(tokenizer.json()).digest() == tokenizer.digest());
  json::object root = parse_json(tokenizer.json(), "x").as_object();
  CHECK_THROWS_WITH(Tokenizer::from_json(pretty_json(root)), Catch::Contains("another spelling"));
  root["colour"] = "red";
  CHECK_THROWS_WITH(Tokenizer::from_json(canonical_json(root)), Catch::Contains("colour"));
  root.erase("colour");
  root.erase("eos");
  CHECK_THROWS_WITH(Tokenizer::from_json(canonical_json(root)), Catch::Contains("eos"));
  root["eos"] = 1e9;
  CHECK_THROWS_AS(Tokenizer::from_json(canonical_json(root)), Error);
}

TEST_CASE("a tokenizer's digest changes with anything that changes ids") {
  TokenizerData data = byte_tokenizer();
  const std::string digest = Tokenizer(data).digest();
  CHECK(digest.size() == 71);
  CHECK(digest.starts_with("sha256:"));
  data.added[0].lstrip = true;
  CHECK(Tokenizer(data).digest() != digest);
  data = byte_tokenizer();
  data.add_bos = true;
  CHECK(Tokenizer(data).digest() != digest);
}

TEST_CASE("mutated tokenizer files are read or refused, never worse") {
  Mutator mutator(13);
  // Small enough for many rounds: every byte, few merges.
  json::object hf = small();
  json::object& model = hf["model"].as_object();
  json::object vocabulary;
  for (const auto& member : model["vocab"].as_object()) {
    if (member.value().as_int64() < 260) vocabulary.insert(member);
  }
  model["vocab"] = vocabulary;
  model["merges"] = json::array{};
  hf["added_tokens"].as_array().resize(1);
  const std::string hf_text = json::serialize(hf);
  const Tokenizer sound(parse_hf_tokenizer(hf_text, "x"));
  int read = 0, refused = 0;
  for (int i = 0; i < 1500; ++i) {
    const AllocationWatch watch;
    try {
      const std::string text = mutated(i % 2 ? hf_text : sound.json(), mutator);
      const Tokenizer tokenizer = i % 2 ? Tokenizer(parse_hf_tokenizer(text, "x")) : Tokenizer::from_json(text);
      CHECK(tokenizer.decode(tokenizer.encode("the 1 \xFF")) == "the 1 \xFF");
      ++read;
    } catch (const Error&) {
      ++refused;
    }
    CHECK(watch.largest() < std::size_t{1} << 20);
  }
  CHECK(read > 0);
  CHECK(refused > 0);
}
