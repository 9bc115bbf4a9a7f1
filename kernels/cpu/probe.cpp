#include "kernels/cpu/probe.hpp"

#include "kernels/cpu/tier.hpp"

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstring>

namespace tenon::cpu {
namespace {

constexpr std::int64_t kParts = 64;      // of the memory: tasks of the pool
constexpr std::int64_t kLinks = 2000000; // of a chain: some 10 ms, so that waking a thread counts for nothing

template <class Work>
double seconds(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Twelve independent chains of one instruction: no memory, and no dependence to wait for.
#define TENON_CHAIN(name, features, reg, zero, instruction)                                                            \
  __attribute__((target(features), noinline)) void name(std::int64_t times) {                                          \
    asm volatile(zero " %%" reg "12, %%" reg "12, %%" reg "12\n " zero " %%" reg "13, %%" reg "13, %%" reg             \
                      "13\n 1:\n"                                                                                      \
                      ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11\n" instruction " %%" reg "12, %%" reg "13, %%" reg \
                      "\\n\n .endr\n"                                                                                  \
                      "sub $1, %0\n jnz 1b\n"                                                                          \
                 : "+r"(times)::reg "0", reg "1", reg "2", reg "3", reg "4", reg "5", reg "6", reg "7", reg "8",       \
                   reg "9", reg "10", reg "11", reg "12", reg "13", "cc");                                             \
  }
TENON_CHAIN(float32_chain_512, "avx512f", "zmm", "vpxorq", "vfmadd231ps")
TENON_CHAIN(bf16_chain, "avx512f", "zmm", "vpxorq", "vdpbf16ps")
TENON_CHAIN(int8_chain, "avx512f", "zmm", "vpxorq", "vpdpbusd")
TENON_CHAIN(float32_chain_256, "avx2", "ymm", "vpxor", "vfmadd231ps")
TENON_CHAIN(int8_chain_256, "avx2", "ymm", "vpxor", "vpmaddubsw")

// 10^9 operations a second; operations: of one instruction.
double peak(Pool& pool, void (*chain)(std::int64_t), double operations) {
  const int threads = pool.threads();
  const double taken = seconds([&] { pool.run(threads, [&](std::int64_t) { chain(kLinks); }); });
  return operations * 12 * static_cast<double>(kLinks) * threads / taken / 1e9;
}

// Reads everything; the empty asm is somebody who wants the sum. Asking 4 KiB ahead helps where the processor's own
// prefetchers stop at the end of a page of memory, and hinders where they do not.
constexpr std::int64_t kAhead = 4096;

void read_plain(const std::byte* from, std::int64_t bytes) {
  std::uint64_t sum = 0, word = 0;
  for (std::int64_t i = 0; i + 8 <= bytes; i += 8) std::memcpy(&word, from + i, 8), sum += word;
  asm volatile("" ::"r"(sum));
}

template <bool asks>
void ask(const std::byte* place) {
  if constexpr (asks) _mm_prefetch(reinterpret_cast<const char*>(place) + kAhead, _MM_HINT_T1);
}

template <bool asks>
__attribute__((target("avx2"))) void read_256(const std::byte* from, std::int64_t bytes) {
  __m256i sum[4] = {};
  for (std::int64_t i = 0; i + 128 <= bytes; i += 128) {
    ask<asks>(from + i), ask<asks>(from + i + 64);
    for (std::int64_t lane = 0; lane < 4; ++lane)
      sum[lane] =
          _mm256_add_epi64(sum[lane], _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i + 32 * lane)));
  }
  for (const __m256i& one : sum) asm volatile("" ::"x"(one));
}

template <bool asks>
__attribute__((target("avx512f"))) void read_512(const std::byte* from, std::int64_t bytes) {
  __m512i sum[4] = {};
  for (std::int64_t i = 0; i + 256 <= bytes; i += 256)
    for (std::int64_t lane = 0; lane < 4; ++lane) {
      ask<asks>(from + i + 64 * lane);
      sum[lane] = _mm512_add_epi64(sum[lane], _mm512_loadu_si512(from + i + 64 * lane));
    }
  for (const __m512i& one : sum) asm volatile("" ::"v"(one));
}

using Walk = void (*)(const std::byte* from, std::int64_t bytes);
template <bool asks>
Walk walk() {
  return supported(Tier::avx512) ? read_512<asks> : supported(Tier::avx2) ? read_256<asks> : read_plain;
}

} // namespace

void read_all(const std::byte* from, std::int64_t bytes) {
  static const Walk all = walk<true>(); // a virtual machine answers slowly what its processor can do
  all(from, bytes);
}

Probe::Probe(std::int64_t bytes) : memory_(static_cast<std::size_t>(bytes)) {
  std::memset(memory_.bytes().data(), 1, memory_.bytes().size());
}

double Probe::read(Pool& pool) const {
  const auto part = static_cast<std::int64_t>(memory_.bytes().size()) / kParts;
  const auto rate = [&](Walk each) {
    const double taken =
        seconds([&] { pool.run(kParts, [&](std::int64_t p) { each(memory_.bytes().data() + p * part, part); }); });
    return static_cast<double>(part * kParts) / taken / 1e9;
  };
  return std::max(rate(walk<false>()), rate(walk<true>()));
}

Limits Probe::measure(Pool& pool) const {
  Limits out;
  out.read = read(pool);
  if (supported(Tier::avx512)) {
    out.float32 = peak(pool, float32_chain_512, 32);
    out.bf16 = peak(pool, bf16_chain, 64);
    out.int8 = peak(pool, int8_chain, 128);
  } else if (supported(Tier::avx2)) {
    out.float32 = out.bf16 = peak(pool, float32_chain_256, 16);
    out.int8 = peak(pool, int8_chain_256, 64);
  }
  return out;
}

} // namespace tenon::cpu
