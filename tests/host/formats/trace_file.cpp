#include "host/formats/trace_file.hpp"

#include "registry/base/error.hpp"
#include "tests/support/scratch.hpp"
#include "tests/support/trace_bytes.hpp"

#include <catch2/catch.hpp>

#include <cmath>

namespace tenon {
namespace {

template <class Call>
Error error_of(Call&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  FAIL("no error");
  return Error(Code::bug, "", "");
}

} // namespace

TEST_CASE("a trace read back says what was written, and its strengths from any token on") {
  const Scratch scratch;
  write_small_trace(scratch.path() / "t");
  const TraceFile file(scratch.path() / "t");
  CHECK(file.head().to_json() == small_trace_head().to_json());
  const std::vector<float> all = small_trace_strengths();
  std::vector<float> some(4);
  file.strengths(file.head().corpora[0], 3, some);
  CHECK(some == std::vector<float>(all.begin() + 6, all.end()));
  CHECK_THROWS_AS(file.strengths(file.head().corpora[0], 4, some), Error); // beyond the end
  const SafetensorsFile tensors(scratch.path() / "t");
  CHECK(tensors.at("news/documents").shape == std::vector<std::size_t>{3});
  CHECK(tensors.at("news/chosen").shape == std::vector<std::size_t>{5, 2});
}

TEST_CASE("strengths that are no shares of 1 are refused where they stand") {
  const Scratch scratch;
  for (const float bad : {-0.25f, 0.75f, NAN, INFINITY}) {
    std::vector<float> strengths = small_trace_strengths();
    strengths[2] = bad;
    write_small_trace(scratch.path() / "t", strengths);
    const TraceFile file(scratch.path() / "t");
    std::vector<float> row(2);
    file.strengths(file.head().corpora[0], 0, row);
    const Error error = error_of([&] { file.strengths(file.head().corpora[0], 1, row); });
    CHECK(error.code == Code::integrity);
    CHECK_THAT(error.message, Catch::Contains("token 1"));
  }
}

TEST_CASE("a file that is no trace, or whose shapes do not agree with its head, is refused") {
  const Scratch scratch;
  const auto path = scratch.path() / "t";
  const std::vector<float> numbers(6);
  const auto bytes = std::as_bytes(std::span(numbers));
  write_safetensors(path, std::vector<TensorView>{{"weight", Dtype::F32, {6}, bytes}});
  CHECK(error_of([&] { TraceFile{path}; }).code == Code::incompatible);

  write_small_trace(path);
  const SafetensorsFile whole(path);
  const auto refused = [&](const std::string& tensor, std::vector<std::size_t> shape, Dtype dtype) {
    std::vector<TensorView> tensors = whole.tensors();
    const std::vector<std::byte> zeros(tensor_bytes(dtype, shape).value());
    for (TensorView& one : tensors)
      if (one.name == tensor) one = {tensor, dtype, shape, zeros};
    write_safetensors(scratch.path() / "changed", tensors, whole.metadata());
    const Error error = error_of([&] { TraceFile{scratch.path() / "changed"}; });
    CHECK(error.code == Code::integrity);
    CHECK_THAT(error.message, Catch::Contains(tensor));
  };
  refused("news/strengths", {5, 3}, Dtype::F32);
  refused("news/strengths", {5, 2}, Dtype::F16);
  refused("news/documents", {2}, Dtype::I64);
  refused("news/nll", {6}, Dtype::F32);
  refused("news/tokens", {4}, Dtype::I32);
}

TEST_CASE("a trace's head is refused by the field that is wrong") {
  const auto refused = [](auto change, const std::string& field) {
    json::object head = small_trace_head().to_json();
    change(head);
    const Error error = error_of([&] { TraceHead::parse(head, "t"); });
    INFO(error.what());
    CHECK(error.message.find(field) != std::string::npos);
    return error.code;
  };
  CHECK(refused([](auto& o) { o["schema"] = 2; }, "schema") == Code::incompatible);
  CHECK(refused([](auto& o) { o.erase("model"); }, "model") == Code::integrity);
  CHECK(refused([](auto& o) { o["experts"] = json::array(); }, "expert") == Code::integrity);
  CHECK(refused([](auto& o) { o["sequence_length"] = 1; }, "sequence_length") == Code::integrity);
  CHECK(refused([](auto& o) { o["corpora"].as_array()[0].as_object()["tokens"] = -1; }, "tokens") == Code::integrity);
}

TEST_CASE("a corpus without a name of its own cannot be traced") {
  const Scratch scratch;
  for (const std::vector<TraceCorpus>& corpora :
       {std::vector<TraceCorpus>{{"a", "", 1, 1}, {"a", "", 1, 1}}, {{"a/b", "", 1, 1}}, {{"", "", 1, 1}}}) {
    TraceHead head = small_trace_head();
    head.corpora = corpora;
    CHECK(error_of([&] { TraceWriter(scratch.path() / "t", head, 2); }).code == Code::usage);
  }
}

} // namespace tenon
