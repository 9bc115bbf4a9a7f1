// What a call of an expert asks the allocators for, once it is warm. Counted where memory comes from: operator new of
// the whole test program, LibTorch's included, and LibTorch's allocator of tensors' numbers.
#include "tests/support/packed_in_memory.hpp"
#include "tests/support/tiny_model.hpp"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <catch2/catch.hpp>

#include <cstdlib>
#include <map>
#include <new>

namespace {

thread_local bool counting = false;
thread_local std::int64_t objects = 0, tensors = 0; // news; numbers of tensors

void* allocate(std::size_t bytes, std::size_t alignment) {
  if (counting) ++objects;
  void* memory = nullptr;
  if (posix_memalign(&memory, std::max(alignment, sizeof(void*)), std::max<std::size_t>(bytes, 1)) != 0)
    throw std::bad_alloc();
  return memory;
}

} // namespace

void* operator new(std::size_t bytes) { return allocate(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace tenon::test {
namespace {

// LibTorch's allocator, counted, for as long as this lives.
class Counted : public c10::Allocator {
 public:
  Counted() : theirs_(c10::GetCPUAllocator()) { c10::SetCPUAllocator(this, 1); }
  ~Counted() override { c10::SetCPUAllocator(theirs_, 1); }
  c10::DataPtr allocate(std::size_t bytes) override {
    if (counting) ++tensors;
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

template <class Call>
Asked asked(const Call& call) {
  objects = tensors = 0;
  counting = true;
  call();
  counting = false;
  return {objects, tensors};
}

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
  for (int i = 0; i < 3; ++i) step();

  const Asked first = asked(step);
  CHECK(first.tensors == 1); // the result's numbers
  // The result's header and its storage's, and what carries it and the call's arguments over the two boundaries.
  CHECK(first.objects <= 4);
  for (int i = 0; i < 100; ++i) CHECK(asked(step) == first);
}

} // namespace tenon::test
