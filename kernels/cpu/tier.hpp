// Tiers of processors: which instructions the kernels use. Chosen once at run time: the best this processor has, or the
// one that TENON_TIER names (reference, avx2, avx512).
//
//   reference  plain C++; runs everywhere and is what the others are compared with
//   avx2       AVX2, FMA, F16C
//   avx512     AVX-512 F, BW, VL, DQ, with BF16 and VNNI
//
// Within a tier every output has one order of summation, so results do not depend on threads, on the rows of a call, or
// on how a text was split. Between tiers they differ by rounding. Thread: any.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tenon::cpu {

enum class Tier { reference, avx2, avx512 };

const char* tier_name(Tier tier);
bool supported(Tier tier);
std::vector<Tier> supported_tiers(); // ascending
// forced: a tier's name; empty for the best supported one.
// Throws std::runtime_error, saying what was found, what is needed and the remedy.
Tier choose_tier(std::string_view forced);

} // namespace tenon::cpu
