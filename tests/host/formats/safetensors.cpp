#include "host/formats/safetensors.hpp"

#include "host/formats/stored_tensor.hpp"
#include "registry/base/error.hpp"
#include "tests/support/scratch.hpp"

#include <catch2/catch.hpp>
#include <cstring>

namespace tenon {
namespace {

std::vector<std::byte> file_bytes(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t size = header.size();
  std::string all(reinterpret_cast<const char*>(&size), sizeof size);
  all += header + std::string(data_bytes, '\1');
  const auto* data = reinterpret_cast<const std::byte*>(all.data());
  return std::vector<std::byte>(data, data + all.size());
}

std::string refusal(const std::string& header, std::size_t data_bytes) {
  const auto bytes = file_bytes(header, data_bytes);
  try {
    SafetensorsFile(bytes, "test.safetensors");
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

std::span<const std::byte> bytes_of(const std::vector<float>& numbers) { return std::as_bytes(std::span(numbers)); }

} // namespace

TEST_CASE("safetensors written are read back the same, aligned, with metadata") {
  const Scratch scratch;
  const auto path = scratch.path() / "w.safetensors";
  const std::vector<float> a{1, 2, 3, 4, 5, 6}, b{7};
  const std::vector<std::byte> c(5, std::byte{9});
  const std::vector<TensorView> tensors{{"c", Dtype::U8, {5}, c},
                                        {"b", Dtype::F32, {}, bytes_of(b)},
                                        {"a", Dtype::F32, {2, 3}, bytes_of(a)},
                                        {"none", Dtype::F32, {0, 4}, {}}};
  write_safetensors(path, tensors, {{"made by", "a \"test\" é"}});
  const SafetensorsFile file(path);
  CHECK(file.names().size() == 4);
  CHECK(file.names().back() == "c"); // the narrowest last, so that wider ones stay aligned
  CHECK(file.metadata().at("made by") == "a \"test\" é");
  CHECK(file.at("a").shape == std::vector<std::size_t>{2, 3});
  CHECK(std::memcmp(file.at("a").bytes.data(), a.data(), 24) == 0);
  CHECK(reinterpret_cast<std::uintptr_t>(file.at("b").bytes.data()) % 64 == 0); // the first: data begin so
  CHECK(file.at("b").shape.empty());
  CHECK(file.at("none").bytes.empty());
  CHECK(file.find("d") == nullptr);
  CHECK_THROWS_WITH(file.at("d"), Catch::Contains("d is missing"));
}

TEST_CASE("safetensors of the same content are the same bytes, whatever the order given") {
  const Scratch scratch;
  const std::vector<float> a{1}, b{2, 3};
  const std::vector<TensorView> one{{"a", Dtype::F32, {1}, bytes_of(a)}, {"b", Dtype::F32, {2}, bytes_of(b)}};
  const std::vector<TensorView> two{one[1], one[0]};
  write_safetensors(scratch.path() / "1", one, {{"x", "1"}, {"y", "2"}});
  write_safetensors(scratch.path() / "2", two, {{"y", "2"}, {"x", "1"}});
  CHECK(read_file(scratch.path() / "1") == read_file(scratch.path() / "2"));
}

TEST_CASE("what is no matrix stands together, so that its pages bring no matrix into memory") {
  const Scratch scratch;
  const std::vector<float> row{1, 2}, matrix{3, 4, 5, 6};
  write_safetensors(scratch.path() / "w", std::vector<TensorView>{{"a.norm", Dtype::F32, {2}, bytes_of(row)},
                                                                  {"a.weight", Dtype::F32, {2, 2}, bytes_of(matrix)},
                                                                  {"b.norm", Dtype::F32, {2}, bytes_of(row)}});
  const SafetensorsFile file(scratch.path() / "w");
  CHECK(file.at("b.norm").bytes.data() == file.at("a.norm").bytes.data() + 8);
  CHECK(file.at("a.weight").bytes.data() == file.at("b.norm").bytes.data() + 8);
}

TEST_CASE("an empty safetensors file is one") {
  const Scratch scratch;
  write_safetensors(scratch.path() / "e", {});
  CHECK(SafetensorsFile(scratch.path() / "e").tensors().empty());
}

TEST_CASE("writing refuses a tensor whose bytes are not its shape's, and a name given twice") {
  const Scratch scratch;
  const std::vector<float> a{1, 2};
  const std::vector<TensorView> wrong{{"a", Dtype::F32, {3}, bytes_of(a)}};
  const std::vector<TensorView> twice{{"a", Dtype::F32, {2}, bytes_of(a)}, {"a", Dtype::F32, {2}, bytes_of(a)}};
  CHECK_THROWS_AS(write_safetensors(scratch.path() / "w", wrong), Error);
  CHECK_THROWS_AS(write_safetensors(scratch.path() / "w", twice), Error);
  CHECK_FALSE(std::filesystem::exists(scratch.path() / "w"));
}

TEST_CASE("safetensors refuses each way to break the format, and names it") {
  const auto entry = [](const char* dtype, const char* shape, const char* offsets) {
    return std::string("{\"a\":{\"dtype\":\"") + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets +
           "}}";
  };
  REQUIRE(refusal(entry("F32", "[2]", "[0,8]"), 8) == "accepted");
  CHECK_THAT(refusal(entry("F32", "[2]", "[0,8]"), 9), Catch::Contains("end at 8") && Catch::Contains("9 bytes"));
  CHECK_THAT(refusal(entry("F32", "[2]", "[0,8]"), 7), Catch::Contains("the file has 7 bytes"));
  CHECK_THAT(refusal(entry("F32", "[3]", "[0,8]"), 8), Catch::Contains("/a: found 8 bytes"));
  CHECK_THAT(refusal(entry("F32", "[2]", "[1,9]"), 9), Catch::Contains("starts at 1"));
  CHECK_THAT(refusal(entry("F32", "[2]", "[8,0]"), 8), Catch::Contains("found 8 to 0"));
  CHECK_THAT(refusal(entry("F32", "[4611686018427387904,4]", "[0,0]"), 0),
             Catch::Contains("another size")); // overflows to 0
  CHECK_THAT(refusal(entry("F32", "[-2]", "[0,8]"), 8), Catch::Contains("found -2"));
  CHECK_THAT(refusal(entry("F32", "[2.0]", "[0,8]"), 8), Catch::Contains("need an integer"));
  CHECK_THAT(refusal(entry("F8_E4M3", "[8]", "[0,8]"), 8), Catch::Contains("F8_E4M3"));
  CHECK_THAT(refusal(entry("F32", "[2]", "[0,8,8]"), 8), Catch::Contains("begin and an end"));
  CHECK_THAT(refusal("{\"a\":1}", 0), Catch::Contains("/a: "));
  CHECK_THAT(refusal("{\"__metadata__\":{\"a\":1}}", 0), Catch::Contains("need a string"));
  CHECK_THAT(refusal("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0), Catch::Contains("twice"));
  CHECK_THAT(refusal(" {}", 0), Catch::Contains("does not begin with {"));
  CHECK_THAT(refusal("", 0), Catch::Contains("does not begin with {"));
  const std::string two =
      R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})";
  CHECK_THAT(refusal(two, 3), Catch::Contains("b starts at 1") && Catch::Contains("need 2"));
}

TEST_CASE("safetensors refuses a header longer than the file or the limit, and a file shorter than its length field") {
  std::vector<std::byte> bytes(16, std::byte{0xff});
  CHECK_THROWS_WITH(SafetensorsFile(bytes, "f"), Catch::Contains("at most 100000000"));
  std::fill(bytes.begin() + 3, bytes.begin() + 8, std::byte{0});
  CHECK_THROWS_WITH(SafetensorsFile(bytes, "f"), Catch::Contains("the file has 8 left"));
  CHECK_THROWS_WITH(SafetensorsFile(std::span(bytes).first(7), "f"), Catch::Contains("found 7 bytes"));
}

TEST_CASE("quantised blocks keep their meaning through a safetensors file") {
  const Scratch scratch;
  std::vector<std::byte> blocks(3 * 2 * 20);
  for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i] = std::byte(i % 60);
  const StoredTensor stored{"w", nn::BlockType::Q4_1, {3, 64}, blocks};
  std::map<std::string, std::string> metadata;
  const std::vector<TensorView> views{safetensors_view(stored, metadata)};
  CHECK(metadata.at("tenon.blocks.w") == R"({"type":"Q4_1","shape":[3,64]})");
  write_safetensors(scratch.path() / "w", views, metadata);

  const SafetensorsFile file(scratch.path() / "w");
  CHECK(file.at("w").dtype == Dtype::U8);
  CHECK(file.at("w").shape == std::vector<std::size_t>{3, 40});
  const StoredTensor read = stored_tensor(file, "w");
  CHECK(read.type == nn::BlockType::Q4_1);
  CHECK(read.shape == std::vector<std::size_t>{3, 64});
  std::vector<float> expected(192), found(192);
  dequantise(stored, expected);
  dequantise(stored_tensors(file).at(0), found);
  CHECK(expected == found);
  CHECK_THROWS_AS(dequantise(read, std::span(found).first(191)), Error);
}

TEST_CASE("descriptions of blocks that do not agree with the bytes are refused") {
  const Scratch scratch;
  const std::vector<std::byte> blocks(40);
  const auto refused = [&](Dtype dtype, const std::string& key, const std::string& text) {
    const std::vector<TensorView> views{{"w", dtype, {40 / dtype_bytes(dtype)}, blocks}};
    write_safetensors(scratch.path() / "w", views, {{key, text}});
    const SafetensorsFile file(scratch.path() / "w");
    CHECK_THROWS_AS(stored_tensors(file), Error);
  };
  refused(Dtype::U8, "tenon.blocks.w", R"({"type":"Q4_1","shape":[3,32]})");
  refused(Dtype::U8, "tenon.blocks.w", R"({"type":"Q4_1","shape":[64,1]})");
  refused(Dtype::U8, "tenon.blocks.w", R"({"type":"Q4_1","shape":[]})");
  refused(Dtype::U8, "tenon.blocks.w", R"({"type":"Q3_K","shape":[2,32]})");
  refused(Dtype::U8, "tenon.blocks.w", R"({"type":"Q4_K","shape":[2,32]})"); // no whole block
  refused(Dtype::U8, "tenon.blocks.w", R"({"type":"Q4_1","shape":[-2,-32]})");
  refused(Dtype::U8, "tenon.blocks.w", "no json");
  refused(Dtype::F32, "tenon.blocks.w", R"({"type":"Q4_1","shape":[2,32]})");
  refused(Dtype::F32, "tenon.blocks.v", R"({"type":"Q4_1","shape":[2,32]})");
  refused(Dtype::U8, "other", "bytes that nobody describes are no weight");
}

} // namespace tenon
