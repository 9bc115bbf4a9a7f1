// What a call of an expert asks the allocators for, once it is warm. Counted where memory comes from: operator new of
// the whole test program, LibTorch's included, and LibTorch's allocator of tensors' numbers.
#include "tests/support/counted_new.hpp"
#include "tests/support/packed_in_memory.hpp"
#include "tests/support/tiny_model.hpp"

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

} // namespace

TEST_CASE("a warm call of an expert asks for its result and a fixed number of headers, whatever it has read before") {
  Counted counted;
  const Tiny tiny;
  const ExpertPackage package = tiny_expert(*tiny.model, causal("expert"));
  std::vector<at::Tensor> matrices;
  for (const ExpertParameter& parameter : package.expert->parameters())
    if (parameter.tensor.dim() == 2) matrices.push_back(parameter.tensor);
  const PackedInMemory forms(matrices, cpu::PackedFormat::bf16);
  package.expert->prepare(TENON_INFERENCE);

  ModuleState state(package.expert->layout());
  const at::Tensor h_1C = normal("h", {1, tiny.model->shape().width}, 1.0);
  std::int64_t position = 0;
  const auto step = [&] {
    const tenon_span span{0, 1, position, to_handle(&state)};
    const at::Tensor y_1C = package.expert->forward(h_1C, {}, {&span, 1});
    state.advance(1), ++position;
  };
  const auto asked = [&] {
    const Asked before{allocations, counted.tensors};
    step();
    return Asked{allocations - before.objects, counted.tensors - before.tensors};
  };
  for (int i = 0; i < 3; ++i) step();

  const Asked first = asked();
  CHECK(first.tensors == 1); // the result's numbers
  // The result's header and its storage's, and what carries it and the call's arguments over the two boundaries.
  CHECK(first.objects <= 4);
  for (int i = 0; i < 100; ++i) CHECK(asked() == first);
}

} // namespace tenon::test
