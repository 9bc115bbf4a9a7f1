// What computes: the kernels of a tier, and the pool they share. And the memory they work in.
//
// Thread: an Engine: any. An Arena: one call at a time.
#pragma once

#include "kernels/cpu/kernels.hpp"
#include "kernels/cpu/pool.hpp"

#include <cstddef>
#include <memory>
#include <vector>

namespace tenon::cpu {

// How rows go through blocks (transformer_run.cpp), to the same bits: all threads at every product, or each with rows
// of its own.
enum class Sharing { measured, by_product, apart };

struct Engine {
  const Kernels* kernels;
  Pool* pool;
  Sharing sharing = Sharing::measured;
};

// The process's own, made at the first call: the tier TENON_TIER names, else the best; as many threads as TENON_THREADS
// says, else as this process may use processors. Throws std::runtime_error for what these variables may not say.
const Engine& engine();

// Memory that one call takes piece by piece and gives back as a whole. After the first calls of the largest size it
// asks the system for nothing.
class Arena {
 public:
  // Aligned to 64; contents undefined; valid until reset.
  template <class T>
  T* take(std::int64_t count) {
    return static_cast<T*>(take_bytes(static_cast<std::size_t>(count) * sizeof(T)));
  }
  void reset();
  // What was taken since mark() is free again.
  struct Mark {
    std::size_t block, used;
  };
  Mark mark() const { return {block_, used_}; }
  void rewind(Mark to) { block_ = to.block, used_ = to.used; }
  std::size_t bytes() const; // held, with those of its parts

  // One of its own for a task of the caller's, made at the first call: ask before the region begins. reset is the
  // caller's to call.
  Arena& part(std::int64_t index);

 private:
  struct Block {
    struct Free {
      void operator()(std::byte* memory) const;
    };
    std::unique_ptr<std::byte[], Free> memory;
    std::size_t size = 0;
  };
  static Block block_of(std::size_t bytes);
  void* take_bytes(std::size_t bytes);

  std::vector<Block> blocks_;
  std::vector<std::unique_ptr<Arena>> parts_;
  std::size_t block_ = 0, used_ = 0; // the next piece begins here
};

} // namespace tenon::cpu
