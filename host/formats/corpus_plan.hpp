// How a corpus is divided: the units that go to one side or the other, and their order.
// Thread: pure functions; any thread.
#pragma once

#include "host/formats/corpus_text.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tenon {

// A whole record, or a piece of one. Borrows its text.
struct CorpusUnit {
  std::string_view text;
  std::size_t record = 0;
  bool first = true, last = true; // of its record
  std::string key;                // what the order hangs on
};

struct CorpusPlan {
  std::vector<CorpusUnit> units; // in the order in which sides take them
  std::int64_t held_out_tokens;  // wanted
  bool cut = false;
};

// bytes_per_token: measured on a sample of the text.
CorpusPlan plan_corpus(const CorpusText& text, const CorpusOptions& options, double bytes_per_token);

// Where to cut so that pieces have about `size` bytes: after a line, else after a space, else between characters.
std::vector<std::string_view> cut_text(std::string_view text, std::size_t size);

} // namespace tenon
