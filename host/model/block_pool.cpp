#include "host/model/block_pool.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace tenon {
namespace {

constexpr std::size_t kAlignment = 64;

std::int64_t bytes_of(std::int64_t floats) { return floats * static_cast<std::int64_t>(sizeof(float)); }

float* allocate(std::int64_t floats) {
  const std::size_t bytes = (static_cast<std::size_t>(bytes_of(floats)) + kAlignment - 1) / kAlignment * kAlignment;
  void* memory = std::aligned_alloc(kAlignment, std::max(bytes, kAlignment));
  if (!memory) throw std::bad_alloc();
  return static_cast<float*>(memory);
}

} // namespace

BlockPool::~BlockPool() {
  for (const auto& [floats, blocks] : free_)
    for (float* block : blocks) std::free(block);
}

StateBlock BlockPool::take(std::int64_t floats) {
  float* memory = reuse(floats);
  if (!memory) memory = allocate(floats);
  {
    const std::lock_guard lock(mutex_);
    used_bytes_ += bytes_of(floats);
    peak_bytes_ = std::max(peak_bytes_, used_bytes_);
  }
  return {memory, [pool = shared_from_this(), floats](float* block) { pool->give_back(block, floats); }};
}

float* BlockPool::reuse(std::int64_t floats) {
  const std::lock_guard lock(mutex_);
  std::vector<float*>& same = free_[floats];
  if (same.empty()) return nullptr;
  float* block = same.back();
  same.pop_back();
  return block;
}

void BlockPool::give_back(float* memory, std::int64_t floats) {
  const std::lock_guard lock(mutex_);
  free_[floats].push_back(memory);
  used_bytes_ -= bytes_of(floats);
}

std::int64_t BlockPool::used_bytes() const {
  const std::lock_guard lock(mutex_);
  return used_bytes_;
}

std::int64_t BlockPool::peak_bytes() const {
  const std::lock_guard lock(mutex_);
  return peak_bytes_;
}

} // namespace tenon
