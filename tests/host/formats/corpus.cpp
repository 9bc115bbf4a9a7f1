#include "host/formats/corpus.hpp"

#include "host/formats/corpus_plan.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "tests/support/scratch.hpp"

#include <fmt/format.h>
#include <catch2/catch.hpp>
#include <fstream>
#include <random>
#include <set>

using namespace tenon;
namespace fs = std::filesystem;

namespace {

// Lines that differ from each other, so that nothing is a duplicate by chance.
std::string prose(std::uint64_t seed, std::size_t size) {
  static const char* kWords[] = {"joint", "tenon", "mortise",  "oak",   "saw",
                                 "glue",  "peg",   "shoulder", "cheek", "chisel"};
  std::mt19937_64 random(seed);
  std::string text;
  while (text.size() < size) {
    for (int i = 0; i < 8; ++i) text += std::string(kWords[random() % 10]) + (i < 7 ? " " : "\n");
  }
  return text;
}

struct Fixture {
  fs::path put(const std::string& name, const std::string& text) {
    fs::create_directories((docs / name).parent_path());
    std::ofstream(docs / name, std::ios::binary) << text;
    return docs / name;
  }
  CorpusSplit prepare(const std::vector<fs::path>& inputs) {
    tokenised = false;
    return prepare_corpus(inputs, tokenizer, options, scratch.path() / "cache", progress);
  }
  CorpusSplit prepare() { return prepare({docs}); }
  std::string refusal_of(const std::vector<fs::path>& inputs, Code code) {
    try {
      prepare(inputs);
    } catch (const Error& error) {
      CHECK(error.code == code);
      return error.what();
    }
    return "";
  }
  // The texts of a side's documents, separators left out.
  std::set<std::string> texts(const Shard& shard) {
    std::set<std::string> all;
    for (std::size_t i = 0; i < shard.document_count(); ++i) all.insert(tokenizer.decode(shard.document(i), true));
    return all;
  }

  Fixture() { options.sequence_length = 32, options.held_out_blocks = 10; }

  bool tokenised = false; // by the last prepare(), or out of the cache
  const CorpusProgress progress = [this](std::string_view stage, std::uint64_t, std::uint64_t) {
    tokenised |= stage == "tokenise";
  };
  Scratch scratch;
  fs::path docs = scratch.path() / "docs";
  Tokenizer tokenizer{byte_tokenizer()};
  CorpusOptions options;
};

bool has(const std::string& message, const std::string& part) { return message.find(part) != std::string::npos; }

} // namespace

TEST_CASE_METHOD(Fixture, "corpus walks directories in order, and leaves out hidden and binary files") {
  put("b.txt", prose(1, 400));
  put("a/z.txt", prose(2, 400));
  put(".hidden", prose(3, 400));
  put(".git/objects", prose(4, 400));
  put("picture.png", std::string("\x89PNG\0\0", 6));
  const CorpusWhole whole = prepare_whole({docs}, tokenizer, options, scratch.path() / "cache");
  CHECK(whole.report.files == 2);
  CHECK(whole.report.skipped_files == 1);
  REQUIRE(whole.tokens.document_count() == 2);
  CHECK(tokenizer.decode(whole.tokens.document(0), true) == prose(2, 400));
  CHECK(tokenizer.decode(whole.tokens.document(1), true) == prose(1, 400));
  CHECK(whole.tokens.document(0).back() == tokenizer.separator());
}

TEST_CASE_METHOD(Fixture, "corpus reads a field of JSONL, each line a record, equal ones once") {
  const fs::path file =
      put("a.jsonl", "{\"text\": \"one\", \"n\": 1}\r\n\n{\"text\": \"two\\n\"}\n{\"text\": \"one\"}");
  options.sequence_length = 4;
  const CorpusWhole whole = prepare_whole({file}, tokenizer, options, scratch.path() / "cache");
  CHECK(whole.report.records == 2);
  CHECK(whole.report.duplicates == 1);
  CHECK(texts(whole.tokens) == std::set<std::string>{"one", "two\n"});
}

TEST_CASE_METHOD(Fixture, "corpus names file and line of a bad JSONL line") {
  CHECK(has(refusal_of({put("a.jsonl", "{\"text\": \"x\"}\n{oops\n")}, Code::usage), "a.jsonl:2"));
  const std::string message = refusal_of({put("b.jsonl", "{\"body\": \"x\", \"id\": 3}\n")}, Code::usage);
  CHECK(has(message, "b.jsonl:1: found the fields body, id, need \"text\""));
  CHECK(has(message, "--set data.field=NAME"));
  CHECK(has(refusal_of({put("c.jsonl", "{\"text\": 3}\n")}, Code::usage), "is no string"));
}

TEST_CASE_METHOD(Fixture, "corpus splits by record: nothing is on both sides, nothing is lost") {
  for (std::uint64_t i = 0; i < 60; ++i) put(fmt::format("{}.txt", i), prose(i, 60));
  put("copy.txt", prose(0, 60));
  const CorpusSplit split = prepare();
  CHECK(split.report.duplicates == 1);
  CHECK_FALSE(split.report.cut);
  const std::set<std::string> train = texts(split.train), held_out = texts(split.held_out);
  CHECK(train.size() + held_out.size() == 60);
  for (const std::string& text : held_out) CHECK(train.count(text) == 0);
  CHECK(split.report.held_out_blocks >= options.held_out_blocks);
  CHECK(split.report.train_blocks > 2 * split.report.held_out_blocks);
}

TEST_CASE_METHOD(Fixture, "corpus cuts one large record on line boundaries, and keeps its text") {
  const std::string text = prose(9, 12000);
  options.sequence_length = 128; // longer than a line
  put("one.txt", text);
  const CorpusSplit split = prepare();
  CHECK(split.report.cut);
  CHECK(split.report.held_out_blocks >= options.held_out_blocks);
  std::size_t bytes = 0;
  for (const Shard* side : {&split.train, &split.held_out}) {
    for (const std::string& piece : texts(*side)) {
      CHECK(piece.back() == '\n');
      CHECK(text.find(piece) != std::string::npos);
      bytes += piece.size();
    }
  }
  CHECK(bytes == text.size());
  // Only the record's end has a separator.
  std::size_t separators = 0;
  for (const Shard* side : {&split.train, &split.held_out}) {
    for (std::int32_t token : side->tokens()) separators += token == tokenizer.separator();
  }
  CHECK(separators == 1);
}

TEST_CASE_METHOD(Fixture, "corpus is split by its text and the seed, not by file names") {
  for (std::uint64_t i = 0; i < 40; ++i) put(fmt::format("{}.txt", i), prose(i, 60));
  const std::set<std::string> first = texts(prepare().held_out);
  for (std::uint64_t i = 0; i < 40; ++i)
    fs::rename(docs / fmt::format("{}.txt", i), docs / fmt::format("x{}.md", 99 - i));
  CHECK(texts(prepare().held_out) == first);
  options.seed = 1;
  CHECK(texts(prepare().held_out) != first);
}

TEST_CASE_METHOD(Fixture, "corpus comes from the cache until text, tokenizer or options change") {
  put("a.txt", prose(1, 4000));
  const CorpusSplit first = prepare();
  CHECK(tokenised);
  const CorpusSplit again = prepare();
  CHECK_FALSE(tokenised);
  CHECK(again.digest == first.digest);
  CHECK(again.train.digest() == first.train.digest());
  CHECK(to_json(again.report) == to_json(first.report)); // a package made from either is the same
  CHECK(again.report.overlap_13gram == first.report.overlap_13gram);
  options.sequence_length = 31;
  CHECK(prepare().digest != first.digest);
  options.sequence_length = 32;
  put("a.txt", prose(2, 4000));
  CHECK(prepare().digest != first.digest);
  TokenizerData data = byte_tokenizer();
  data.add_bos = true;
  tokenizer = Tokenizer(data);
  put("a.txt", prose(1, 4000));
  const CorpusSplit other = prepare();
  CHECK(other.digest != first.digest);
  CHECK(other.train.tokenizer_digest() == tokenizer.digest());
}

TEST_CASE_METHOD(Fixture, "corpus makes a damaged cache again") {
  put("a.txt", prose(1, 4000));
  const CorpusSplit first = prepare();
  const fs::path shard = first.train.path();
  const std::string sound = read_file(shard);
  std::string bytes = sound;
  bytes[200] ^= 1;
  write_file(shard, bytes);
  prepare();
  CHECK(tokenised);
  CHECK(read_file(shard) == sound);
  fs::remove(shard);
  CHECK(prepare().train.digest() == first.train.digest());
  write_file(shard.parent_path() / "corpus.json", "{}");
  CHECK(prepare().train.digest() == first.train.digest());
}

TEST_CASE_METHOD(Fixture, "corpus takes about as many training tokens as asked for") {
  put("a.txt", prose(1, 60000));
  options.max_tokens = 3000;
  const CorpusSplit split = prepare();
  CHECK(split.report.train_tokens >= 3000);
  CHECK(split.report.train_tokens < 3000 + 5 * 32);
  CHECK(split.report.held_out_blocks >= 10);
}

TEST_CASE_METHOD(Fixture, "corpus that is too small is refused with both numbers and the remedy") {
  const std::string message = refusal_of({put("a.txt", prose(1, 150).substr(0, 150))}, Code::usage);
  CHECK(has(message, "[corpus] "));
  CHECK(has(message, "a.txt: found 4 blocks of 32 tokens (151 tokens), need 20: 10 held out"));
  CHECK(has(message, "--set data.held_out_blocks=2"));
  for (const auto& entry : fs::recursive_directory_iterator(scratch.path() / "cache")) {
    CHECK(entry.path().extension() != ".tokens");
  }
}

TEST_CASE_METHOD(Fixture, "corpus that is empty, binary or not there is refused") {
  CHECK(has(refusal_of({}, Code::usage), "found no input"));
  CHECK(has(refusal_of({docs / "none"}, Code::not_found), "none"));
  CHECK(has(refusal_of({put("empty.txt", "")}, Code::usage), "no text"));
  CHECK(has(refusal_of({put("blank.txt", " \n\t\n")}, Code::usage), "no text"));
  CHECK(has(refusal_of({put("nul.txt", std::string("ab\0cd", 5))}, Code::usage), "a NUL byte at 2"));
  CHECK(has(refusal_of({put("latin.txt", "\xE9\xE8\xE0\xFC abc")}, Code::usage), "4 of 8 bytes that are no UTF-8"));
  fs::remove_all(docs);
  put("x/a.bin", std::string("\0\1", 2));
  const std::string message = refusal_of({docs}, Code::usage);
  CHECK(has(message, "1 that are not text"));
  CHECK(has(message, "a.bin: a NUL byte at 0"));
}

TEST_CASE_METHOD(Fixture, "corpus keeps the odd byte that is no UTF-8") {
  put("a.txt", prose(1, 4000) + "caf\xE9\n");
  const CorpusWhole whole = prepare_whole({docs}, tokenizer, options, scratch.path() / "cache");
  CHECK(has(tokenizer.decode(whole.tokens.tokens(), true), "caf\xE9"));
}

TEST_CASE_METHOD(Fixture, "corpus treats special tokens in the text as ordinary characters") {
  put("a.txt", prose(1, 4000) + "<|eos|>");
  const CorpusWhole whole = prepare_whole({docs}, tokenizer, options, scratch.path() / "cache");
  CHECK(std::count(whole.tokens.tokens().begin(), whole.tokens.tokens().end(), *tokenizer.eos()) == 1);
}

TEST_CASE_METHOD(Fixture, "corpus refuses options that cannot be, with found and needed") {
  put("a.txt", prose(1, 4000));
  options.held_out_blocks = 0;
  CHECK(has(refusal_of({docs}, Code::usage), "held_out_blocks 0"));
  options.held_out_blocks = 10;
  options.sequence_length = -1;
  CHECK(has(refusal_of({docs}, Code::usage), "sequence_length -1"));
  options.sequence_length = 32;
  options.held_out_share = 0.9;
  CHECK(has(refusal_of({docs}, Code::usage), "held_out_share 0.9"));
}

namespace {

struct Dialogues : Fixture {
  Dialogues() { options.chat = ChatTemplate::named("chatml"), options.sequence_length = 64; }

  static std::string line(const std::string& question, const std::string& answer) {
    return R"({"id": 7, "messages": [{"role": "user", "content": ")" + question +
           R"("}, {"role": "assistant", "content": ")" + answer + "\"}]}\n";
  }
  // Lines that are all different.
  static std::string lines(int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += line(fmt::format("number {}", i), fmt::format("it is {}", i * i));
    return text;
  }
  std::string counted(const Shard& shard) {
    std::vector<std::int32_t> said;
    for (std::size_t i = 0; i < shard.tokens().size(); ++i)
      if (shard.counts(i)) said.push_back(shard.tokens()[i]);
    return tokenizer.decode(said);
  }
};

} // namespace

TEST_CASE_METHOD(Dialogues, "corpus of dialogues counts answers alone, equal dialogues once, unanswered ones never") {
  const fs::path file = put("a.jsonl", line("Why?", "So.") + line("Why?", "So.") + line("Who?", " ") +
                                           R"({"messages": [{"role": "user", "content": "Hm"}]})"
                                           "\n" +
                                           line("What?", "This."));
  const CorpusWhole whole = prepare_whole({file}, tokenizer, options, scratch.path() / "cache");
  CHECK(whole.report.records == 2);
  CHECK(whole.report.duplicates == 1);
  CHECK(whole.report.unanswered == 2);
  CHECK(counted(whole.tokens) == "So.<|im_end|>This.<|im_end|>");
  CHECK(whole.report.train_answer_tokens == 3 + 1 + 5 + 1);
  CHECK(whole.report.train_documents == 2); // padding is none
  CHECK(tokenizer.decode(whole.tokens.document(0)) ==
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nSo.<|im_end|>\n<|eos|>");
  CHECK(has(describe(whole.report), "2 dialogues from 1 files, 2 without an answer left out"));
}

TEST_CASE_METHOD(Dialogues, "corpus of dialogues is split by dialogue, packed in blocks, and cached apart from text") {
  put("a.jsonl", lines(120));
  put("readme.txt", "not a dialogue");
  options.held_out_blocks = 6;
  const CorpusSplit split = prepare(), again = prepare();
  CHECK_FALSE(tokenised);
  CHECK(again.report.unanswered == 0);
  CHECK(again.report.train_answer_tokens == split.report.train_answer_tokens);
  CHECK(split.report.skipped_files == 1);
  CHECK_FALSE(split.report.cut);
  CHECK(split.report.train_documents + split.report.held_out_documents == 120);
  CHECK(split.train.packed_length() == 64);
  for (const Shard* side : {&split.train, &split.held_out}) CHECK(side->tokens().size() % 64 == 0);
  // Whatever is held out is not trained on.
  for (std::size_t i = 0; i < split.held_out.document_count(); ++i) {
    if (split.held_out.is_padding(i)) continue;
    CHECK(texts(split.train).count(tokenizer.decode(split.held_out.document(i), true)) == 0);
  }
  options.chat = ChatTemplate::named("plain");
  CHECK(prepare().digest != split.digest);
}

TEST_CASE_METHOD(Dialogues, "corpus out of the cache still says what was left out this time") {
  const fs::path all = put("all.jsonl", line("Why?", "So.")),
                 more = put("more.jsonl", line("Why?", "So.") + line("Who?", " ") + line("Why?", "So."));
  CHECK(prepare_whole({all}, tokenizer, options, scratch.path() / "cache").report.unanswered == 0);
  const CorpusReport report = prepare_whole({more}, tokenizer, options, scratch.path() / "cache", progress).report;
  CHECK_FALSE(tokenised);
  CHECK(report.unanswered == 1);
  CHECK(report.duplicates == 1);
}

TEST_CASE_METHOD(Dialogues, "corpus of dialogues says that some are longer than a block and were cut") {
  const std::string longer = line("Why?", std::string(200, 'x'));
  const CorpusWhole whole =
      prepare_whole({put("a.jsonl", line("Why?", "So.") + longer)}, tokenizer, options, scratch.path() / "cache");
  CHECK(whole.report.cut);
  CHECK(has(describe(whole.report), "2 dialogues from 1 files, those longer than a block cut into pieces"));
  CHECK(counted(whole.tokens).find(std::string(100, 'x')) != std::string::npos);
}

TEST_CASE_METHOD(Dialogues, "corpus of dialogues names file and line of what is none") {
  const auto refused = [&](const std::string& text) {
    return refusal_of({put("a.jsonl", line("Why?", "So.") + text + "\n")}, Code::usage);
  };
  CHECK(has(refused("{oops"), "a.jsonl:2"));
  CHECK(has(refused(R"({"text": "x"})"), "a.jsonl:2: found the fields text, need \"messages\""));
  CHECK(has(refused(R"({"messages": "x"})"), "a.jsonl:2: found no list of messages"));
  CHECK(has(refused(R"({"messages": ["x"]})"), "a.jsonl:2: message 1: found no object"));
  CHECK(has(refused(R"({"messages": [{"role": "user"}]})"), "message 1: found no \"content\""));
  CHECK(has(refused(R"({"messages": [{"role": "user", "content": ["x"]}]})"), "need a string"));
  CHECK(has(refused(R"({"messages": [{"role": "tool", "content": "x"}]})"), "the role \"tool\""));
  CHECK(has(refused(R"({"messages": [{"role": "assistant", "content": "x", "weight": 0}]})"), "\"weight\""));
  CHECK(has(refusal_of({put("b.txt", "text")}, Code::usage), "need dialogues in *.jsonl"));
  CHECK(has(refusal_of({put("c.jsonl", line("Why?", ""))}, Code::usage), "1 dialogues without an answer"));
  options.chat.reset();
  CHECK(has(refusal_of({put("d.jsonl", line("Why?", "So."))}, Code::usage), "--set data.format=chat"));
}

TEST_CASE("overlap counts the held-out 13-grams that training holds") {
  const Scratch scratch;
  const std::string tokenizer = Tokenizer(byte_tokenizer()).digest();
  const auto shard = [&](const char* name, const std::vector<std::vector<std::int32_t>>& documents) {
    write_shard(scratch.path() / name, documents, 260, tokenizer);
    return Shard::open(scratch.path() / name);
  };
  std::vector<std::int32_t> run(30);
  for (std::size_t i = 0; i < run.size(); ++i) run[i] = static_cast<std::int32_t>(i);
  const Shard train = shard("train", {run});
  // Tokens 10..29 hold eight 13-grams, all known; the same with one changed in the middle holds none that are.
  const std::vector<std::int32_t> known(run.begin() + 10, run.end());
  std::vector<std::int32_t> changed = known;
  changed[10] = 99;
  CHECK(overlap_13gram(shard("a", {known}), train) == 1.0);
  CHECK(overlap_13gram(shard("b", {changed}), train) == 0.0);
  CHECK(overlap_13gram(shard("c", {known, changed}), train) == 0.5);
  // A 13-gram lies within one document.
  CHECK(overlap_13gram(shard("d", {known}),
                       shard("halves", {{run.begin(), run.begin() + 18}, {run.begin() + 18, run.end()}})) == 0.0);
  CHECK(overlap_13gram(shard("e", {{1, 2, 3}}), train) == 0.0);
}

TEST_CASE("text is cut after lines, else before spaces, else between characters") {
  const auto joined = [](const std::vector<std::string_view>& pieces) {
    std::string all;
    for (std::string_view piece : pieces) all += piece;
    return all;
  };
  const std::string lines = prose(1, 1000);
  for (std::string_view piece : cut_text(lines, 200)) CHECK(piece.back() == '\n');
  CHECK(joined(cut_text(lines, 200)) == lines);
  std::string words;
  while (words.size() < 500) words += " word";
  for (std::string_view piece : cut_text(words, 50)) CHECK(piece.front() == ' ');
  std::string han;
  while (han.size() < 500) han += "\u4eba";
  for (std::string_view piece : cut_text(han, 50)) CHECK(piece.size() % 3 == 0);
  CHECK(joined(cut_text(std::string(400, '\x80'), 50)).size() == 400);
}
