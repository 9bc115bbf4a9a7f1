#include "kernels/cpu/kernels.hpp"

namespace tenon::cpu {

extern const Kernels reference_kernels, avx2_kernels, avx512_kernels;

const Kernels& kernels_of(Tier tier) {
  switch (tier) {
    case Tier::avx512: return avx512_kernels;
    case Tier::avx2: return avx2_kernels;
    case Tier::reference: break;
  }
  return reference_kernels;
}

} // namespace tenon::cpu
