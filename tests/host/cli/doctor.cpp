#include "host/cli/doctor.hpp"

#include <catch2/catch.hpp>
#include <fstream>

#include "tests/support/scratch.hpp"

using namespace tenon;

namespace {

Surroundings sound(const std::filesystem::path& folder) {
  return {folder,
          folder / "registry",
          "2.11.0",
          "2.11.0",
          "/t/libtorch_cpu.so",
          {"/t/libgomp.so.1", "/t/libc10.so"},
          {"avx2"},
          "/t/plugins",
          {{"low_rank.so", {}}},
          {"avx2", {"reference", "avx2"}, 2, "mapped", "bf16"}};
}

Finding finding_of(const std::string& id, const Surroundings& here) {
  for (const DoctorRule& rule : doctor_rules()) {
    if (rule.id == id) {
      const Finding finding = rule.check(here);
      CHECK((finding.health == Health::ok || !finding.remedy.empty()));
      return finding;
    }
  }
  FAIL("no rule " << id);
  return {Health::bad, ""};
}
Health health_of(const std::string& id, const Surroundings& here) { return finding_of(id, here).health; }

} // namespace

TEST_CASE("doctor finds nothing wrong with a sound machine") {
  const Scratch scratch;
  for (const DoctorRule& rule : doctor_rules()) CHECK(rule.check(sound(scratch.path())).health != Health::bad);
}

TEST_CASE("doctor objects to another LibTorch than the one built for") {
  const Scratch scratch;
  Surroundings here = sound(scratch.path());
  here.torch_loaded = "2.10.0";
  CHECK(health_of("TN-D1", here) == Health::bad);
}

TEST_CASE("doctor objects to a home that is a file") {
  const Scratch scratch;
  std::ofstream(scratch.path() / "file") << "x";
  Surroundings here = sound(scratch.path());
  here.home = scratch.path() / "file";
  CHECK(health_of("TN-D3", here) == Health::bad);
}

TEST_CASE("doctor accepts a home and a registry that are still to be made") {
  const Scratch scratch;
  const Surroundings here = sound(scratch.path() / "not" / "yet");
  CHECK(health_of("TN-D3", here) != Health::bad);
  CHECK(health_of("TN-D4", here) == Health::note);
}

TEST_CASE("doctor objects to a registry whose config.json is damaged") {
  const Scratch scratch;
  std::filesystem::create_directories(scratch.path() / "registry");
  std::ofstream(scratch.path() / "registry" / "config.json") << "{\"schema\":1,\"schema\":2}";
  CHECK(health_of("TN-D4", sound(scratch.path())) == Health::bad);
}

TEST_CASE("doctor objects to two OpenMP runtimes in one process") {
  const Scratch scratch;
  Surroundings here = sound(scratch.path());
  here.mapped_libraries.push_back("/usr/lib/libgomp.so.1");
  CHECK(health_of("TN-D5", here) == Health::bad);
}

TEST_CASE("doctor objects to an installed plugin that the loading rules refuse, and says why") {
  const Scratch scratch;
  Surroundings here = sound(scratch.path());
  here.plugins.push_back({"other.so", {"TN-P2 platform: built for LibTorch 2.10.0"}});
  const Finding finding = finding_of("TN-D6", here);
  CHECK(finding.health == Health::bad);
  CHECK(finding.found.find("TN-P2 platform") != std::string::npos);
}

TEST_CASE("doctor says which kernels are in use, which others there are, and on how many threads") {
  const Scratch scratch;
  Surroundings here = sound(scratch.path());
  CHECK(finding_of("TN-D7", here).found ==
        "avx2 on 2 threads; this processor has reference, avx2; packed weights "
        "mapped, keys and values in bf16");
  here.kernels.tier = "reference";
  CHECK(health_of("TN-D7", here) == Health::note);
}

TEST_CASE("doctor objects to a tier that this processor lacks, and names those it has") {
  const Scratch scratch;
  Surroundings here = sound(scratch.path());
  here.kernels.refusal = "TENON_TIER: found avx512, this processor has reference, avx2";
  const Finding finding = finding_of("TN-D7", here);
  CHECK(finding.health == Health::bad);
  CHECK(finding.remedy.find("reference, avx2") != std::string::npos);
}
