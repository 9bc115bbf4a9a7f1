#include "host/formats/gguf.hpp"

#include "registry/base/error.hpp"
#include "tests/support/gguf_bytes.hpp"
#include "tests/support/scratch.hpp"

#include <catch2/catch.hpp>

namespace tenon {
namespace {

std::string refusal(const std::vector<std::byte>& bytes) {
  try {
    GgufFile(bytes, "test.gguf");
  } catch (const Error& error) {
    CHECK(exit_status(error.code) == (error.code == Code::incompatible ? 4 : 5));
    return error.what();
  }
  return "accepted";
}

std::string data(std::size_t size) { return std::string(size, '\0'); }

template <class Number>
std::string raw(Number number) {
  return GgufBytes::raw(number);
}

} // namespace

TEST_CASE("gguf metadata of every type are read") {
  GgufBytes builder;
  builder.value("u8", 0, raw<std::uint8_t>(200))
      .value("i8", 1, raw<std::int8_t>(-100))
      .value("u16", 2, raw<std::uint16_t>(60000));
  builder.value("i16", 3, raw<std::int16_t>(-30000))
      .u32("u32", 4000000000u)
      .value("i32", 5, raw<std::int32_t>(-2000000000));
  builder.f32("f32", 0.5f).boolean("yes", true).boolean("no", false).string("text", "hé");
  builder.value("u64", 10, raw<std::uint64_t>(1) + "")
      .value("i64", 11, raw(std::int64_t{-5}))
      .value("f64", 12, raw(0.1));
  builder.value("huge", 10, raw(~std::uint64_t{0})).strings("words", {"a", "", "ccc"});
  builder.value("ints", 9,
                raw<std::uint32_t>(5) + raw<std::uint64_t>(2) + raw<std::int32_t>(-1) + raw<std::int32_t>(7));
  builder.value("floats", 9, raw<std::uint32_t>(6) + raw<std::uint64_t>(1) + raw(1.5f));
  builder.value("none", 9, raw<std::uint32_t>(8) + raw<std::uint64_t>(0));
  const auto bytes = builder.bytes();
  const GgufFile file(bytes, "test.gguf");
  CHECK(file.integer("u8") == 200);
  CHECK(file.integer("i8") == -100);
  CHECK(file.integer("u16") == 60000);
  CHECK(file.integer("i16") == -30000);
  CHECK(file.integer("u32") == 4000000000);
  CHECK(file.integer("i32") == -2000000000);
  CHECK(file.number("f32") == 0.5);
  CHECK(file.boolean("yes"));
  CHECK_FALSE(file.boolean("no"));
  CHECK(file.string("text") == "hé");
  CHECK(file.integer("u64") == 1);
  CHECK(file.integer("i64") == -5);
  CHECK(file.number("f64") == 0.1);
  CHECK(file.number("huge") == 18446744073709551615.0);
  CHECK(file.strings("words") == std::vector<std::string_view>{"a", "", "ccc"});
  CHECK(file.integers("ints") == std::vector<std::int64_t>{-1, 7});
  CHECK(file.numbers("ints") == std::vector<double>{-1, 7});
  CHECK(file.numbers("floats") == std::vector<double>{1.5});
  CHECK(file.strings("none").empty());
  CHECK(file.values().front().key == "u8");
  CHECK(file.values().size() == 18);
}

TEST_CASE("a getter of another type says key, found and needed") {
  GgufBytes builder;
  builder.string("text", "x").u32("n", 1).value("huge", 10, raw(~std::uint64_t{0})).strings("words", {"a"});
  const auto bytes = builder.bytes();
  const GgufFile file(bytes, "test.gguf");
  CHECK_THROWS_WITH(file.integer("text"), "[test.gguf] text: found string, need an integer of at most 63 bits");
  CHECK_THROWS_WITH(file.string("n"), Catch::Contains("found u32, need a string"));
  CHECK_THROWS_WITH(file.integers("words"), Catch::Contains("found array of string"));
  CHECK_THROWS_AS(file.integer("huge"), Error);
  CHECK_THROWS_AS(file.boolean("n"), Error);
  CHECK_THROWS_WITH(file.string("absent"), Catch::Contains("absent is missing"));
  CHECK(file.integer("absent", 7) == 7);
  CHECK(file.string("absent", "seven") == "seven");
  CHECK_THROWS_AS(file.integer("text", 7), Error);
}

TEST_CASE("nested gguf arrays are walked, and refused when nested too deep") {
  std::string nested = raw<std::uint32_t>(9) + raw<std::uint64_t>(2);
  for (int i = 0; i < 2; ++i) nested += raw<std::uint32_t>(0) + raw<std::uint64_t>(3) + "abc";
  GgufBytes builder;
  builder.value("nested", 9, nested).u32("after", 9);
  const auto bytes = builder.bytes();
  CHECK(GgufFile(bytes, "f").integer("after") == 9);

  std::string deep = raw<std::uint32_t>(0) + raw<std::uint64_t>(0);
  for (int i = 0; i < 50; ++i) deep = raw<std::uint32_t>(9) + raw<std::uint64_t>(1) + deep;
  CHECK_THAT(refusal(GgufBytes().value("deep", 9, deep).bytes()), Catch::Contains("nested deeper"));
}

TEST_CASE("gguf tensors have their type, row-major shape and bytes") {
  GgufBytes builder;
  builder.tensor("f32", 0, {3}, data(12)).tensor("f16", 1, {2, 2}, data(8)).tensor("bf16", 30, {1}, data(2));
  builder.tensor("q8", 8, {64, 3}, data(6 * 34))
      .tensor("q4_0", 2, {32}, data(18))
      .tensor("q4_1", 3, {32, 2, 2}, data(80));
  builder.tensor("q5_0", 6, {32}, data(22)).tensor("q5_1", 7, {32}, data(24)).tensor("q4_k", 12, {512, 2}, data(576));
  builder.tensor("q5_k", 13, {256}, data(176)).tensor("q6_k", 14, {256}, data(210));
  const auto bytes = builder.bytes();
  const GgufFile file(bytes, "f");
  REQUIRE(file.tensors().size() == 11);
  CHECK(file.find_tensor("q5_0")->type == nn::BlockType::Q5_0);
  CHECK(file.find_tensor("q5_1")->type == nn::BlockType::Q5_1);
  CHECK(file.find_tensor("q4_k")->type == nn::BlockType::Q4_K);
  CHECK(file.find_tensor("q4_k")->elements() == 1024);
  CHECK(file.find_tensor("q5_k")->type == nn::BlockType::Q5_K);
  CHECK(file.find_tensor("q6_k")->type == nn::BlockType::Q6_K);
  CHECK(file.find_tensor("q8")->shape == std::vector<std::size_t>{3, 64});
  CHECK(file.find_tensor("q8")->type == nn::BlockType::Q8_0);
  CHECK(file.find_tensor("q8")->elements() == 192);
  CHECK(file.find_tensor("q4_1")->shape == std::vector<std::size_t>{2, 2, 32});
  CHECK(file.find_tensor("bf16")->type == nn::BlockType::BF16);
  CHECK(file.find_tensor("none") == nullptr);
  for (const GgufTensor& tensor : file.tensors()) CHECK((tensor.bytes.data() - bytes.data()) % 32 == 0);
}

TEST_CASE("gguf tensors follow general.alignment") {
  GgufBytes builder;
  builder.alignment = 128;
  builder.u32("general.alignment", 128).tensor("a", 0, {1}, "aaaa").tensor("b", 0, {1}, "bbbb");
  const auto bytes = builder.bytes();
  CHECK(static_cast<char>(GgufFile(bytes, "f").find_tensor("b")->bytes[0]) == 'b');
  for (const std::uint32_t wrong : {0u, 48u, 0x80000000u}) {
    CHECK_THAT(refusal(GgufBytes().u32("general.alignment", wrong).bytes()), Catch::Contains("need a power of two"));
  }
}

TEST_CASE("gguf refuses other tensor types by name") {
  const auto text = [](std::uint32_t type) {
    return refusal(GgufBytes().tensor("w", type, {256}, data(4096)).bytes());
  };
  CHECK_THAT(text(11),
             Catch::Contains("w has type Q3_K, need F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K"));
  CHECK_THAT(text(23), Catch::Contains("IQ4_XS"));
  CHECK_THAT(text(39), Catch::Contains("MXFP4"));
  CHECK_THAT(text(26), Catch::Contains("I32"));
  CHECK_THAT(text(1000), Catch::Contains("1000 (unknown)"));
}

TEST_CASE("gguf refuses other versions and byte orders") {
  GgufBytes builder;
  builder.version = 2;
  CHECK_THAT(refusal(builder.bytes()), Catch::Contains("found GGUF version 2, need 3"));
  builder.version = 0x03000000;
  CHECK_THAT(refusal(builder.bytes()), Catch::Contains("big-endian"));
  CHECK_THAT(refusal(std::vector<std::byte>(100)), Catch::Contains("found no \"GGUF\""));
  CHECK_THAT(refusal({}), Catch::Contains("needs 24 bytes, 0 are left"));
}

TEST_CASE("gguf refuses a tensor that ends beyond the file") {
  CHECK_THAT(refusal(GgufBytes().tensor("w", 0, {100}, data(399)).bytes()), Catch::Contains("w needs 400 bytes"));
  CHECK_THAT(refusal(GgufBytes().tensor_at("w", 0, {1}, std::uint64_t{1} << 40, data(4)).bytes()),
             Catch::Contains("needs 4 bytes"));
  CHECK_THAT(refusal(GgufBytes().tensor_at("w", 0, {1}, ~std::uint64_t{31}, data(4)).bytes()),
             Catch::Contains("needs 4 bytes"));
}

TEST_CASE("gguf refuses sizes that overflow, dimensions of none, and rows of half a block") {
  const std::uint64_t big = std::uint64_t{1} << 62;
  CHECK_THAT(refusal(GgufBytes().tensor("w", 0, {big, 4}, data(64)).bytes()), Catch::Contains("w "));
  CHECK_THAT(refusal(GgufBytes().tensor("w", 0, {4, big, 16}, data(64)).bytes()), Catch::Contains("needs"));
  CHECK_THAT(refusal(GgufBytes().tensor("w", 0, {4, 0}, data(64)).bytes()), Catch::Contains("dimension of 0"));
  CHECK_THAT(refusal(GgufBytes().tensor("w", 0, {}, data(64)).bytes()), Catch::Contains("0 dimensions"));
  CHECK_THAT(refusal(GgufBytes().tensor("w", 0, {1, 1, 1, 1, 1}, data(64)).bytes()), Catch::Contains("5 dimensions"));
  CHECK_THAT(refusal(GgufBytes().tensor("w", 8, {48}, data(64)).bytes()), Catch::Contains("multiple of 32"));
}

TEST_CASE("gguf refuses tensors that overlap, are misaligned or named twice") {
  CHECK_THAT(refusal(GgufBytes().tensor("a", 0, {16}, data(64)).tensor_at("b", 0, {1}, 32, "").bytes()),
             Catch::Contains("b starts at 32"));
  CHECK_THAT(refusal(GgufBytes().tensor_at("a", 0, {1}, 4, data(64)).bytes()),
             Catch::Contains("need a multiple of 32"));
  CHECK_THAT(refusal(GgufBytes().tensor("a", 0, {1}, data(4)).tensor("a", 0, {1}, data(4)).bytes()),
             Catch::Contains("a is given twice"));
  CHECK_THAT(refusal(GgufBytes().tensor(std::string(65, 'n'), 0, {1}, data(4)).bytes()), Catch::Contains("65 bytes"));
}

TEST_CASE("gguf believes no count that the file cannot hold") {
  const std::uint64_t big = std::uint64_t{1} << 60;
  CHECK_THAT(refusal(GgufBytes().bytes(big, 0)), Catch::Contains("tensors"));
  CHECK_THAT(refusal(GgufBytes().bytes(0, big)), Catch::Contains("metadata values"));
  CHECK_THAT(refusal(GgufBytes().value("a", 9, raw<std::uint32_t>(4) + raw(big)).bytes()),
             Catch::Contains("elements in an array"));
  CHECK_THAT(refusal(GgufBytes().value("a", 8, raw(big)).bytes()), Catch::Contains("characters in a string"));
  CHECK_THAT(refusal(GgufBytes().value("a", 9, raw<std::uint32_t>(8) + raw<std::uint64_t>(1) + raw(big)).bytes()),
             Catch::Contains("characters in a string"));
}

TEST_CASE("gguf refuses unknown value types, broken booleans and keys given twice") {
  CHECK_THAT(refusal(GgufBytes().value("a", 13, data(8)).bytes()), Catch::Contains("unknown value type 13"));
  CHECK_THAT(refusal(GgufBytes().value("a", 7, "\2").bytes()), Catch::Contains("neither 0 nor 1"));
  CHECK_THAT(refusal(GgufBytes().u32("a", 1).u32("a", 1).bytes()), Catch::Contains("a is given twice"));
  CHECK_THAT(refusal(GgufBytes().u32("", 1).bytes()), Catch::Contains("empty or too long"));
}

TEST_CASE("a mapped gguf file can be moved and still be read") {
  const Scratch scratch;
  const auto bytes = GgufBytes().string("text", "still here").tensor("w", 0, {1}, data(4)).bytes();
  AtomicFile out(scratch.path() / "f.gguf");
  out.write(bytes);
  out.commit();
  GgufFile first(scratch.path() / "f.gguf");
  const GgufFile second(std::move(first));
  CHECK(second.string("text") == "still here");
  CHECK(second.find_tensor("w") != nullptr);
}

} // namespace tenon
