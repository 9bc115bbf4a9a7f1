#include "host/model/block_pool.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace tenon {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kPage = std::size_t{2} << 20, kLeftOver = kPage / 20;
constexpr std::size_t kSmallest = kPage / 64; // a page of smaller ones would lie unused for long

std::int64_t bytes_of(std::int64_t floats) { return floats * static_cast<std::int64_t>(sizeof(float)); }

} // namespace

void BlockPool::Free::operator()(float* memory) const { std::free(memory); }

StateBlock BlockPool::take(std::int64_t floats) {
  float* memory = nullptr;
  {
    const std::lock_guard lock(mutex_);
    std::vector<float*>& same = free_[floats];
    if (same.empty()) add(floats, same);
    memory = same.back();
    same.pop_back();
    used_bytes_ += bytes_of(floats);
    peak_bytes_ = std::max(peak_bytes_, used_bytes_);
  }
  return {memory, [pool = shared_from_this(), floats](float* block) { pool->give_back(block, floats); }};
}

// One more block of a size, or a page of them.
void BlockPool::add(std::int64_t floats, std::vector<float*>& blocks) {
  const std::size_t bytes =
      std::max((static_cast<std::size_t>(bytes_of(floats)) + kAlignment - 1) / kAlignment * kAlignment, kAlignment);
  if (bytes < kSmallest || bytes > kPage / 4 || kPage % bytes > kLeftOver) {
    alone_.emplace_back(static_cast<float*>(std::aligned_alloc(kAlignment, bytes)));
    if (!alone_.back()) throw std::bad_alloc();
    return blocks.push_back(alone_.back().get());
  }
  std::byte* page = pages_.emplace_back(kPage).bytes().data();
  for (std::size_t i = kPage / bytes; i > 0; --i) blocks.push_back(reinterpret_cast<float*>(page + (i - 1) * bytes));
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
