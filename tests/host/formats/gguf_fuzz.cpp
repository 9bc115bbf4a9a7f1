#include "host/formats/gguf.hpp"
#include "host/formats/source_model.hpp"
#include "registry/base/error.hpp"
#include "tests/support/mutate.hpp"
#include "tests/support/tiny_llama.hpp"

#include <catch2/catch.hpp>

namespace tenon {
namespace {

// Calls every getter on every value: each answers or throws.
void read_values(const GgufFile& file) {
  const auto attempt = [](auto getter) {
    try {
      getter();
    } catch (const Error&) {
    }
  };
  for (const GgufValue& value : file.values()) {
    touch(value.bytes);
    attempt([&] { touch(std::as_bytes(std::span(file.string(value.key)))); });
    attempt([&] { file.integer(value.key); });
    attempt([&] { file.number(value.key); });
    attempt([&] { file.boolean(value.key); });
    attempt([&] { file.integers(value.key); });
    attempt([&] { file.numbers(value.key); });
    attempt([&] {
      for (const std::string_view text : file.strings(value.key)) touch(std::as_bytes(std::span(text)));
    });
  }
}

bool reads(std::span<const std::byte> bytes) {
  try {
    const GgufFile file(bytes, "fuzz");
    read_values(file);
    for (const GgufTensor& tensor : file.tensors()) {
      touch(tensor.bytes);
      std::vector<float> numbers(tensor.elements());
      dequantise(tensor, numbers);
    }
    return true;
  } catch (const Error&) {
    return false;
  }
}

std::vector<std::byte> small_file() {
  GgufBytes file;
  file.string("general.architecture", "llama").u32("llama.block_count", 1).f32("eps", 1e-5f).boolean("flag", true);
  file.strings("tokens", {"a", "bc", ""});
  file.value("types", 9, GgufBytes::raw<std::uint32_t>(5) + GgufBytes::raw<std::uint64_t>(2) + std::string(8, '\1'));
  file.value("nested", 9,
             GgufBytes::raw<std::uint32_t>(9) + GgufBytes::raw<std::uint64_t>(1) + GgufBytes::raw<std::uint32_t>(8) +
                 GgufBytes::raw<std::uint64_t>(1) + GgufBytes::raw_string("in"));
  file.value("u64", 10, GgufBytes::raw<std::uint64_t>(5)).value("f64", 12, GgufBytes::raw(0.5));
  file.tensor("a", 0, {4, 2}, std::string(32, '\1')).tensor("q8", 8, {32, 2}, std::string(68, '\2'));
  file.tensor("q4", 3, {64}, std::string(40, '\3')).tensor("h", 30, {3}, std::string(6, '\4'));
  file.tensor("q5_0", 6, {32}, std::string(22, '\5')).tensor("q5_1", 7, {32}, std::string(24, '\6'));
  file.tensor("q4_k", 12, {256}, std::string(144, '\7')).tensor("q5_k", 13, {256}, std::string(176, '\x10'));
  file.tensor("q6_k", 14, {256}, std::string(210, '\x11'));
  return file.bytes();
}

} // namespace

TEST_CASE("a damaged gguf file is read or refused, and never asks for memory it does not justify") {
  const std::vector<std::byte> valid = small_file();
  REQUIRE(reads(valid));
  Mutator mutator(4);
  const AllocationWatch watch;
  int read = 0, refused = 0;
  for (int i = 0; i < 8000; ++i) (reads(mutator.mutate(valid)) ? read : refused)++;
  CHECK(refused > 1000);
  CHECK(read > 200);
  CHECK(watch.largest() < 1000000);
}

TEST_CASE("every truncation of a gguf file is refused") {
  const std::vector<std::byte> valid = small_file();
  for (std::size_t size = 0; size < valid.size(); ++size) {
    const std::vector<std::byte> bytes(valid.begin(),
                                       valid.begin() + static_cast<std::ptrdiff_t>(size)); // its end is the buffer's
    if (reads(bytes)) FAIL("read " << size << " of " << valid.size() << " bytes");
  }
}

TEST_CASE("a damaged gguf model is opened or refused, every byte of its tensors readable") {
  const std::vector<std::byte> valid = TinyLlama().gguf().bytes();
  std::size_t header = 0; // damage the metadata and tensor infos, not the weights
  {
    const GgufFile file(valid, "valid");
    header = static_cast<std::size_t>(file.tensors()[0].bytes.data() - valid.data());
  }
  Mutator mutator(5);
  int opened = 0, refused = 0;
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::byte> bytes = mutator.mutate(std::span(valid).first(header));
    bytes.insert(bytes.end(), valid.begin() + static_cast<std::ptrdiff_t>(header), valid.end());
    try {
      const SourceModel model = SourceModel::open_gguf(std::make_shared<const GgufFile>(bytes, "fuzz"));
      for (const StoredTensor& tensor : model.tensors()) touch(tensor.bytes);
      ++opened;
    } catch (const Error&) {
      ++refused;
    }
  }
  CHECK(opened > 10);
  CHECK(refused > 500);
}

} // namespace tenon
