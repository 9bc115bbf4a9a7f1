#include "host/loading/elf.hpp"

#include "host/loading/facts.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "tests/registry/fixtures.hpp"
#include "tests/support/mutate.hpp"

#include <elf.h>
#include <catch2/catch.hpp>

#include <algorithm>
#include <cstring>

using namespace tenon;
using namespace tenon::fixtures;
using Catch::Matchers::Contains;

namespace {

MappedFile library(const std::string& name) {
  return MappedFile(std::filesystem::path(TENON_HOSTILE) / (name + ".so"));
}

std::vector<std::byte> copy_of(const MappedFile& file) { return {file.bytes().begin(), file.bytes().end()}; }

bool has(const std::vector<std::string_view>& list, std::string_view wanted) {
  return std::find(list.begin(), list.end(), wanted) != list.end();
}

template <class T>
void poke(std::vector<std::byte>& bytes, std::size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

// Where the program header of a type stands.
std::size_t segment_at(const std::vector<std::byte>& bytes, std::uint32_t type) {
  Elf64_Ehdr header;
  std::memcpy(&header, bytes.data(), sizeof header);
  for (std::size_t i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment;
    const std::size_t at = header.e_phoff + i * sizeof segment;
    std::memcpy(&segment, bytes.data() + at, sizeof segment);
    if (segment.p_type == type) return at;
  }
  FAIL("no segment of type " << type);
  return 0;
}

// Whatever is in the bytes: a result or an Error, every name within the file.
void read_everything(std::span<const std::byte> bytes) {
  try {
    const ElfFile file = ElfFile::parse(bytes, "damaged.so");
    for (const auto* names : {&file.exports(), &file.imports(), &file.needed(), &file.search_paths()}) {
      for (const std::string_view name : *names) touch(std::as_bytes(std::span(name)));
    }
    read_facts(bytes, "damaged.so");
  } catch (const Error& error) {
    CHECK(error.code == Code::integrity);
  }
}

} // namespace

TEST_CASE("elf reads the exports, needs and note of a library that was linked") {
  const MappedFile file = library("honest");
  const ElfFile elf = ElfFile::parse(file.bytes(), "honest.so");
  CHECK(elf.shared_object());
  CHECK(elf.exports() == std::vector<std::string_view>{"tenon_plugin_entry"});
  CHECK(elf.search_paths().empty());
  REQUIRE(elf.note("Tenon", 1).has_value());
  CHECK(elf.note("Tenon", 1)->starts_with("{"));
  CHECK_FALSE(elf.note("Tenon", 2).has_value());
  CHECK_FALSE(elf.note("Teno", 1).has_value());
}

TEST_CASE("elf finds what a careless link leaves in a library") {
  const MappedFile openmp = library("links_openmp"), paths = library("search_path");
  const MappedFile registers = library("registers"), second = library("second_export");
  CHECK(has(ElfFile::parse(openmp.bytes(), "a").needed(), "libgomp.so.1"));
  CHECK(ElfFile::parse(paths.bytes(), "b").search_paths() == std::vector<std::string_view>{"/opt/elsewhere"});
  CHECK(has(ElfFile::parse(registers.bytes(), "c").imports(), "_ZN3c1010Dispatcher11registerDefENS_14FunctionSchemaE"));
  CHECK(has(ElfFile::parse(second.bytes(), "d").exports(), "second_export"));
}

TEST_CASE("facts survive section garbage collection and strip, because a program header leads to them") {
  const MappedFile stripped = library("stripped"), honest = library("honest");
  CHECK(read_facts(stripped.bytes(), "stripped.so").title() == "hostile.plain 1.2.0");
  std::vector<std::byte> bytes = copy_of(honest);
  poke<std::uint64_t>(bytes, offsetof(Elf64_Ehdr, e_shoff), ~std::uint64_t{0}); // section tables are never looked at
  poke<std::uint16_t>(bytes, offsetof(Elf64_Ehdr, e_shnum), 0xffff);
  CHECK(read_facts(bytes, "honest.so").title() == "hostile.plain 1.2.0");
}

TEST_CASE("elf refuses files that are none, each saying what was found and needed") {
  const auto message = [](std::span<const std::byte> bytes) {
    return error_of([&] { ElfFile::parse(bytes, "x.so"); }).message;
  };
  CHECK_THAT(message({}), Contains("x.so at byte 0") && Contains("no ELF header"));
  const std::string text = "just a text file that is longer than an ELF header would have to be, by some bytes";
  CHECK_THAT(message(std::as_bytes(std::span(text))), Contains("no ELF header"));

  std::vector<std::byte> bytes = copy_of(library("honest"));
  poke<std::uint8_t>(bytes, EI_CLASS, ELFCLASS32);
  CHECK_THAT(message(bytes), Contains("need a 64-bit little-endian file"));

  bytes = copy_of(library("honest"));
  poke<std::uint16_t>(bytes, offsetof(Elf64_Ehdr, e_phentsize), 8);
  CHECK_THAT(message(bytes), Contains("found program headers of 8 bytes, need 56"));

  bytes = copy_of(library("honest"));
  poke<std::uint64_t>(bytes, offsetof(Elf64_Ehdr, e_phoff), bytes.size() - 8);
  CHECK_THAT(message(bytes), Contains("but the file ends at " + std::to_string(bytes.size())));
}

TEST_CASE("elf refuses a segment, table or note that ends beyond the file") {
  std::vector<std::byte> bytes = copy_of(library("honest"));
  poke<std::uint64_t>(bytes, segment_at(bytes, PT_NOTE) + offsetof(Elf64_Phdr, p_filesz), bytes.size());
  CHECK_THROWS_AS(read_facts(bytes, "x.so"), Error);

  bytes = copy_of(library("honest"));
  poke<std::uint64_t>(bytes, segment_at(bytes, PT_DYNAMIC) + offsetof(Elf64_Phdr, p_vaddr), 0x7fffffff);
  CHECK_THAT(error_of([&] { ElfFile::parse(bytes, "x.so"); }).message, Contains("which no segment of the file holds"));

  bytes = copy_of(library("honest"));
  const std::size_t note = segment_at(bytes, PT_NOTE);
  std::uint64_t offset = 0;
  std::memcpy(&offset, bytes.data() + note + offsetof(Elf64_Phdr, p_offset), sizeof offset);
  poke<std::uint32_t>(bytes, offset + 4, 0xfffffff0u); // the description's size
  CHECK_THAT(error_of([&] { read_facts(bytes, "x.so"); }).message, Contains("bytes are left") || Contains("no facts"));
}

TEST_CASE("elf survives every truncation of a library") {
  const MappedFile file = library("honest");
  for (std::size_t size = 0; size < file.bytes().size(); size += size < 4096 ? 1 : 61) {
    const std::vector<std::byte> part(file.bytes().begin(), file.bytes().begin() + static_cast<std::ptrdiff_t>(size));
    read_everything(part);
  }
}

TEST_CASE("elf survives mutated libraries, with no allocation that the file does not justify") {
  for (const char* name : {"honest", "links_openmp", "second_export"}) {
    const MappedFile file = library(name);
    Mutator mutator(7);
    for (int i = 0; i < 2000; ++i) {
      const std::vector<std::byte> bytes = mutator.mutate(file.bytes());
      const AllocationWatch watch;
      read_everything(bytes);
      CHECK(watch.largest() <= 64 * bytes.size() + (1 << 16));
    }
  }
}

TEST_CASE("elf survives hostile values in the fields that lead to others") {
  const std::vector<std::byte> valid = copy_of(library("honest"));
  const std::size_t dynamic = segment_at(valid, PT_DYNAMIC);
  std::uint64_t table = 0, size = 0;
  std::memcpy(&table, valid.data() + dynamic + offsetof(Elf64_Phdr, p_offset), sizeof table);
  std::memcpy(&size, valid.data() + dynamic + offsetof(Elf64_Phdr, p_filesz), sizeof size);
  for (std::size_t at = table; at < table + size; at += 8) {
    for (const std::uint64_t value :
         {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{4}, std::uint64_t{5}, std::uint64_t{6},
          std::uint64_t{0x6ffffef5}, std::uint64_t{0xfffffff8}, ~std::uint64_t{0}, ~std::uint64_t{7}}) {
      std::vector<std::byte> bytes = valid;
      poke(bytes, at, value);
      read_everything(bytes);
    }
  }
}
