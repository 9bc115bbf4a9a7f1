// The text of a corpus: its inputs found, read, told from binary, and deduplicated.
// Thread: values; any thread.
#pragma once

#include "host/formats/corpus.hpp"
#include "registry/base/json.hpp"

#include <string>
#include <vector>

namespace tenon {

struct CorpusRecord {
  std::string text; // never empty; of a dialogue, as dialogue_text writes it
  std::string hash; // sha256 of the text
};

struct CorpusText {
  std::vector<CorpusRecord> records; // distinct, in input order
  std::string inputs;                // for messages: "docs/ and 2 more"
  std::string digest;                // sha256 over the records' hashes, in order
  CorpusReport report;               // files, records, bytes
};

// Errors: not_found, environment, usage (empty, binary, a bad JSONL line).
CorpusText read_corpus(const std::vector<std::filesystem::path>& inputs, const CorpusOptions& options,
                       const CorpusProgress& progress);

// What to_json wrote. Errors: integrity.
CorpusReport report_from_json(const JsonReader& reader);

// Why these bytes are no text ("a NUL byte at 12"), or "" if they are.
std::string why_not_text(std::string_view bytes);

} // namespace tenon
