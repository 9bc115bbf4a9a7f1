#include "host/formats/packed_file.hpp"

#include "registry/base/error.hpp"
#include "tests/support/mutate_json.hpp"
#include "tests/support/scratch.hpp"

#include <catch2/catch.hpp>

namespace tenon {
namespace {

std::vector<PackedEntry> two_and_a_refusal() {
  return {{"a", {cpu::PackedFormat::int8g32, 3, 64}, ""},
          {"b", {cpu::PackedFormat::bf16, 65, 7}, ""},
          {"c", {cpu::PackedFormat::bf16, 4, 24}, "c has 24 inputs"}};
}

void write_file(const std::filesystem::path& path) {
  PackedFileWriter writer(path, two_and_a_refusal());
  writer.write("a", std::vector<std::byte>(2 * 2176, std::byte{7}));
  writer.write("b", std::vector<std::byte>(2 * 4 * 256, std::byte{9}));
  writer.commit();
}

std::vector<std::byte> valid_bytes() {
  const Scratch scratch;
  write_file(scratch.path() / "f");
  const std::string text = read_file(scratch.path() / "f");
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

// Whether the bytes are such a file; every byte that an entry promises is read.
bool reads(std::span<const std::byte> damaged) {
  // At an aligned address, as a mapped file has.
  struct Free {
    void operator()(std::byte* memory) const { ::operator delete[](memory, std::align_val_t(64)); }
  };
  const std::unique_ptr<std::byte[], Free> bytes(
      static_cast<std::byte*>(::operator new[](damaged.size() + 1, std::align_val_t(64))));
  std::copy(damaged.begin(), damaged.end(), bytes.get());
  try {
    const SafetensorsFile file({bytes.get(), damaged.size()}, "fuzz");
    for (const PackedEntry& entry : packed_entries(file)) {
      if (!entry.refusal.empty()) continue;
      const auto size = cpu::packed_bytes(entry.matrix.format, entry.matrix.outputs, entry.matrix.inputs);
      touch({entry.matrix.bytes, size.value()});
    }
    return true;
  } catch (const Error&) {
    return false;
  }
}

} // namespace

TEST_CASE("a packed file gives back its matrices, aligned, and its refusals") {
  const Scratch scratch;
  write_file(scratch.path() / "f");
  const SafetensorsFile file(scratch.path() / "f");
  const std::vector<PackedEntry> entries = packed_entries(file), expected = two_and_a_refusal();
  REQUIRE(entries.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(entries[i].name == expected[i].name);
    CHECK(entries[i].refusal == expected[i].refusal);
    CHECK(entries[i].matrix.outputs == expected[i].matrix.outputs);
    CHECK(entries[i].matrix.inputs == expected[i].matrix.inputs);
    CHECK(reinterpret_cast<std::uintptr_t>(entries[i].matrix.bytes) % 64 == 0);
  }
  CHECK(entries[0].matrix.format == cpu::PackedFormat::int8g32);
  CHECK(entries[0].matrix.bytes[0] == std::byte{7});
  CHECK(entries[1].matrix.bytes[0] == std::byte{9});
}

TEST_CASE("a file whose metadata do not describe every tensor is refused") {
  const Scratch scratch;
  const std::vector<std::byte> data(256);
  write_safetensors(scratch.path() / "f", std::vector<TensorView>{{"a", Dtype::U8, {256}, data}});
  CHECK_THROWS_WITH(packed_entries(SafetensorsFile(scratch.path() / "f")), Catch::Contains("the metadata describe 0"));
}

TEST_CASE("a damaged packed file is read or refused") {
  const std::vector<std::byte> valid = valid_bytes();
  REQUIRE(reads(valid));
  Mutator mutator(1);
  int refused = 0;
  std::uint64_t size = 0;
  std::memcpy(&size, valid.data(), 8);
  const std::string header(reinterpret_cast<const char*>(valid.data()) + 8, size);
  for (int i = 0; i < 3000; ++i) {
    std::vector<std::byte> bytes(8);
    if (i % 2) {
      bytes = mutator.mutate(valid);
    } else { // the header alone, its length made right again
      const std::string damaged = mutate_json(mutator, header);
      const std::uint64_t length = damaged.size();
      std::memcpy(bytes.data(), &length, 8);
      const auto text = std::as_bytes(std::span(damaged));
      bytes.insert(bytes.end(), text.begin(), text.end());
      bytes.insert(bytes.end(), valid.begin() + 8 + static_cast<std::ptrdiff_t>(size), valid.end());
    }
    refused += !reads(bytes);
  }
  CHECK(refused > 1000);
}

} // namespace tenon
