#include "host/loading/verified.hpp"

#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "registry/base/sha256.hpp"
#include "tests/support/scratch.hpp"

#include <catch2/catch.hpp>
#include <fstream>

using namespace tenon;

TEST_CASE("a blob with a flipped byte is refused with both digests, also when it was whole before") {
  const Scratch scratch;
  const auto blob = scratch.path() / "blob";
  write_file(blob, "some weights");
  const std::string digest = "sha256:" + sha256_file(blob);
  const VerifiedBlobs verified(scratch.path() / "verified");
  CHECK(verified.check(blob, digest, "legal 1.0.0") == blob);
  CHECK(verified.check(blob, digest, "legal 1.0.0") == blob);
  {
    std::fstream file(blob, std::ios::in | std::ios::out);
    file.seekp(3);
    file.put('X');
  }
  try {
    verified.check(blob, digest, "legal 1.0.0");
    FAIL("a changed blob was accepted");
  } catch (const Error& error) {
    CHECK(error.code == Code::integrity);
    CHECK_THAT(error.message,
               Catch::Contains("legal 1.0.0") && Catch::Contains(digest) && Catch::Contains("found sha256:"));
  }
}

TEST_CASE("a blob that is not there is not found") {
  const Scratch scratch;
  CHECK_THROWS_WITH(VerifiedBlobs(scratch.path()).check(scratch.path() / "none", "sha256:00", "legal 1.0.0"),
                    Catch::Contains("not in the registry"));
}
