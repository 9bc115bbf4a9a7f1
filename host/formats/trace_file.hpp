// A trace: what a router said, and how well the composition then predicted, token by token, as a safetensors file.
//
// For each corpus NAME of N tokens and D documents, with E experts (slot 0 the base):
//   NAME/tokens     I32 (N)     token ids
//   NAME/documents  I64 (D+1)   where documents begin; the last is N
//   NAME/scores     F32 (N,E)   the router's scores, log-odds in nats; column 0 the base's prior
//   NAME/strengths  F32 (N,E)   as applied; each row sums to 1
//   NAME/chosen     I32 (N,K)   slots by falling strength, -1 where fewer were chosen
//   NAME/nll        F32 (N)     -log p(next token) in nats; NaN at the last token of a block, which predicts nothing
// Tokens [b T, (b+1) T) are block b, read as a sequence of its own; the last block may be shorter. The one metadata key
// "tenon.trace" holds JSON:
//   {"schema": 1, "model": DIGEST, "tokenizer": DIGEST, "experts": [{"name", "version", "entry": DIGEST}],
//    "routing": {...}, "sequence_length": T, "corpora": [{"name", "digest", "tokens": N, "documents": D}]}
// In Python:
//   from safetensors.numpy import load_file
//   trace = load_file("trace.safetensors")
//   print(trace["news/strengths"].mean(0))
//
// Written and read in pieces: a long corpus is never in memory as a whole. Thread: a writer one, a file any.
#pragma once

#include "host/formats/safetensors_writer.hpp"
#include "registry/base/json.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace tenon {

struct TraceExpert {
  std::string name, version, entry; // entry: digest of the package's entry
  bool operator==(const TraceExpert&) const = default;
  std::string title() const { return name + " " + version; }
};

struct TraceCorpus {
  std::string name, digest; // digest: of the token shard
  std::int64_t tokens = 0, documents = 0;
};

struct TraceHead {
  std::string model, tokenizer; // digests
  std::vector<TraceExpert> experts;
  json::object routing;
  std::int64_t sequence_length = 0;
  std::vector<TraceCorpus> corpora;

  // Errors: integrity, naming the field.
  static TraceHead parse(const json::value& value, const std::string& where);
  json::object to_json() const;
};

// Rows of one corpus that follow those written before.
struct TraceRows {
  std::span<const std::int32_t> tokens, chosen; // (n), (n,K)
  std::span<const float> scores, strengths;     // (n,E)
  std::span<const float> nll;                   // (n)
};

class TraceWriter {
 public:
  // chosen: K. Errors: usage (a corpus name given twice, or with "/"); environment.
  TraceWriter(const std::filesystem::path& path, const TraceHead& head, std::int64_t chosen);
  void write_documents(const std::string& corpus, std::span<const std::uint64_t> starts);
  void write(const std::string& corpus, const TraceRows& rows);
  // Errors: bug (a corpus is not complete); environment.
  void commit() { writer_.commit(); }

 private:
  SafetensorsWriter writer_;
};

class TraceFile {
 public:
  // Errors: those of reading; incompatible (no trace, or of another schema); integrity (shapes that do not agree).
  explicit TraceFile(const std::filesystem::path& path);
  // For bytes that live elsewhere and outlive this object.
  TraceFile(std::span<const std::byte> bytes, const std::string& name);

  const TraceHead& head() const { return head_; }
  const std::string& name() const { return file_.name(); }
  // Strengths (n,E) of tokens [first, first + n), n = out.size() / E.
  // Errors: integrity (not finite, below 0, or a row that does not sum to 1); bug (outside the corpus).
  void strengths(const TraceCorpus& corpus, std::int64_t first, std::span<float> out) const;

 private:
  explicit TraceFile(SafetensorsFile file);
  SafetensorsFile file_;
  TraceHead head_;
};

} // namespace tenon
