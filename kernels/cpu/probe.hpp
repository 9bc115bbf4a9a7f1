// What this machine can do right now: the limits that speeds are told against.
//
//   read      bytes of memory a second, many times the last cache: by plain loads, or asking ahead, whichever is faster
//   float32, bf16, int8   operations a second (a multiplication and an addition are two) of independent chains of one
//             instruction: FMA, VDPBF16PS, VPDPBUSD. With AVX2 alone bf16 is what FMA does, since its products are of
//             widened numbers, and int8 what VPMADDUBSW does, which only multiplies and adds two by two: sums take as
//             much again. 0 where the processor has neither
//
// Virtual machines change by a factor of two within a minute, so a figure is measured beside its own limits, not beside
// some earlier ones: measure() takes about a fifth of a second. Thread: one call at a time.
#pragma once

#include "kernels/cpu/packed_matrix.hpp"
#include "kernels/cpu/pages.hpp"
#include "kernels/cpu/pool.hpp"

namespace tenon::cpu {

struct Limits {
  double read = 0;                        // 10^9 bytes a second
  double float32 = 0, bf16 = 0, int8 = 0; // 10^9 operations a second

  // Of products with weights of this format; 0 where it is not known.
  double peak(PackedFormat format) const { return reads_bf16(format) ? bf16 : int8; }
};

// Loads all of it, asking a page ahead. Requires: bytes a multiple of 256.
void read_all(const std::byte* from, std::int64_t bytes);

constexpr std::int64_t kProbeBytes = std::int64_t{160} << 20;

class Probe {
 public:
  // Reads from 2 MiB pages where the system has such, wherever weights lie: a limit is the most that can be had. Throws
  // std::bad_alloc.
  explicit Probe(std::int64_t bytes = kProbeBytes);

  // By all threads of the pool.
  Limits measure(Pool& pool) const;
  double read(Pool& pool) const;

 private:
  HugeMemory memory_;
};

} // namespace tenon::cpu
