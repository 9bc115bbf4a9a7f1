#include "kernels/cpu/engine.hpp"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>

namespace tenon::cpu {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr int kMostThreads = 1024;

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// That this process may use; hardware_concurrency counts others, too. The system refuses sets that are too small for
// it.
int processors() {
  for (std::size_t most = CPU_SETSIZE; most <= std::size_t{1} << 20; most *= 2) {
    std::vector<cpu_set_t> set(most / CPU_SETSIZE);
    const std::size_t bytes = set.size() * sizeof(cpu_set_t);
    if (sched_getaffinity(0, bytes, set.data()) == 0) return std::max(1, CPU_COUNT_S(bytes, set.data()));
  }
  throw std::runtime_error("this system does not say which processors may be used; set TENON_THREADS");
}

int thread_count() {
  const std::string asked = variable("TENON_THREADS");
  if (asked.empty()) return std::min(processors(), kMostThreads);
  const bool digits = asked.size() <= 4 && asked.find_first_not_of("0123456789") == std::string::npos;
  const int threads = digits ? std::stoi(asked) : 0;
  if (threads < 1 || threads > kMostThreads)
    throw std::runtime_error("TENON_THREADS: found \"" + asked + "\", need a number from 1 to " +
                             std::to_string(kMostThreads));
  return threads;
}

} // namespace

const Engine& engine() {
  static Pool pool(thread_count());
  static const Engine one{&kernels_of(choose_tier(variable("TENON_TIER"))), &pool};
  return one;
}

void Arena::Block::Free::operator()(std::byte* memory) const {
  ::operator delete[](memory, std::align_val_t(kAlignment));
}

Arena::Block Arena::block_of(std::size_t bytes) {
  Block block;
  block.memory.reset(static_cast<std::byte*>(::operator new[](bytes, std::align_val_t(kAlignment))));
  block.size = bytes;
  return block;
}

void* Arena::take_bytes(std::size_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  while (block_ < blocks_.size() && blocks_[block_].size - used_ < bytes) ++block_, used_ = 0;
  if (block_ == blocks_.size()) blocks_.push_back(block_of(std::max(bytes, std::size_t{1} << 20)));
  std::byte* taken = blocks_[block_].memory.get() + used_;
  used_ += bytes;
  return taken;
}

void Arena::reset() {
  if (blocks_.size() > 1) {
    std::size_t all = 0;
    for (const Block& block : blocks_) all += block.size;
    rewind({0, 0}); // whole even where the next line finds no memory
    blocks_.clear();
    blocks_.push_back(block_of(all));
  }
  rewind({0, 0});
}

std::size_t Arena::bytes() const {
  std::size_t sum = 0;
  for (const Block& block : blocks_) sum += block.size;
  for (const auto& part : parts_) sum += part->bytes();
  return sum;
}

Arena& Arena::part(std::int64_t index) {
  while (static_cast<std::int64_t>(parts_.size()) <= index) parts_.push_back(std::make_unique<Arena>());
  return *parts_[static_cast<std::size_t>(index)];
}

} // namespace tenon::cpu
