#include "host/formats/stored_tensor.hpp"
#include "registry/base/error.hpp"
#include "tests/support/mutate_json.hpp"
#include "tests/support/scratch.hpp"

#include <catch2/catch.hpp>

namespace tenon {
namespace {

std::vector<std::byte> valid_file() {
  const Scratch scratch;
  const std::vector<std::byte> data(4096, std::byte{1});
  const auto bytes = [&](std::size_t size) { return std::span(data).first(size); };
  std::map<std::string, std::string> metadata{{"format", "pt"}};
  const std::vector<TensorView> tensors{{"weight", Dtype::F32, {4, 8}, bytes(128)},
                                        {"half", Dtype::BF16, {3}, bytes(6)},
                                        {"scalar", Dtype::F32, {}, bytes(4)},
                                        safetensors_view({"q", nn::BlockType::Q4_1, {2, 64}, bytes(80)}, metadata)};
  write_safetensors(scratch.path() / "f", tensors, metadata);
  const std::string text = read_file(scratch.path() / "f");
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  return std::vector<std::byte>(begin, begin + text.size());
}

// Damages the header alone and makes its length right again, so that more than the first check is reached.
std::vector<std::byte> mutate_header(Mutator& mutator, std::span<const std::byte> valid) {
  std::uint64_t size = 0;
  std::memcpy(&size, valid.data(), 8);
  const std::string text(reinterpret_cast<const char*>(valid.data()) + 8, size);
  const std::string damaged = mutator.below(2) ? mutator.mutate(text) : mutate_json(mutator, text);
  const auto header = std::as_bytes(std::span(damaged));
  size = header.size();
  std::vector<std::byte> bytes(8);
  std::memcpy(bytes.data(), &size, 8);
  bytes.insert(bytes.end(), header.begin(), header.end());
  const auto data = valid.last(128 + 6 + 4 + 80);
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

// Whether the bytes are a file; every byte of every tensor is read, and every weight dequantised.
bool reads(std::span<const std::byte> bytes) {
  try {
    const SafetensorsFile file(bytes, "fuzz");
    for (const TensorView& tensor : file.tensors()) touch(tensor.bytes);
    for (const StoredTensor& tensor : stored_tensors(file)) {
      std::vector<float> numbers(tensor.elements());
      dequantise(tensor, numbers);
    }
    return true;
  } catch (const Error&) {
    return false;
  }
}

} // namespace

TEST_CASE("a damaged safetensors file is read or refused, and never asks for memory it does not justify") {
  const std::vector<std::byte> valid = valid_file();
  REQUIRE(reads(valid));
  Mutator mutator(3);
  const AllocationWatch watch;
  int read = 0, refused = 0;
  for (int i = 0; i < 6000; ++i) {
    const std::vector<std::byte> bytes = i % 2 ? mutate_header(mutator, valid) : mutator.mutate(valid);
    (reads(bytes) ? read : refused)++;
  }
  CHECK(refused > 1000);
  CHECK(read > 50);
  CHECK(watch.largest() < 1000000);
}

} // namespace tenon
