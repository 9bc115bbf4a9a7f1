#include "registry/base/sha256.hpp"

#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "tests/support/scratch.hpp"

#include <catch2/catch.hpp>

namespace tenon {

TEST_CASE("sha256 gives the digests of the standard's examples") {
  CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_CASE("sha256 of a file larger than one block equals that of its bytes") {
  const Scratch scratch;
  const std::string text((std::size_t{1} << 20) + 12345, 'x');
  write_file(scratch.path() / "big", text);
  CHECK(sha256_file(scratch.path() / "big") == sha256(text));
}

TEST_CASE("sha256 fields keep their borders") {
  CHECK(Sha256().field("ab").field("c").hex() != Sha256().field("a").field("bc").hex());
  CHECK(Sha256().update("ab").update("c").hex() == sha256("abc"));
}

TEST_CASE("sha256 of a missing file is not found") {
  const Scratch scratch;
  try {
    sha256_file(scratch.path() / "none");
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.code == Code::not_found);
  }
}

} // namespace tenon
