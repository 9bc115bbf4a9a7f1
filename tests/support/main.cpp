// Every test program's. Where TENON_TIER names kernels that this processor lacks, it says so and runs nothing.
#define CATCH_CONFIG_RUNNER
#include "kernels/cpu/tier.hpp"

#include <catch2/catch.hpp>

#include <cstdio>
#include <cstdlib>

namespace {

constexpr int kSkipped = 77; // CMakeLists.txt tells ctest so

bool runs_here(const char* forced) {
  using namespace tenon::cpu;
  for (const Tier tier : {Tier::reference, Tier::avx2, Tier::avx512})
    if (forced && std::string(forced) == tier_name(tier)) return supported(tier);
  return true; // or the kernels refuse it
}

} // namespace

int main(int argc, char** argv) {
  if (const char* forced = std::getenv("TENON_TIER"); !runs_here(forced)) {
    std::printf("not run here: %s (this processor lacks it)\n", forced);
    return kSkipped;
  }
  return Catch::Session().run(argc, argv);
}
