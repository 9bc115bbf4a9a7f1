#include "host/model/packed_weights.hpp"

#include "host/formats/stored_tensor.hpp"
#include "host/inference/session.hpp"
#include "kernels/packed_operators.hpp"
#include "registry/base/error.hpp"
#include "tests/kernels/tolerance.hpp"
#include "tests/support/tiny_model.hpp"
#include "tests/support/tiny_registry.hpp"

#include <tenon/operators.hpp>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <catch2/catch.hpp>

#include <fstream>
#include <future>

namespace tenon {
namespace {

using Catch::Contains;
using test::kTolerance;

// Two matrices of 64 inputs, in Q8_0 and F32, one of 24 in F32, and a vector.
struct Stored {
  Scratch scratch;
  std::filesystem::path path = scratch.path() / "w.safetensors", cache = scratch.path() / "cache";

  explicit Stored(Dtype second = Dtype::F32) {
    std::map<std::string, std::string> metadata;
    std::vector<std::byte> blocks(5 * 2 * 34, std::byte{1});
    const at::Tensor narrow = test::normal("narrow", {3, 24}, 1.0), vector = test::normal("vector", {64}, 1.0);
    const at::Tensor plain = test::normal("plain", {6, 64}, 1.0).to(second == Dtype::F32 ? at::kFloat : at::kHalf);
    const auto bytes = [](const at::Tensor& t) {
      return std::span(static_cast<const std::byte*>(t.data_ptr()), t.nbytes());
    };
    const std::vector<TensorView> tensors{{"narrow", Dtype::F32, {3, 24}, bytes(narrow)},
                                          {"plain", second, {6, 64}, bytes(plain)},
                                          safetensors_view({"q8", nn::BlockType::Q8_0, {5, 64}, blocks}, metadata),
                                          {"vector", Dtype::F32, {64}, bytes(vector)}};
    write_safetensors(path, tensors, metadata);
  }
  Weights open(Format format) const { return Weights::open(path, "sha256:abc", cache, Weights::Compute{format, {}}); }
};

at::Tensor product(const Weights& weights, const std::string& name) {
  const at::Tensor w = weights.at(name);
  return operators::linear(test::normal("x", {3, w.size(1)}, 1.0), operators::pack_linear(w));
}

bool huge_pages_here() {
  try {
    return cpu::pages() == cpu::Pages::huge;
  } catch (const std::runtime_error&) {
    return false;
  }
}

// Of files in that folder: bytes that this process has read through a mapping, and what the system maps beside them.
std::int64_t mapped_bytes(const std::filesystem::path& folder) {
  std::ifstream maps("/proc/self/smaps");
  std::int64_t out = 0, kb = 0;
  bool ours = false;
  for (std::string line; std::getline(maps, line);) {
    if (line.find(folder.string()) != std::string::npos) ours = true;
    if (std::sscanf(line.c_str(), "Rss: %ld kB", &kb) == 1 && std::exchange(ours, false)) out += 1024 * kb;
  }
  return out;
}

// What opening says of a derived file whose entries were changed so; it is removed then.
std::string said_of_derived(const Stored& stored, const std::function<void(std::vector<PackedEntry>&)>& change) {
  const std::filesystem::path derived = stored.open(Format::int8).packed()->path();
  const SafetensorsFile file(derived);
  std::vector<PackedEntry> entries = packed_entries(file);
  change(entries);
  PackedFileWriter writer(derived, entries);
  for (const PackedEntry& entry : entries) {
    const auto bytes = cpu::packed_bytes(entry.matrix.format, entry.matrix.outputs, entry.matrix.inputs);
    if (entry.refusal.empty()) writer.write(entry.name, {entry.matrix.bytes, bytes.value()});
  }
  writer.commit();
  std::string said;
  try {
    stored.open(Format::int8);
  } catch (const Error& error) {
    said = error.what();
  }
  std::filesystem::remove(derived);
  return said;
}

double error(const Weights& weights, const std::string& name) {
  const at::Tensor w = weights.at(name), exact = at::linear(test::normal("x", {3, w.size(1)}, 1.0), w);
  return ((product(weights, name) - exact).norm() / exact.norm()).item<double>();
}

} // namespace

TEST_CASE(
    "rows looked up in a table that is packed without loss are its very numbers, and come from the packed bytes") {
  const Stored stored;
  const Weights plain = stored.open(Format::float32), packed = stored.open(Format::stored);
  const at::Tensor ids = at::tensor({4, 0, 4}, at::kLong), table = packed.at("q8");
  CHECK(at::equal(looked_up_rows(table, ids), plain.at("q8").index_select(0, ids)));
  CHECK_THROWS_WITH(looked_up_rows(table, at::tensor({5}, at::kLong)), Contains("row 5 of a table of 5"));

  // Another form behind the same address answers: the float32 numbers were not read.
  std::vector<std::byte> zeros(*cpu::packed_bytes(cpu::PackedFormat::int8g32, 5, 64), std::byte{0});
  const float* at = table.data_ptr<float>();
  const auto kept = packed_form(at, 5, 64);
  add_packed_form(at, {{cpu::PackedFormat::int8g32, 5, 64, zeros.data()}, nullptr, true});
  CHECK(looked_up_rows(table, ids).count_nonzero().item<std::int64_t>() == 0);
  add_packed_form(at, *kept);
}

TEST_CASE("rows looked up in a table that packing would round are the table's own") {
  const Stored stored;
  const Weights plain = stored.open(Format::float32), packed = stored.open(Format::int8);
  const at::Tensor ids = at::tensor({5, 1}, at::kLong);
  CHECK(at::equal(looked_up_rows({packed.at("plain")}, ids), plain.at("plain").index_select(0, ids)));
}

TEST_CASE("weights compute in the format asked for, float32 in float32") {
  const Stored stored;
  at::NoGradGuard no_grad;
  const auto within = [](double found, double low, double high) { return found > low && found < high; };
  CHECK(error(stored.open(Format::float32), "plain") == 0);
  CHECK(within(error(stored.open(Format::bf16), "plain"), 1e-4, kTolerance.product_bf16));
  CHECK(within(error(stored.open(Format::int8), "plain"), 1e-3, kTolerance.product_int8));
  CHECK(within(error(stored.open(Format::int4), "plain"), 2e-2, kTolerance.product_int4));
  CHECK(error(stored.open(Format::stored), "plain") == 0);
  CHECK(within(error(stored.open(Format::stored), "q8"), 1e-6, kTolerance.product_stored));
  CHECK(error(stored.open(Format::float32), "plain") == 0); // nothing is left behind
}

TEST_CASE("weights in huge pages compute the same bits as mapped ones") {
  const Stored stored;
  at::NoGradGuard no_grad;
  for (const Format format : {Format::bf16, Format::int8, Format::stored}) {
    const Weights mapped = stored.open(format);
    CHECK_FALSE(mapped.packed()->copied());
    const at::Tensor expected = product(mapped, "q8");
    setenv("TENON_PAGES", "huge", 1);
    if (!huge_pages_here()) {
      CHECK_THROWS_WITH(stored.open(format), Contains("unset TENON_PAGES"));
      continue;
    }
    const Weights copied = stored.open(format);
    unsetenv("TENON_PAGES");
    CHECK(copied.packed()->copied());
    CHECK(product(copied, "q8").equal(expected));
  }
  setenv("TENON_PAGES", "large", 1);
  CHECK_THROWS_WITH(stored.open(Format::bf16), Contains("need mapped or huge"));
  unsetenv("TENON_PAGES");
}

TEST_CASE("what cannot be in the format asked for is refused, with the remedy") {
  const Stored half(Dtype::F16), stored;
  at::NoGradGuard no_grad;
  CHECK_THROWS_WITH(half.open(Format::stored),
                    Contains("plain is stored as F16") && Contains("choose a format to convert to: bf16"));
  const Weights int8 = stored.open(Format::int8);
  REQUIRE(int8.packed()->refusals().size() == 1);
  CHECK_THROWS_WITH(product(int8, "narrow"), Contains("24 inputs") && Contains("compute in bf16 or float32"));
  CHECK_NOTHROW(product(stored.open(Format::bf16), "narrow"));
  CHECK_THROWS_WITH(format_of("int2"), Contains("need float32, bf16, int8, int4 or stored"));
}

TEST_CASE("a weight beyond what scales of integers reach is refused in them, and fits into bf16") {
  const Scratch scratch;
  const at::Tensor wide = at::ones({2, 64});
  wide[1][3] = -1e6f;
  const std::span bytes(static_cast<const std::byte*>(wide.data_ptr()), wide.nbytes());
  write_safetensors(scratch.path() / "w", std::vector<TensorView>{{"wide", Dtype::F32, {2, 64}, bytes}}, {});
  const auto open = [&](Format format) {
    return Weights::open(scratch.path() / "w", "sha256:abc", scratch.path() / "cache", Weights::Compute{format, {}});
  };
  CHECK_THROWS_WITH(open(Format::int8), Contains("wide holds -1000000") && Contains("choose --compute bf16"));
  CHECK_THROWS_WITH(open(Format::int4), Contains("wide holds"));
  CHECK_NOTHROW(open(Format::bf16));
}

TEST_CASE("progress of packing ends at its total, though the last matrix cannot be packed") {
  Scratch scratch;
  const at::Tensor plain = test::normal("plain", {6, 64}, 1.0), narrow = test::normal("narrow", {3, 24}, 1.0);
  const auto view = [](const char* name, const at::Tensor& t) {
    return TensorView{name,
                      Dtype::F32,
                      {static_cast<std::size_t>(t.size(0)), static_cast<std::size_t>(t.size(1))},
                      {static_cast<const std::byte*>(t.data_ptr()), t.nbytes()}};
  };
  const std::vector<TensorView> matrices = {view("a", plain), view("b", narrow)};
  write_safetensors(scratch.path() / "w", matrices);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> told;
  Weights::open(scratch.path() / "w", "sha256:abc", scratch.path() / "cache", Weights::Compute{Format::int8, {}},
                [&](std::uint64_t done, std::uint64_t total) { told.emplace_back(done, total); });
  REQUIRE(!told.empty());
  CHECK(told.back() == std::pair(plain.nbytes(), plain.nbytes()));
}

TEST_CASE("weights that are stored otherwise and compute in float32 say that they were widened") {
  const Stored stored;
  CHECK(stored.open(Format::float32).widened());
  CHECK_FALSE(stored.open(Format::stored).widened());
}

TEST_CASE("weights that are packed already are opened without reading them") {
  constexpr std::size_t outputs = 4096, inputs = 4096;
  const Scratch scratch;
  const std::filesystem::path path = scratch.path() / "wide.safetensors", cache = scratch.path() / "cache";
  const at::Tensor wide = at::ones({outputs, inputs}, at::kBFloat16);
  const std::span bytes(static_cast<const std::byte*>(wide.data_ptr()), wide.nbytes());
  write_safetensors(path, std::vector<TensorView>{{"wide", Dtype::BF16, {outputs, inputs}, bytes}}, {});
  const auto open = [&] { return Weights::open(path, "sha256:abc", cache, Weights::Compute{Format::int8, {}}); };
  (void)open();
  const Weights weights = open();
  const auto all = static_cast<std::int64_t>(weights.packed()->bytes());
  CHECK(mapped_bytes(cache / "packed") < all / 4); // the system may map 2 MiB about the header
  (void)product(weights, "wide");
  CHECK(mapped_bytes(cache / "packed") >= all);
}

TEST_CASE("a packed file is derived once, and a damaged one is refused") {
  const Stored stored;
  int steps = 0;
  const auto count = [&](std::uint64_t, std::uint64_t) { ++steps; };
  const Weights::Compute compute{Format::bf16, {}};
  Weights::open(stored.path, "sha256:abc", stored.cache, compute, count);
  const int first = std::exchange(steps, 0);
  Weights::open(stored.path, "sha256:abc", stored.cache, compute, count);
  CHECK(first > 0);
  CHECK(steps == 0);
  const std::filesystem::path derived = stored.cache / "packed" / "1" / "bf16" / "abc.safetensors";
  REQUIRE(std::filesystem::exists(derived));
  std::filesystem::resize_file(derived, std::filesystem::file_size(derived) / 2);
  CHECK_THROWS_WITH(stored.open(Format::bf16), Contains("remove this file: it is derived again"));
}

TEST_CASE("of two that pack the same file at once one derives it, and the other waits for that and reads it") {
  const Stored stored;
  std::promise<void> begun;
  std::future<bool> other;
  const auto join = [&](std::uint64_t, std::uint64_t) {
    if (other.valid()) return;
    other = std::async(std::launch::async, [&] {
      begun.set_value();
      return stored.open(Format::int8).packed()->derived_now();
    });
    begun.get_future().wait();
  };
  const Weights first = Weights::open(stored.path, "sha256:abc", stored.cache, {Format::int8, {}}, join);
  REQUIRE(other.valid());
  CHECK(first.packed()->derived_now() != other.get());
}

TEST_CASE("what a killed process left half written is cleared by the next that packs the file, and nothing else is") {
  const Stored stored;
  const std::filesystem::path folder = stored.cache / "packed" / "1" / "int8",
                              left = folder / ".abc.safetensors.123.0.tmp",
                              of_another = folder / ".abcd.safetensors.123.0.tmp";
  write_file(left, "half"), write_file(of_another, "half");
  CHECK(stored.open(Format::int8).packed()->derived_now());
  CHECK_FALSE(std::filesystem::exists(left));
  CHECK(std::filesystem::exists(of_another));
}

TEST_CASE("a packed file with a matrix less, more, of another shape or format is refused with the remedy") {
  const Stored stored;
  const auto named = [](std::vector<PackedEntry>& entries, const std::string& name) {
    return std::find_if(entries.begin(), entries.end(), [&](const PackedEntry& entry) { return entry.name == name; });
  };
  const auto remedy = Contains("remove this file: it is derived again");
  CHECK_THAT(said_of_derived(stored, [&](auto& entries) { entries.erase(named(entries, "plain")); }),
             Contains("plain is missing") && remedy);
  CHECK_THAT(said_of_derived(stored,
                             [&](auto& entries) {
                               PackedEntry more = *named(entries, "plain");
                               more.name = "more";
                               entries.push_back(more);
                             }),
             Contains("more does not belong here") && remedy);
  CHECK_THAT(said_of_derived(stored, [&](auto& entries) { named(entries, "plain")->matrix.outputs = 7; }),
             Contains("plain has another shape") && remedy);
  CHECK_THAT(
      said_of_derived(stored, [&](auto& entries) { named(entries, "plain")->matrix.format = cpu::PackedFormat::bf16; }),
      Contains("plain has another format") && remedy);
  CHECK_NOTHROW(stored.open(Format::int8));
}

TEST_CASE("a composition in bf16 is close to float32, and generates the same bits however a prompt is split") {
  const test::TinyRegistry tiny;
  const Entry entry = tiny.registry.resolve(PackageRequest::parse("tiny"), Kind::model);
  const auto logits = [&](Format format, std::int64_t chunk) {
    const Loader loader(tiny.registry, {tiny.path() / "store", tiny.cache(), {}, format});
    const auto model = loader.model(entry);
    Composition composition(model, {loader.base(*model)}, Routing{}, 0.0, {});
    SessionOptions options;
    options.prefill_chunk = chunk;
    Session session(composition, options);
    session.append(test::tokens("text", 70));
    const std::span<const float> out = session.logits();
    return at::tensor(c10::ArrayRef<float>(out.data(), out.size()));
  };
  const at::Tensor exact = logits(Format::float32, 512), bf16 = logits(Format::bf16, 512);
  CHECK(((bf16 - exact).norm() / exact.norm()).item<double>() < kTolerance.logits_bf16);
  CHECK_FALSE(bf16.equal(exact));
  for (const std::int64_t chunk : {1, 7, 64}) CHECK(logits(Format::bf16, chunk).equal(bf16));
}

TEST_CASE("in float32 LibTorch takes as many threads as ours are, beside packed products one") {
  const test::TinyRegistry tiny;
  const int before = at::get_num_threads();
  const auto threads_with = [&](Format format) {
    const Loader loader(tiny.registry, {tiny.path() / "store", tiny.cache(), {}, format});
    return at::get_num_threads();
  };
  CHECK(threads_with(Format::bf16) == 1);
  CHECK(threads_with(Format::float32) == cpu::engine().pool->threads());
  at::set_num_threads(before);
}

TEST_CASE("a model whose products cannot be in the format asked for does not open") {
  const test::TinyRegistry tiny; // the feed-forward is 48 wide
  const Loader loader(tiny.registry, {tiny.path() / "store", tiny.cache(), {}, Format::int8});
  CHECK_THROWS_WITH(loader.model(tiny.registry.resolve(PackageRequest::parse("tiny"), Kind::model)),
                    Contains("48 inputs, int8 needs a multiple of 32"));
}

} // namespace tenon
