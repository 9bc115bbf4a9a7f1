// What a call of an expert, of every kind that comes with Tenon, and a drawn token ask the allocators for, once warm.
// Counted where memory comes from: operator new of the whole test program, LibTorch's included, and LibTorch's
// allocator of tensors' numbers.
#include "host/inference/sampling.hpp"
#include "tests/support/counted_new.hpp"
#include "tests/support/packed_in_memory.hpp"
#include "tests/support/plugin_expert.hpp"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <catch2/catch.hpp>

namespace tenon::test {
namespace {

// Numbers of tensors that LibTorch asked for: its allocator, counted for as long as this lives.
class Counted : public c10::Allocator {
 public:
  std::int64_t tensors = 0;

  Counted() : theirs_(c10::GetCPUAllocator()) { c10::SetCPUAllocator(this, 1); }
  ~Counted() override { c10::SetCPUAllocator(theirs_, 1); }
  c10::DataPtr allocate(std::size_t bytes) override {
    ++tensors;
    return theirs_->allocate(bytes);
  }
  c10::DeleterFnPtr raw_deleter() const override { return theirs_->raw_deleter(); }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { theirs_->copy_data(to, from, bytes); }

 private:
  c10::Allocator* theirs_;
};

struct Asked {
  std::int64_t objects, tensors;
  bool operator==(const Asked&) const = default;
};

constexpr std::int64_t kWidth = 256; // several panels a product: of two threads each has some

// A kind of expert, and the most that a step of it asks for. LibTorch makes three objects of every result (its header,
// its storage's, its version), two of every view, and some more in cat, select and split; what carries a call over to
// one of our operators is another. Kinds that are one run of blocks have a single result.
struct Shipped {
  PluginKind kind;
  Asked most;
};

std::vector<Shipped> every_kind() {
  const json::object blocks = {{"blocks", 2},      {"heads", 8},       {"kv_heads", 4},        {"head_dim", 32},
                               {"ffn_width", 384}, {"norm_eps", 1e-5}, {"rope_theta", 10000.0}};
  json::object stitched = blocks;
  stitched["width"] = 192;
  const json::object base = {{"architecture", "tenon.transformer"}, {"config", blocks}};
  const auto inner = [](json::object config) { return config["inner_width"] = 384, config; };
  return {{{"tenon_transformer", "tenon.transformer", blocks}, {4, 1}},
          {{"tenon_transformer", "tenon.imported", stitched}, {18, 5}},
          {{"tenon_transformer", "tenon.transformer_on_base", blocks}, {21, 6}},
          {{"tenon_low_rank", "tenon.low_rank", {}, base}, {4, 1}},
          {{"tenon_mlp", "tenon.mlp", inner({})}, {32, 9}},
          {{"tenon_mixture", "tenon.mixture", inner({{"experts", 4}})}, {20, 6}},
          {{"tenon_convolution", "tenon.convolution", inner({})}, {326, 54}},
          {{"tenon_recurrent", "tenon.recurrent", inner({{"cell", "gru"}})}, {100, 17}},
          {{"tenon_recurrent", "tenon.recurrent", inner({{"cell", "lstm"}})}, {116, 19}},
          {{"tenon_state_space", "tenon.state_space", inner({})}, {218, 34}},
          {{"tenon_memory", "tenon.memory", {{"capacity", 64}, {"neighbors", 4}}}, {95, 22}}};
}

// An expert over packed weights, none of them zero, and one sequence that it reads.
class Reader {
 public:
  explicit Reader(const PluginKind& kind) : expert_(kind.born(kWidth)), state_(expert_->layout()) {
    std::vector<at::Tensor> matrices;
    for (const ExpertParameter& parameter : expert_->parameters()) {
      at::Tensor tensor = parameter.tensor;
      tensor.copy_(normal(parameter.name, tensor.sizes(), 0.05));
      if (parameter.name == "count") tensor.fill_(64); // of tenon.memory: all that it may hold
      const bool change = parameter.name.ends_with(".a") || parameter.name.ends_with(".b");
      if (tensor.dim() == 2 && !change) matrices.push_back(tensor);
    }
    forms_.emplace(matrices, cpu::PackedFormat::bf16);
    expert_->prepare(TENON_INFERENCE);
  }

  void read(std::int64_t count) {
    const tenon_span span{0, count, position_, to_handle(&state_)};
    const at::Tensor y_NC = expert_->forward(h_NC_.narrow(0, 0, count), base_NC_.narrow(0, 0, count), {&span, 1});
    state_.advance(count), position_ += count;
  }
  // Of one position, whose rows are at hand.
  void step() {
    const tenon_span span{0, 1, position_, to_handle(&state_)};
    const at::Tensor y_1C = expert_->forward(h_1C_, base_1C_, {&span, 1});
    state_.advance(1), ++position_;
  }

 private:
  std::unique_ptr<LoadedExpert> expert_;
  std::optional<PackedInMemory> forms_;
  ModuleState state_;
  std::int64_t position_ = 0;
  at::Tensor h_NC_ = normal("h", {kMost, kWidth}, 1.0), base_NC_ = normal("base", {kMost, kWidth}, 1.0),
             h_1C_ = h_NC_.narrow(0, 0, 1), base_1C_ = base_NC_.narrow(0, 0, 1);
  static constexpr std::int64_t kMost = 1000;
};

} // namespace

TEST_CASE("a warm step of an expert asks for a stated number of tensors, whatever has been read before",
          "[allocations]") {
  at::NoGradGuard no_grad;
  Counted counted;
  for (const auto& [kind, most] : every_kind()) {
    CAPTURE(kind.architecture, canonical_json(kind.config));
    Reader reader(kind);
    const auto asked = [&] {
      const Asked before{allocations, counted.tensors};
      reader.step();
      return Asked{allocations - before.objects, counted.tensors - before.tensors};
    };
    for (int i = 0; i < 3; ++i) reader.step();
    const Asked first = asked();
    CHECK(first.tensors <= most.tensors);
    CHECK(first.objects <= most.objects);
    for (int i = 0; i < 100; ++i) CHECK(asked() == first);
    reader.read(1000);
    for (int i = 0; i < 3; ++i) reader.step();
    for (int i = 0; i < 100; ++i) CHECK(asked() == first);
  }
}

TEST_CASE("a drawn token asks for nothing once another was drawn, however many are left to choose from",
          "[allocations]") {
  std::vector<float> logits(5000);
  RandomStream(3, "logits").normal(logits);
  for (const SamplingOptions& options : std::vector<SamplingOptions>{
           {0, 0, 1.0, 5}, {1.0, 0, 1.0, 5}, {1.0, 0, 0.9, 5}, {1.0, 40, 0.9, 5}, {1.0, 400, 1.0, 5}}) {
    CAPTURE(options.temperature, options.top_k, options.top_p);
    const Sampler sampler(options);
    (void)sampler.sample(logits, 0);
    const std::int64_t before = allocations;
    for (std::uint64_t index = 0; index < 50; ++index) (void)sampler.sample(logits, index);
    CHECK(allocations == before);
  }
}

} // namespace tenon::test
