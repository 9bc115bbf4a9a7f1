// A small trace, for tests that read one.
#pragma once

#include "host/formats/trace_file.hpp"

namespace tenon {

// Two experts, one text of 5 tokens in 2 documents, blocks of 4.
inline TraceHead small_trace_head() {
  return {"sha256:model",
          "sha256:tokenizer",
          {{"base", "1.0.0", "sha256:b"}, {"legal", "1.2.0", "sha256:l"}},
          {{"policy", "token"}},
          4,
          {{"news", "sha256:news", 5, 2}}};
}

inline std::vector<float> small_trace_strengths() { return {1, 0, 0.25f, 0.75f, 0.5f, 0.5f, 0, 1, 1, 0}; }

inline void write_small_trace(const std::filesystem::path& path,
                              const std::vector<float>& strengths = small_trace_strengths()) {
  const std::vector<std::int32_t> tokens{3, 1, 4, 1, 5}, chosen(10, 0);
  const std::vector<float> scores(10, 0.5f), nll(5, 2.0f);
  const std::vector<std::uint64_t> starts{0, 2, 5};
  TraceWriter writer(path, small_trace_head(), 2);
  writer.write_documents("news", starts);
  const auto rows = [&](std::size_t first, std::size_t count) {
    return TraceRows{std::span(tokens).subspan(first, count), std::span(chosen).subspan(2 * first, 2 * count),
                     std::span(scores).subspan(2 * first, 2 * count),
                     std::span(strengths).subspan(2 * first, 2 * count), std::span(nll).subspan(first, count)};
  };
  writer.write("news", rows(0, 4));
  writer.write("news", rows(4, 1));
  writer.commit();
}

} // namespace tenon
