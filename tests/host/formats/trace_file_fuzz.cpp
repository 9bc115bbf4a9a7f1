#include "host/formats/trace_file.hpp"
#include "registry/base/error.hpp"
#include "tests/support/mutate_json.hpp"
#include "tests/support/scratch.hpp"
#include "tests/support/trace_bytes.hpp"

#include <boost/json/serialize.hpp>
#include <catch2/catch.hpp>

namespace tenon {
namespace {

std::vector<std::byte> bytes_of(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  return {begin, begin + text.size()};
}

// The head alone damaged, in a file that is otherwise whole.
std::vector<std::byte> with_damaged_head(Mutator& mutator, const std::filesystem::path& folder,
                                         const SafetensorsFile& whole) {
  const std::string head = json::serialize(small_trace_head().to_json());
  write_safetensors(folder / "damaged", whole.tensors(), {{"tenon.trace", mutate_json(mutator, head)}});
  return bytes_of(folder / "damaged");
}

bool reads(std::span<const std::byte> bytes) {
  try {
    const TraceFile file(bytes, "fuzz");
    for (const TraceCorpus& corpus : file.head().corpora) {
      std::vector<float> row(file.head().experts.size());
      for (std::int64_t token = 0; token < corpus.tokens; ++token) file.strengths(corpus, token, row);
    }
    return true;
  } catch (const Error&) {
    return false;
  }
}

} // namespace

TEST_CASE("a damaged trace is read or refused, and never asks for memory it does not justify") {
  const Scratch scratch;
  write_small_trace(scratch.path() / "whole");
  const SafetensorsFile whole(scratch.path() / "whole");
  const std::vector<std::byte> valid = bytes_of(scratch.path() / "whole");
  REQUIRE(reads(valid));
  Mutator mutator(9);
  const AllocationWatch watch;
  int refused = 0;
  for (int i = 0; i < 1200; ++i)
    refused += !reads(i % 4 ? mutator.mutate(valid) : with_damaged_head(mutator, scratch.path(), whole));
  CHECK(refused > 300);
  CHECK(watch.largest() < 1000000);
}

} // namespace tenon
