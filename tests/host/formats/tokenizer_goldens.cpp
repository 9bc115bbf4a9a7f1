// Ids against the reference implementation's; tests/goldens/tokenizer/make.py says how they were made.
#include "host/formats/gguf.hpp"
#include "host/formats/tokenizer.hpp"
#include "host/formats/utf8.hpp"
#include "registry/base/files.hpp"
#include "registry/base/json.hpp"
#include "tests/support/smollm2.hpp"

#include <boost/json.hpp>
#include <catch2/catch.hpp>
#include <set>
#include <sstream>

using namespace tenon;

namespace {

struct Golden {
  std::string kind, text;
  bool special;
  std::vector<std::int32_t> ids;
};

std::filesystem::path goldens() { return std::filesystem::path(TENON_TEST_DATA) / "goldens/tokenizer"; }

std::vector<Golden> read_goldens(const std::string& ids_file) {
  std::istringstream strings(read_file(goldens() / "strings.jsonl")), ids(read_file(goldens() / ids_file));
  std::vector<Golden> all;
  std::string line, ids_line;
  while (std::getline(strings, line) && std::getline(ids, ids_line)) {
    const json::value string = parse_json(line, "strings.jsonl"), list = parse_json(ids_line, ids_file);
    const JsonReader reader(string, "strings.jsonl");
    Golden golden{reader.at("kind").string(), reader.at("text").string(), reader.at("special").boolean(), {}};
    for (const json::value& id : list.as_array()) golden.ids.push_back(static_cast<std::int32_t>(id.as_int64()));
    all.push_back(std::move(golden));
  }
  return all;
}

void check_all(const Tokenizer& tokenizer, const std::string& ids_file) {
  const std::vector<Golden> all = read_goldens(ids_file);
  std::set<std::string> kinds;
  std::size_t wrong = 0;
  for (const Golden& golden : all) {
    kinds.insert(golden.kind);
    if (tokenizer.encode(golden.text, golden.special) == golden.ids) continue;
    if (++wrong > 5) continue;
    UNSCOPED_INFO(golden.kind << ": " << json::serialize(json::value(golden.text)));
  }
  CHECK(wrong == 0);
  CHECK(all.size() >= 2000);
  CHECK(kinds.size() >= 20);
}

} // namespace

TEST_CASE("tokenizer gives the reference's ids with SmolLM2's vocabulary, out of the GGUF file") {
  const Tokenizer tokenizer(read_gguf_tokenizer(GgufFile(smollm2_gguf())));
  CHECK(tokenizer.vocab_size() == 49152);
  CHECK(tokenizer.bos() == 1);
  CHECK(tokenizer.eos() == 2);
  CHECK(tokenizer.separator() == 0);
  CHECK_FALSE(tokenizer.add_bos());
  CHECK(tokenizer.chat_template().find("<|im_start|>") != std::string::npos);
  check_all(tokenizer, "smollm2.ids.jsonl");
}

TEST_CASE("tokenizer gives the reference's ids with a GPT-2 splitter, out of a Hugging Face file") {
  const std::filesystem::path file = goldens() / "small.tokenizer.json";
  check_all(Tokenizer(parse_hf_tokenizer(read_file(file), "small.tokenizer.json")), "small.ids.jsonl");
}

TEST_CASE("tokenizer gives the reference's ids with Llama 3's and Qwen2's splitters, stored and read back too") {
  for (const std::string name : {"llama3", "qwen2"}) {
    CAPTURE(name);
    const std::string file = name + ".tokenizer.json";
    const Tokenizer tokenizer(parse_hf_tokenizer(read_file(goldens() / file), file));
    CHECK(tokenizer.data().split == name);
    CHECK(tokenizer.data().ignore_merges == (name == "llama3"));
    CHECK(tokenizer.add_bos() == (name == "llama3"));
    CHECK(tokenizer.data().normalizer == (name == "qwen2" ? "nfc" : ""));
    check_all(tokenizer, name + ".ids.jsonl");
    check_all(Tokenizer::from_json(tokenizer.json()), name + ".ids.jsonl");
  }
}

TEST_CASE("tokenizer gives the same ids after it was stored and read back") {
  const Tokenizer first(parse_hf_tokenizer(read_file(goldens() / "small.tokenizer.json"), "small.tokenizer.json"));
  const Tokenizer again = Tokenizer::from_json(first.json());
  CHECK(again.digest() == first.digest());
  CHECK(again.json() == first.json());
  check_all(again, "small.ids.jsonl");
}

TEST_CASE("tokenizer decodes every golden string to itself, whole and streamed") {
  const Tokenizer tokenizer(read_gguf_tokenizer(GgufFile(smollm2_gguf())));
  std::size_t wrong = 0;
  for (const Golden& golden : read_goldens("smollm2.ids.jsonl")) {
    StreamDecoder stream(tokenizer);
    std::string streamed;
    for (std::int32_t id : golden.ids) {
      const std::string piece = stream.push(id);
      wrong += utf8_valid_prefix(piece) != piece.size();
      streamed += piece;
    }
    streamed += stream.flush();
    wrong += tokenizer.decode(golden.ids) != golden.text;
    wrong += streamed != golden.text;
  }
  CHECK(wrong == 0);
}
