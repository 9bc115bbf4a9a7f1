#include "kernels/cpu/tier.hpp"

#include <cpuid.h>
#include <array>
#include <stdexcept>

namespace tenon::cpu {
namespace {

constexpr std::array<Tier, 3> kTiers = {Tier::reference, Tier::avx2, Tier::avx512};

std::string names(const std::vector<Tier>& tiers) {
  std::string text;
  for (const Tier tier : tiers) text += (text.empty() ? "" : ", ") + std::string(tier_name(tier));
  return text;
}

// What not every compiler's builtin knows by name.
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
bool has_avx512() {
#ifdef TENON_EMULATED_AVX512 // in tests alone: tests/kernels/emulated
  return true;
#else
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool bf16 = __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 5 & 1) != 0;
  return bf16 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
#endif
}

} // namespace

const char* tier_name(Tier tier) {
  switch (tier) {
    case Tier::reference: return "reference";
    case Tier::avx2: return "avx2";
    case Tier::avx512: return "avx512";
  }
  return "?";
}

bool supported(Tier tier) {
  switch (tier) {
    case Tier::reference: return true;
    case Tier::avx2: return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    case Tier::avx512: return supported(Tier::avx2) && has_avx512();
  }
  return false;
}

std::vector<Tier> supported_tiers() {
  std::vector<Tier> out;
  for (const Tier tier : kTiers)
    if (supported(tier)) out.push_back(tier);
  return out;
}

Tier choose_tier(std::string_view forced) {
  const std::vector<Tier> have = supported_tiers();
  if (forced.empty()) return have.back();
  for (const Tier tier : kTiers) {
    if (forced != tier_name(tier)) continue;
    if (supported(tier)) return tier;
    throw std::runtime_error("TENON_TIER: found " + std::string(forced) + ", this processor has " + names(have) +
                             "; unset TENON_TIER, or choose one of these");
  }
  throw std::runtime_error("TENON_TIER: found \"" + std::string(forced) + "\", need one of " +
                           names({kTiers.begin(), kTiers.end()}));
}

} // namespace tenon::cpu
