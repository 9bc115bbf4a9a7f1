#include "host/formats/corpus.hpp"

#include "host/formats/corpus_plan.hpp"
#include "host/formats/corpus_text.hpp"
#include "host/formats/dialogue.hpp"
#include "host/formats/packing.hpp"
#include "registry/base/error.hpp"
#include "registry/base/json.hpp"
#include "registry/base/sha256.hpp"

#include <fmt/format.h>
#include <algorithm>
#include <boost/json.hpp>
#include <optional>

namespace tenon {
namespace {

namespace fs = std::filesystem;

void check_options(const CorpusOptions& options) {
  const auto need = [](bool good, const std::string& found, const char* needed) {
    if (!good) throw Error(Code::usage, "corpus", fmt::format("found {}, need {}", found, needed));
  };
  need(options.sequence_length >= 2 && options.sequence_length <= 1 << 20,
       fmt::format("sequence_length {}", options.sequence_length), "2 to 1048576");
  need(options.held_out_blocks >= 1 && options.held_out_blocks <= 1 << 20,
       fmt::format("held_out_blocks {}", options.held_out_blocks), "1 to 1048576");
  need(options.held_out_share >= 0 && options.held_out_share <= 0.5,
       fmt::format("held_out_share {}", options.held_out_share), "0 to 0.5");
  need(options.max_tokens >= 0, fmt::format("max_tokens {}", options.max_tokens), "0 (all) or more");
}

// Average over slices spread across the text; only sizes of pieces hang on it.
double bytes_per_token(const CorpusText& text, const Tokenizer& tokenizer) {
  constexpr std::size_t kSlices = 16, kSliceBytes = 4096;
  std::size_t bytes = 0, tokens = 0;
  const std::size_t step = std::max<std::size_t>(1, text.records.size() / kSlices);
  for (std::size_t i = 0; i < text.records.size() && bytes < kSlices * kSliceBytes; i += step) {
    const std::string_view record = text.records[i].text;
    const std::size_t slices = std::max<std::size_t>(1, kSlices / text.records.size());
    for (std::size_t s = 0; s < slices; ++s) {
      const std::string_view slice = record.substr(record.size() / slices * s, kSliceBytes);
      bytes += slice.size();
      tokens += tokenizer.encode(slice).size();
    }
  }
  return static_cast<double>(bytes) / static_cast<double>(std::max<std::size_t>(1, tokens));
}

struct Document {
  std::size_t record;
  const char* place; // in the record
  std::vector<std::int32_t> tokens;
  std::vector<bool> counts = {}; // of a dialogue
};

Document tokenise(const CorpusUnit& unit, const Tokenizer& tokenizer, const CorpusOptions& options) {
  if (options.chat) {
    MaskedDocument dialogue = tokenise_dialogue(dialogue_from_text(unit.text), *options.chat, tokenizer);
    return {unit.record, unit.text.data(), std::move(dialogue.tokens), std::move(dialogue.counts)};
  }
  Document document{unit.record, unit.text.data(), tokenizer.encode(unit.text)};
  if (unit.first && tokenizer.add_bos()) document.tokens.insert(document.tokens.begin(), *tokenizer.bos());
  if (unit.last && tokenizer.separator()) document.tokens.push_back(*tokenizer.separator());
  return document;
}

struct Side {
  std::vector<Document> documents;
  std::int64_t tokens = 0;

  void add(Document document) {
    tokens += static_cast<std::int64_t>(document.tokens.size());
    documents.push_back(std::move(document));
  }
  bool any_longer(std::int64_t length) const {
    return std::any_of(documents.begin(), documents.end(), [&](const Document& document) {
      return static_cast<std::int64_t>(document.tokens.size()) > length;
    });
  }
  // In the order of the inputs, so that pieces of a record that stayed together read on.
  void write(const fs::path& path, const Tokenizer& tokenizer, const CorpusOptions& options) {
    std::sort(documents.begin(), documents.end(), [](const Document& a, const Document& b) {
      return a.record != b.record ? a.record < b.record : std::less<>()(a.place, b.place);
    });
    if (options.chat) return write_packed(path, tokenizer, static_cast<std::size_t>(options.sequence_length));
    std::vector<std::vector<std::int32_t>> plain;
    for (Document& document : documents) plain.push_back(std::move(document.tokens));
    write_shard(path, plain, tokenizer.vocab_size(), tokenizer.digest());
  }

 private:
  void write_packed(const fs::path& path, const Tokenizer& tokenizer, std::size_t length) {
    std::vector<MaskedDocument> dialogues;
    for (Document& document : documents) dialogues.push_back({std::move(document.tokens), std::move(document.counts)});
    const auto padding = tokenizer.separator() ? tokenizer.separator() : tokenizer.eos();
    const std::vector<MaskedDocument> packed = pack(std::move(dialogues), length, padding.value_or(0));
    if (packed.empty())
      throw Error(Code::usage, "corpus", fmt::format("found no answer that reaches into a block of {} tokens", length),
                  "use longer sequences: --set data.sequence_length=... in training, --sequence-length elsewhere");
    write_packed_shard(path, packed, length, tokenizer.vocab_size(), tokenizer.digest());
  }
};

[[noreturn]] void too_small(const CorpusText& text, const CorpusOptions& options, std::int64_t tokens,
                            std::int64_t needed) {
  const std::int64_t blocks = tokens / options.sequence_length;
  throw Error(
      Code::usage, "corpus",
      fmt::format(
          "{}: found {} blocks of {} tokens ({} tokens{}), need {}: {} held out and as many to train on", text.inputs,
          blocks, options.sequence_length, tokens,
          text.report.duplicates > 0 ? fmt::format("; {} duplicates were left out", text.report.duplicates) : "",
          needed, options.held_out_blocks),
      blocks >= 4 ? fmt::format("add text or use --set data.held_out_blocks={}", blocks / 2)
                  : "add text, or use shorter sequences: --set data.sequence_length=...");
}

std::string key_of(const char* kind, const CorpusText& text, const Tokenizer& tokenizer, const CorpusOptions& options) {
  Sha256 key;
  key.field(kind).field(text.digest).field(tokenizer.digest());
  for (std::int64_t number :
       {options.sequence_length, options.held_out_blocks, options.max_held_out_blocks, options.max_tokens}) {
    key.field(std::to_string(number));
  }
  key.field(fmt::format("{}", options.held_out_share)).field(std::to_string(options.seed));
  if (options.chat) { // told by what it makes of a small dialogue
    key.field("chat");
    for (const std::int32_t id : options.chat->encode_dialogue(tokenizer, {{"user", "a"}, {"assistant", "b"}}).ids)
      key.field(std::to_string(id));
  }
  return key.hex();
}

// The same text may have lain in other files, among other things that were left out.
void tell_reading(CorpusReport& report, const CorpusReport& read) {
  for (const auto count :
       {&CorpusReport::files, &CorpusReport::skipped_files, &CorpusReport::duplicates, &CorpusReport::unanswered})
    report.*count = read.*count;
}

// Prepared before, and whole: the shards that the report names.
std::optional<CorpusReport> cached(const fs::path& folder, const CorpusReport& read,
                                   const std::vector<std::pair<const char*, std::optional<Shard>*>>& shards) {
  try {
    const json::value stored = read_json(folder / "corpus.json");
    const JsonReader reader(stored, "corpus.json");
    for (const auto& [name, shard] : shards) {
      *shard = Shard::open(folder / name);
      if ((*shard)->digest() != reader.at(name).string()) return std::nullopt;
    }
    CorpusReport report = report_from_json(reader.at("report"));
    tell_reading(report, read);
    return report;
  } catch (const Error& error) {
    // Missing is ordinary. Damage costs no more than making it again.
    if (error.code != Code::not_found && error.code != Code::integrity) throw;
    return std::nullopt;
  }
}

void fill_split(const CorpusText& text, const Tokenizer& tokenizer, const CorpusOptions& options, CorpusReport& report,
                const fs::path& folder, const CorpusProgress& progress) {
  const CorpusPlan plan = plan_corpus(text, options, bytes_per_token(text, tokenizer));
  const auto total = static_cast<std::uint64_t>(text.report.text_bytes);
  Side train, held_out;
  std::uint64_t done = 0;
  for (const CorpusUnit& unit : plan.units) {
    if (options.max_tokens > 0 && train.tokens >= options.max_tokens) break;
    Side& side = held_out.tokens < plan.held_out_tokens ? held_out : train;
    side.add(tokenise(unit, tokenizer, options));
    done += unit.text.size();
    if (progress) progress("tokenise", done, total);
  }
  const std::int64_t tokens = train.tokens + held_out.tokens, needed = 2 * options.held_out_blocks;
  const bool limited = options.max_tokens > 0 && train.tokens >= options.max_tokens;
  if ((tokens / options.sequence_length < needed && !limited) || train.tokens < options.sequence_length ||
      held_out.tokens < options.held_out_blocks * options.sequence_length) {
    too_small(text, options, tokens, needed);
  }
  report.cut = options.chat ? train.any_longer(options.sequence_length) || held_out.any_longer(options.sequence_length)
                            : plan.cut;
  train.write(folder / "train.tokens", tokenizer, options);
  held_out.write(folder / "held_out.tokens", tokenizer, options);
}

struct Count {
  std::int64_t &documents, &tokens, &blocks, &answer_tokens;
};

// Padding is no document and no text.
void count(const Shard& shard, std::int64_t length, Count into) {
  into.blocks = static_cast<std::int64_t>(shard.tokens().size()) / length;
  into.documents = into.tokens = into.answer_tokens = 0;
  for (std::size_t i = 0; i < shard.document_count(); ++i) {
    if (shard.is_padding(i)) continue;
    ++into.documents;
    into.tokens += static_cast<std::int64_t>(shard.document(i).size());
  }
  for (std::size_t i = 0; shard.packed_length() > 0 && i < shard.tokens().size(); ++i)
    into.answer_tokens += shard.counts(i);
}

} // namespace

CorpusSplit prepare_corpus(const std::vector<fs::path>& inputs, const Tokenizer& tokenizer,
                           const CorpusOptions& options, const fs::path& cache, const CorpusProgress& progress) {
  check_options(options);
  const CorpusText text = read_corpus(inputs, options, progress);
  const std::string key = key_of("tenon.corpus.split/1", text, tokenizer, options);
  const fs::path folder = cache / key;
  const FileLock lock(folder / "lock");
  std::optional<Shard> train, held_out;
  if (auto report = cached(folder, text.report, {{"train.tokens", &train}, {"held_out.tokens", &held_out}})) {
    return {*train, *held_out, *report, "sha256:" + key};
  }
  CorpusReport report = text.report;
  fill_split(text, tokenizer, options, report, folder, progress);
  train = Shard::open(folder / "train.tokens");
  held_out = Shard::open(folder / "held_out.tokens");
  const Count of_train{report.train_documents, report.train_tokens, report.train_blocks, report.train_answer_tokens};
  count(*train, options.sequence_length, of_train);
  count(*held_out, options.sequence_length,
        {report.held_out_documents, report.held_out_tokens, report.held_out_blocks, report.held_out_answer_tokens});
  if (progress) progress("compare", 0, train->tokens().size());
  report.overlap_13gram = overlap_13gram(*held_out, *train);
  if (progress) progress("compare", train->tokens().size(), train->tokens().size());
  write_file(folder / "corpus.json", pretty_json(json::object{{"train.tokens", train->digest()},
                                                              {"held_out.tokens", held_out->digest()},
                                                              {"report", to_json(report)}}));
  return {*train, *held_out, report, "sha256:" + key};
}

CorpusWhole prepare_whole(const std::vector<fs::path>& inputs, const Tokenizer& tokenizer, const CorpusOptions& options,
                          const fs::path& cache, const CorpusProgress& progress) {
  check_options(options);
  const CorpusText text = read_corpus(inputs, options, progress);
  const std::string key = key_of("tenon.corpus.whole/1", text, tokenizer, options);
  const fs::path folder = cache / key;
  const FileLock lock(folder / "lock");
  std::optional<Shard> shard;
  if (auto report = cached(folder, text.report, {{"all.tokens", &shard}})) return {*shard, *report, "sha256:" + key};
  CorpusReport report = text.report;
  Side side;
  std::uint64_t done = 0;
  for (std::size_t i = 0; i < text.records.size(); ++i) {
    if (options.max_tokens > 0 && side.tokens >= options.max_tokens) break;
    side.add(tokenise({text.records[i].text, i, true, true, ""}, tokenizer, options));
    done += text.records[i].text.size();
    if (progress) progress("tokenise", done, static_cast<std::uint64_t>(text.report.text_bytes));
  }
  if (!options.chat && side.tokens < options.sequence_length) {
    throw Error(
        Code::usage, "corpus",
        fmt::format("{}: found {} tokens, need a block of {}", text.inputs, side.tokens, options.sequence_length),
        "add text, or use shorter sequences");
  }
  report.cut = options.chat && side.any_longer(options.sequence_length);
  side.write(folder / "all.tokens", tokenizer, options);
  shard = Shard::open(folder / "all.tokens");
  count(*shard, options.sequence_length,
        {report.train_documents, report.train_tokens, report.train_blocks, report.train_answer_tokens});
  write_file(folder / "corpus.json",
             pretty_json(json::object{{"all.tokens", shard->digest()}, {"report", to_json(report)}}));
  return {*shard, report, "sha256:" + key};
}

} // namespace tenon
