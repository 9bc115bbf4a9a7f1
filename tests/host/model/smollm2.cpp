#include "tests/support/smollm2.hpp"
#include "host/model/import.hpp"
#include "host/model/rejoin.hpp"

#include <ATen/ATen.h>
#include <tenon/nn/transformer.hpp>

#include <catch2/catch.hpp>
#include <unordered_map>

using namespace tenon;

namespace {

// The model as it stands in the file, every weight as float32 in memory.
struct WholeInMemory {
  WholeModel model = read_whole_model(smollm2_gguf());
  std::unordered_map<std::string, at::Tensor> weights;

  WholeInMemory() {
    for (const StoredTensor& stored : model.tensors) {
      at::Tensor tensor = at::empty(std::vector<std::int64_t>(stored.shape.begin(), stored.shape.end()));
      dequantise(stored, {tensor.data_ptr<float>(), stored.elements()});
      weights.emplace(stored.name, tensor);
    }
  }
  WeightSource source() const {
    return [this](const std::string& name) { return weights.at(name); };
  }
};

const WholeInMemory& smollm2() {
  static const WholeInMemory whole;
  return whole;
}

constexpr Cut kCut{10, 20};

at::Tensor golden(const SafetensorsFile& file, const char* name, at::ScalarType type) {
  const TensorView& view = file.at(name);
  return at::from_blob(const_cast<std::byte*>(view.bytes.data()),
                       std::vector<std::int64_t>(view.shape.begin(), view.shape.end()), type);
}

SafetensorsFile reference() {
  return SafetensorsFile(std::filesystem::path(TENON_TEST_DATA) / "goldens/smollm2/reference.safetensors");
}

} // namespace

TEST_CASE("SmolLM2 cut 10:20 and joined again gives the uncut model's logits bit for bit") {
  const WholeInMemory& whole = smollm2();
  const SafetensorsFile file = reference();
  const Batch batch = Batch::whole(golden(file, "tokens", at::kInt).narrow(0, 0, 128).unsqueeze(0));
  const at::Tensor uncut = uncut_logits(whole.model.shape, whole.source(), batch);
  CHECK(at::equal(uncut, rejoined_logits(whole.model.shape, kCut, whole.source(), batch)));
  CHECK(at::equal(uncut, rejoined_logits(whole.model.shape, {0, 30}, whole.source(), batch)));
  CHECK_FALSE(at::equal(uncut, rejoined_logits(whole.model.shape, {10, 19}, whole.source(), batch) + 1e-6));
}

TEST_CASE("SmolLM2's logits agree with transformers to 1e-3 over 512 teacher-forced positions") {
  const WholeInMemory& whole = smollm2();
  const SafetensorsFile file = reference();
  const Batch batch = Batch::whole(golden(file, "tokens", at::kInt).unsqueeze(0));
  const at::Tensor logits = rejoined_logits(whole.model.shape, kCut, whole.source(), batch);
  const at::Tensor positions = at::arange(512, at::kLong).unsqueeze(1),
                   columns = at::arange(32, at::kLong).unsqueeze(0);
  const at::Tensor sample = logits.gather(1, (positions * 97 + columns * 1543) % whole.model.shape.vocab);
  CHECK((sample - golden(file, "logits", at::kFloat)).abs().max().item<float>() <= 1e-3f);
}

TEST_CASE("SmolLM2 writes the same 64 greedy tokens as transformers, one step at a time over kept state") {
  const WholeInMemory& whole = smollm2();
  const SafetensorsFile file = reference();
  const at::Tensor tokens = golden(file, "tokens", at::kInt), greedy = golden(file, "greedy", at::kInt);
  at::NoGradGuard no_grad;
  const Trunk trunk(whole.model.shape, kCut.first, whole.source());
  const Head head(whole.model.shape, kCut.last, whole.source());
  const auto middle = bind_layers(whole.model.shape, kCut.first, kCut.last, whole.source());
  const Trunk ten_layers(whole.model.shape, kCut.last - kCut.first, whole.source()); // for its layout
  Sequence sequence{ModuleState(trunk.layout()), ModuleState(head.layout()), {}, RowBuffer(), RowBuffer()};
  sequence.experts.emplace_back(ten_layers.layout());

  std::vector<std::int32_t> next(tokens.data_ptr<std::int32_t>(), tokens.data_ptr<std::int32_t>() + 64), written;
  while (written.size() < 64) {
    const Batch batch = Batch::next(sequence, next);
    const at::Tensor h = trunk.forward(batch);
    sequence.h.append(h);
    const auto spans = batch.spans([](Sequence& s) -> ModuleState& { return s.experts[0]; });
    const at::Tensor logits = head.forward(middle->forward(h, spans), batch);
    written.push_back(static_cast<std::int32_t>(logits.select(0, logits.size(0) - 1).argmax().item<std::int64_t>()));
    next = {written.back()};
  }
  CHECK(written == std::vector<std::int32_t>(greedy.data_ptr<std::int32_t>(), greedy.data_ptr<std::int32_t>() + 64));
}
