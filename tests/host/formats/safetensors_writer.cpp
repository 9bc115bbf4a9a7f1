#include "host/formats/safetensors_writer.hpp"

#include "registry/base/error.hpp"
#include "tests/support/scratch.hpp"

#include <catch2/catch.hpp>

#include <cstring>

namespace tenon {
namespace {

std::span<const std::byte> bytes_of(std::span<const float> numbers) { return std::as_bytes(numbers); }

} // namespace

TEST_CASE("tensors written in turns, piece by piece, are the file that writing them whole gives") {
  const Scratch scratch;
  const std::vector<float> a{1, 2, 3, 4, 5, 6}, b{7, 8};
  const std::vector<TensorView> views{{"a", Dtype::F32, {3, 2}, bytes_of(a)}, {"b", Dtype::F32, {2}, bytes_of(b)}};
  write_safetensors(scratch.path() / "whole", views, {{"key", "text"}});

  SafetensorsWriter writer(scratch.path() / "pieces", {{"b", Dtype::F32, {2}}, {"a", Dtype::F32, {3, 2}}},
                           {{"key", "text"}});
  const std::span<const float> all(a);
  writer.write("a", bytes_of(all.first(2)));
  writer.write("b", bytes_of(b));
  writer.write("a", bytes_of(all.subspan(2)));
  CHECK_FALSE(std::filesystem::exists(scratch.path() / "pieces"));
  writer.commit();
  CHECK(read_file(scratch.path() / "pieces") == read_file(scratch.path() / "whole"));
}

TEST_CASE("a tensor with too many bytes, too few, or of no known name is refused, and leaves no file") {
  const Scratch scratch;
  const std::vector<float> numbers(4);
  {
    SafetensorsWriter writer(scratch.path() / "f", {{"a", Dtype::F32, {3}}});
    CHECK_THROWS_WITH(writer.write("c", bytes_of(numbers)), Catch::Contains("no tensor c"));
    CHECK_THROWS_WITH(writer.write("a", bytes_of(numbers)), Catch::Contains("16") && Catch::Contains("12"));
    writer.write("a", bytes_of(std::span(numbers).first(2)));
    CHECK_THROWS_WITH(writer.commit(), Catch::Contains("lacks 4 bytes"));
  }
  CHECK(std::filesystem::is_empty(scratch.path()));
  const std::vector<TensorSpec> huge = {{"a", Dtype::F32, {std::size_t{1} << 62, 4}}};
  CHECK_THROWS_AS(SafetensorsWriter(scratch.path() / "f", huge), Error);
}

} // namespace tenon
