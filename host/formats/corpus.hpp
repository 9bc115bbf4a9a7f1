// Text on disk becomes token shards: found, deduplicated, split, tokenised, cached.
//
// Inputs are files, directories (walked recursively in sorted order; hidden files, and files that are not text, are
// left out) and JSONL files (*.jsonl, one JSON object a line, its text in one field). A file or a JSONL line is a
// record. Records equal byte for byte count once.
//
// Dialogues: with a chat template, each line of JSONL is a dialogue, written as the template writes it; answers alone
// count for the loss, dialogues without one are left out and counted. They stay whole in the split, and are packed into
// blocks (host/formats/packing). Dialogues are equal where roles and contents are.
//
// Split: records, in the order of a seeded hash of their contents, go to the held-out side until it has its share, the
// rest to training. Where there are too few records for that, or single ones are too large, records are first cut
// into pieces of about four blocks, on line boundaries; pieces are then split like records. The hash depends on the
// text and the seed alone: not on file names, not on the machine. Thread: a function call is its own; two processes may
// prepare the same corpus (the cache is locked).
#pragma once

#include "host/formats/chat_template.hpp"
#include "host/formats/shards.hpp"
#include "host/formats/tokenizer.hpp"

#include <boost/json/fwd.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

struct CorpusOptions {
  std::int64_t sequence_length = 256;
  std::int64_t held_out_blocks = 60;      // at least; needs as many again to train on
  double held_out_share = 0.1;            // and about this share of the tokens
  std::int64_t max_held_out_blocks = 120; // but no more than this (or held_out_blocks, if larger)
  std::int64_t max_tokens = 0;            // about so many training tokens, chosen by the hash; 0: all
  std::uint64_t seed = 0;
  std::string field = {};                // of JSONL lines; empty: text, or messages for dialogues
  std::optional<ChatTemplate> chat = {}; // the text is dialogues
};

struct CorpusReport {
  std::int64_t files = 0, skipped_files = 0; // skipped: not text
  std::int64_t records = 0, duplicates = 0;
  std::int64_t text_bytes = 0; // of distinct records
  bool cut = false;            // records, or dialogues longer than a block, were cut into pieces
  std::int64_t train_documents = 0, held_out_documents = 0;
  std::int64_t train_tokens = 0, held_out_tokens = 0;
  std::int64_t train_blocks = 0, held_out_blocks = 0;
  // Of dialogues:
  bool dialogues = false;
  std::int64_t unanswered = 0; // without an answer, left out
  std::int64_t train_answer_tokens = 0, held_out_answer_tokens = 0;
  double overlap_13gram = 0; // share of held-out 13-grams (tokens, within documents) that training also holds
};

struct CorpusSplit {
  Shard train, held_out;
  CorpusReport report;
  std::string digest; // "sha256:...": what the text was, the tokenizer and how it was split
};

struct CorpusWhole {
  Shard tokens;
  CorpusReport report; // everything counts as train
  std::string digest;
};

// stage: "read", "tokenise", "compare"; done of total, in bytes (tokens for "compare").
using CorpusProgress = std::function<void(std::string_view stage, std::uint64_t done, std::uint64_t total)>;

// Errors: not_found (an input that is not there); usage (empty, binary, too small, a bad JSONL line): found and needed.
// Shards go to `cache`/<digest>/ and are used again while inputs, tokenizer and options are the same.
CorpusSplit prepare_corpus(const std::vector<std::filesystem::path>& inputs, const Tokenizer& tokenizer,
                           const CorpusOptions& options, const std::filesystem::path& cache,
                           const CorpusProgress& progress = {});

// All of the text in one shard, in input order; for calibration and evaluation. Of the options, sequence_length,
// max_tokens (whole records until there are so many), field and chat count; at least one block is needed.
CorpusWhole prepare_whole(const std::vector<std::filesystem::path>& inputs, const Tokenizer& tokenizer,
                          const CorpusOptions& options, const std::filesystem::path& cache,
                          const CorpusProgress& progress = {});

// The share of `of`'s 13-grams that `in` also holds (0 when `of` has none).
double overlap_13gram(const Shard& of, const Shard& in);

// The report as it stands in --json output and run records; one line for people.
boost::json::object to_json(const CorpusReport& report);
std::string describe(const CorpusReport& report);

} // namespace tenon
