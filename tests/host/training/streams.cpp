#include "host/training/streams.hpp"

#include "registry/base/error.hpp"
#include "tests/support/tiny_registry.hpp"

#include "host/formats/corpus.hpp"
#include "host/training/stream_folder.hpp"

#include <ATen/ATen.h>
#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <numeric>

namespace tenon {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kLength = 32;

struct Bench {
  test::TinyRegistry tiny;
  Loader loader = tiny.loader();
  std::shared_ptr<const Model> model = loader.model(tiny.registry.resolve(PackageRequest::parse("tiny"), Kind::model));
  ExpertPackage base = loader.base(*model);
  Shard text =
      prepare_whole({tiny.path() / "sums"}, model->tokenizer(), {.sequence_length = kLength}, tiny.cache()).tokens;

  Blocks blocks(std::int64_t count) const {
    std::vector<std::uint32_t> order(static_cast<std::size_t>(count));
    std::iota(order.begin(), order.end(), 3u); // not the text's beginning
    return {text, kLength, order};
  }
  StreamOptions options(bool bfloat16 = false) const {
    return {tiny.path() / "streams", "text", "test", bfloat16, std::uint64_t{1} << 30};
  }
  Streams open(std::int64_t count, const TrainingHooks& hooks = {}, bool bfloat16 = false) const {
    return Streams::open(blocks(count), *model, *base.expert, options(bfloat16), hooks);
  }
};

const Bench& bench() {
  static const Bench one;
  return one;
}

// The only folder of the cache, for looking at its files.
fs::path only_folder(const fs::path& streams) {
  for (const auto& entry : fs::directory_iterator(streams))
    if (entry.is_directory()) return entry.path();
  return {};
}

struct CountedBlocks {
  std::int64_t computed = 0, stop_after = -1;
  TrainingHooks hooks() {
    TrainingHooks hooks;
    hooks.update = [this](std::int64_t, const std::string&) { ++computed; };
    hooks.stop = [this] { return computed == stop_after; };
    return hooks;
  }
};

} // namespace

TEST_CASE("streams hold what trunk and base say, bit for bit") {
  const Bench& b = bench();
  fs::remove_all(b.options().folder);
  const Streams streams = b.open(5);
  REQUIRE(streams.size() == 5);
  for (const std::int64_t i : {0, 4}) {
    const Batch batch = Batch::whole(streams.tokens_T(i).unsqueeze(0));
    const auto expected = b.text.block(static_cast<std::size_t>(3 + i), kLength);
    CHECK(batch.tokens_N[0].item<std::int64_t>() == expected[0]);
    const at::Tensor h = b.model->trunk().forward(batch);
    const auto spans = batch.spans([](Sequence& s) -> ModuleState& { return s.experts[0]; });
    CHECK(streams.h_TC(i).equal(h));
    at::NoGradGuard no_grad;
    CHECK(streams.base_TC(i).equal(b.base.expert->forward(h, {}, spans)));
  }
}

TEST_CASE("streams are computed once, and a longer run only adds") {
  const Bench& b = bench();
  fs::remove_all(b.options().folder);
  CountedBlocks first, second, third;
  const Streams a = b.open(4, first.hooks());
  const Streams longer = b.open(7, second.hooks());
  b.open(5, third.hooks());
  CHECK(first.computed == 4);
  CHECK(second.computed == 3);
  CHECK(third.computed == 0);
  CHECK(a.h_TC(3).equal(longer.h_TC(3)));
}

TEST_CASE("streams that were interrupted go on where they were") {
  const Bench& b = bench();
  fs::remove_all(b.options().folder);
  CountedBlocks stopped, rest;
  stopped.stop_after = 3;
  try {
    b.open(6, stopped.hooks());
    FAIL("did not stop");
  } catch (const Error& error) {
    CHECK(error.code == Code::interrupted);
  }
  const Streams streams = b.open(6, rest.hooks());
  CHECK(rest.computed == 3);
  const Batch batch = Batch::whole(streams.tokens_T(2).unsqueeze(0));
  CHECK(streams.h_TC(2).equal(b.model->trunk().forward(batch)));
}

TEST_CASE("streams believe only the blocks that were counted") {
  const Bench& b = bench();
  fs::remove_all(b.options().folder);
  b.open(4);
  const fs::path folder = only_folder(b.options().folder);
  fs::resize_file(folder / "blocks.bin", fs::file_size(folder / "blocks.bin") + 100); // killed in mid-block
  CountedBlocks torn, short_file, other;
  b.open(5, torn.hooks());
  CHECK(torn.computed == 1);
  fs::resize_file(folder / "blocks.bin", 10); // damaged
  const Streams streams = b.open(5, short_file.hooks());
  CHECK(short_file.computed == 5);
  CHECK(streams.h_TC(4).isfinite().all().item<bool>());
  write_file(folder / "blocks.json", "{\"blocks\": 5, \"key\": {}}");
  b.open(5, other.hooks());
  CHECK(other.computed == 5);
}

TEST_CASE("streams in bfloat16 take half the disk and come back as float32") {
  const Bench& b = bench();
  fs::remove_all(b.options().folder);
  const Streams exact = b.open(2), rounded = b.open(2, {}, true);
  CHECK(rounded.h_TC(1).equal(exact.h_TC(1).to(at::kBFloat16).to(at::kFloat)));
  CHECK(rounded.h_TC(1).scalar_type() == at::kFloat);
}

TEST_CASE("streams over the budget are refused with both numbers") {
  const Bench& b = bench();
  StreamOptions options = b.options();
  options.folder = b.tiny.path() / "small-budget";
  options.budget_bytes = 1000;
  try {
    Streams::open(b.blocks(4), *b.model, *b.base.expert, options, {});
    FAIL("accepted");
  } catch (const Error& error) {
    CHECK(error.code == Code::usage);
    CHECK_THAT(error.message, Catch::Contains("budget"));
    CHECK_THAT(error.remedy, Catch::Contains("streams.budget_gib"));
  }
}

TEST_CASE("the stream cache removes what was unused longest, and only as much as it must") {
  const Scratch scratch;
  const std::vector<std::byte> block(1000, std::byte{1});
  const auto fill = [&](const std::string& name, int blocks, std::uint64_t budget) {
    StreamFolder folder(scratch.path(), {{"name", name}}, block.size());
    folder.make_room(static_cast<std::uint64_t>(blocks) * block.size(), budget);
    for (std::int64_t i = folder.blocks(); i < blocks; ++i) folder.append(block);
    folder.sync();
  };
  const auto has = [&](const std::string& name) {
    return StreamFolder(scratch.path(), {{"name", name}}, block.size()).blocks() > 0;
  };
  fill("old", 3, 10000);
  fill("middle", 3, 10000);
  fill("new", 3, 10000);
  // Times a whole second apart, whatever the clock's grain.
  const auto set_ages = [&] {
    for (const auto& entry : fs::directory_iterator(scratch.path())) {
      if (!entry.is_directory()) continue;
      const std::string key = read_file(entry.path() / "blocks.json");
      const int age = key.find("old") != std::string::npos ? 3 : key.find("middle") != std::string::npos ? 2 : 1;
      fs::last_write_time(entry.path() / "blocks.json", fs::file_time_type::clock::now() - std::chrono::seconds(age));
    }
  };
  set_ages();
  fill("more", 3, 9500);
  CHECK_FALSE(has("old"));
  CHECK(has("middle"));
  CHECK(has("new"));
  CHECK(has("more"));
  fill("old", 3, 12000);
  {
    const StreamFolder written(scratch.path(), {{"name", "old"}}, block.size()); // by another training
    set_ages();
    fill("latest", 3, 12500);
  }
  CHECK(has("old"));
  CHECK_FALSE(has("middle"));
}

TEST_CASE("a full disk ends the streams with a remedy, and what is whole stays") {
  const Scratch scratch;
  const std::vector<std::byte> block(4096, std::byte{1});
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  {
    StreamFolder folder(scratch.path(), {{"name", "x"}}, block.size());
    folder.append(block);
    folder.sync();
    const rlimit small{6000, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    try {
      folder.append(block);
      FAIL("wrote beyond the limit");
    } catch (const Error& error) {
      CHECK(error.code == Code::environment);
      CHECK_THAT(error.what(), Catch::Contains("blocks.bin"));
    }
  }
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  CHECK(StreamFolder(scratch.path(), {{"name", "x"}}, block.size()).blocks() == 1);
}

} // namespace tenon
