#include "host/formats/corpus_plan.hpp"

#include "registry/base/sha256.hpp"

#include <algorithm>
#include <unordered_set>

namespace tenon {
namespace {

// At least the blocks asked for, at most the cap, else the share.
std::int64_t wanted_blocks(const CorpusOptions& options, double total_tokens) {
  double tokens = total_tokens;
  if (options.max_tokens > 0) {
    tokens = std::min(tokens, static_cast<double>(options.max_tokens) / (1.0 - options.held_out_share));
  }
  const double share = tokens * options.held_out_share / static_cast<double>(options.sequence_length);
  const std::int64_t cap = std::max(options.max_held_out_blocks, options.held_out_blocks);
  return std::clamp(static_cast<std::int64_t>(std::min(share, 1e15)), options.held_out_blocks, cap);
}

std::string key_of(std::uint64_t seed, std::string_view text_hash) {
  return Sha256().field(std::to_string(seed)).field(text_hash).hex();
}

} // namespace

std::vector<std::string_view> cut_text(std::string_view text, std::size_t size) {
  size = std::max<std::size_t>(size, 16);
  std::vector<std::string_view> pieces;
  while (text.size() > size + size / 2) {
    std::size_t end = size;
    const std::string_view window = text.substr(0, size);
    const std::size_t line = window.rfind('\n'), space = window.rfind(' ');
    if (line != std::string_view::npos && line >= size / 2) {
      end = line + 1;
    } else if (space != std::string_view::npos && space >= size / 2) {
      end = space; // the space leads the next piece, as words are spelt
    } else {
      while (end > size - 4 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    }
    pieces.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  pieces.push_back(text);
  return pieces;
}

CorpusPlan plan_corpus(const CorpusText& text, const CorpusOptions& options, double bytes_per_token) {
  const double total_tokens = static_cast<double>(text.report.text_bytes) / bytes_per_token;
  CorpusPlan plan;
  plan.held_out_tokens = wanted_blocks(options, total_tokens) * options.sequence_length;
  // Small corpora need small pieces, or one too many takes a good part of what is left to train on.
  const double piece_tokens =
      std::clamp(total_tokens / 256, static_cast<double>(options.sequence_length), 4.0 * options.sequence_length);
  const auto piece_bytes = static_cast<std::size_t>(piece_tokens * bytes_per_token) + 1;
  const auto limit_bytes =
      std::max(piece_bytes, static_cast<std::size_t>(static_cast<double>(plan.held_out_tokens) * bytes_per_token / 4));
  std::unordered_set<std::string> seen;
  for (std::size_t record = 0; record < text.records.size(); ++record) {
    const CorpusRecord& source = text.records[record];
    if (options.chat || source.text.size() <= limit_bytes) {
      plan.units.push_back({source.text, record, true, true, key_of(options.seed, source.hash)});
      continue;
    }
    plan.cut = true;
    const std::vector<std::string_view> pieces = cut_text(source.text, piece_bytes);
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      std::string key = key_of(options.seed, sha256(pieces[i]));
      // Equal pieces have equal keys: the second would sit on the other side of the split, or be trained on twice.
      if (!seen.insert(key).second) continue;
      plan.units.push_back({pieces[i], record, i == 0, i + 1 == pieces.size(), std::move(key)});
    }
  }
  std::sort(plan.units.begin(), plan.units.end(),
            [](const CorpusUnit& a, const CorpusUnit& b) { return a.key < b.key; });
  return plan;
}

} // namespace tenon
