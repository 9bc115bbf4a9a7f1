#include "host/loading/elf.hpp"

#include "registry/base/error.hpp"

#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace tenon {
namespace {

// More than these no ordinary library has; they bound the time a hostile one can cost.
constexpr std::uint64_t kMaxSegments = 256, kMaxDynamicEntries = 4096, kMaxNameBytes = 1 << 16;

std::string machine_name(std::uint16_t machine) {
  if (machine == EM_X86_64) return "x86_64";
  if (machine == EM_AARCH64) return "aarch64";
  return fmt::format("machine {}", machine);
}

std::uint64_t aligned(std::uint64_t size, std::uint64_t alignment) {
  return (size + alignment - 1) / alignment * alignment;
}

} // namespace

struct ElfFile::Dynamic {
  std::vector<std::uint64_t> needed, search_paths; // offsets into the string table
  std::optional<std::uint64_t> strings, strings_size, symbols, hash, gnu_hash;
};

void ElfFile::fail(std::uint64_t offset, const std::string& message) const {
  throw Error(Code::integrity, "elf", fmt::format("{} at byte {}: {}", where_, offset, message),
              "get the file again, or build it again");
}

std::span<const std::byte> ElfFile::slice(std::uint64_t offset, std::uint64_t size, const char* what) const {
  if (offset > bytes_.size() || size > bytes_.size() - offset) {
    fail(offset, fmt::format("found {} of {} bytes, but the file ends at {}", what, size, bytes_.size()));
  }
  return bytes_.subspan(offset, size);
}

template <class T>
T ElfFile::read(std::uint64_t offset, const char* what) const {
  T value;
  std::memcpy(&value, slice(offset, sizeof(T), what).data(), sizeof(T));
  return value;
}

// Where the bytes of an address range are in the file. A range that no segment holds as a whole is refused.
std::uint64_t ElfFile::file_offset(std::uint64_t address, std::uint64_t size, const char* what) const {
  for (const Segment& segment : segments_) {
    if (segment.type != PT_LOAD || address < segment.address) continue;
    const std::uint64_t inside = address - segment.address;
    if (inside > segment.size_in_file || size > segment.size_in_file - inside) continue;
    slice(segment.offset, segment.size_in_file, "a segment");
    return segment.offset + inside;
  }
  fail(0, fmt::format("found {} at address {:#x}, which no segment of the file holds", what, address));
}

ElfFile ElfFile::parse(std::span<const std::byte> bytes, std::string where) {
  ElfFile file(bytes, std::move(where));
  file.read_header();
  const auto is_dynamic = [](const Segment& segment) { return segment.type == PT_DYNAMIC; };
  const auto dynamic = std::find_if(file.segments_.begin(), file.segments_.end(), is_dynamic);
  if (dynamic == file.segments_.end()) return file;
  if (std::count_if(dynamic, file.segments_.end(), is_dynamic) > 1)
    file.fail(0, "found two dynamic segments, need one");
  file.read_dynamic(*dynamic);
  return file;
}

void ElfFile::read_header() {
  if (bytes_.size() < sizeof(Elf64_Ehdr) || std::memcmp(bytes_.data(), ELFMAG, SELFMAG) != 0) {
    fail(0, "found no ELF header, need a shared library");
  }
  const auto header = read<Elf64_Ehdr>(0, "the header");
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB) {
    fail(EI_CLASS, "found another word size or byte order, need a 64-bit little-endian file");
  }
  machine_ = machine_name(header.e_machine);
  shared_object_ = header.e_type == ET_DYN;
  if (header.e_phnum != 0 && header.e_phentsize != sizeof(Elf64_Phdr)) {
    fail(offsetof(Elf64_Ehdr, e_phentsize),
         fmt::format("found program headers of {} bytes, need {}", header.e_phentsize, sizeof(Elf64_Phdr)));
  }
  read_segments(header.e_phoff, header.e_phentsize, header.e_phnum);
}

void ElfFile::read_segments(std::uint64_t offset, std::uint64_t entry_size, std::uint64_t count) {
  if (count > kMaxSegments) fail(offset, fmt::format("found {} segments, need at most {}", count, kMaxSegments));
  slice(offset, entry_size * count, "the program headers"); // 16-bit factors: no overflow
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto header = read<Elf64_Phdr>(offset + i * entry_size, "a program header");
    segments_.push_back({header.p_type, header.p_offset, header.p_vaddr, header.p_filesz});
  }
}

std::optional<std::string_view> ElfFile::note(std::string_view name, std::uint32_t type) const {
  for (const Segment& segment : segments_) {
    if (segment.type != PT_NOTE) continue;
    const auto notes = slice(segment.offset, segment.size_in_file, "a note segment");
    std::uint64_t at = 0;
    while (notes.size() - at >= sizeof(Elf64_Nhdr)) {
      const auto header = read<Elf64_Nhdr>(segment.offset + at, "a note");
      // Names and descriptions are padded to 4 bytes. 32-bit sizes in 64-bit sums: no overflow.
      const std::uint64_t name_at = at + sizeof(Elf64_Nhdr);
      const std::uint64_t text_at = name_at + aligned(header.n_namesz, 4);
      if (text_at > notes.size() || header.n_descsz > notes.size() - text_at) {
        fail(segment.offset + at, fmt::format("found a note of {} + {} bytes, but {} bytes are left", header.n_namesz,
                                              header.n_descsz, notes.size() - at));
      }
      const char* const text = reinterpret_cast<const char*>(notes.data());
      const std::string_view found(text + name_at, header.n_namesz ? header.n_namesz - 1 : 0);
      if (found == name && header.n_type == type) return std::string_view(text + text_at, header.n_descsz);
      at = std::min<std::uint64_t>(notes.size(), text_at + aligned(header.n_descsz, 4));
    }
  }
  return std::nullopt;
}

void ElfFile::read_dynamic(const Segment& segment) {
  Dynamic dynamic;
  const std::uint64_t count = segment.size_in_file / sizeof(Elf64_Dyn);
  if (count > kMaxDynamicEntries) {
    fail(segment.offset, fmt::format("found {} dynamic entries, need at most {}", count, kMaxDynamicEntries));
  }
  // Where the loader looks: at the address, not at the offset that the program header states beside it.
  const std::uint64_t table = file_offset(segment.address, segment.size_in_file, "the dynamic segment");
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto entry = read<Elf64_Dyn>(table + i * sizeof(Elf64_Dyn), "a dynamic entry");
    const std::uint64_t value = entry.d_un.d_val;
    switch (entry.d_tag) {
      case DT_NULL: i = count - 1; break;
      case DT_NEEDED: dynamic.needed.push_back(value); break;
      case DT_RPATH:
      case DT_RUNPATH: dynamic.search_paths.push_back(value); break;
      case DT_STRTAB: dynamic.strings = value; break;
      case DT_STRSZ: dynamic.strings_size = value; break;
      case DT_SYMTAB: dynamic.symbols = value; break;
      case DT_HASH: dynamic.hash = value; break;
      case DT_GNU_HASH: dynamic.gnu_hash = value; break;
      case DT_SYMENT:
        if (value != sizeof(Elf64_Sym)) fail(segment.offset, fmt::format("found symbols of {} bytes", value));
        break;
    }
  }
  read_names(dynamic);
  read_symbols(dynamic);
}

std::string_view ElfFile::string_at(const Dynamic& dynamic, std::uint64_t offset) const {
  if (!dynamic.strings || !dynamic.strings_size) fail(0, "found names but no string table");
  const std::uint64_t table = file_offset(*dynamic.strings, *dynamic.strings_size, "the string table");
  if (offset >= *dynamic.strings_size) {
    fail(table, fmt::format("found a name at {} of a string table of {} bytes", offset, *dynamic.strings_size));
  }
  const auto rest = slice(table + offset, *dynamic.strings_size - offset, "a name");
  const char* const text = reinterpret_cast<const char*>(rest.data());
  const std::size_t limit = std::min<std::uint64_t>(rest.size(), kMaxNameBytes);
  const void* const end = std::memchr(text, 0, limit);
  if (!end) fail(table + offset, fmt::format("found a name without an end within {} bytes", limit));
  return {text, static_cast<std::size_t>(static_cast<const char*>(end) - text)};
}

void ElfFile::read_names(const Dynamic& dynamic) {
  for (const std::uint64_t offset : dynamic.needed) needed_.emplace_back(string_at(dynamic, offset));
  for (const std::uint64_t offset : dynamic.search_paths) search_paths_.emplace_back(string_at(dynamic, offset));
}

// GNU's hash table does not say how many symbols there are: the highest bucket's chain ends with the last one.
std::uint64_t ElfFile::gnu_hash_count(std::uint64_t address) const {
  const std::uint64_t at = file_offset(address, 16, "the GNU hash table");
  const auto buckets = read<std::uint32_t>(at, "the bucket count");
  const auto first = read<std::uint32_t>(at + 4, "the first symbol");
  const auto bloom_words = read<std::uint32_t>(at + 8, "the filter size");
  const std::uint64_t buckets_at = at + 16 + std::uint64_t{8} * bloom_words;
  const std::uint64_t chains_at = buckets_at + std::uint64_t{4} * buckets;
  slice(buckets_at, std::uint64_t{4} * buckets, "the hash buckets");
  std::uint32_t last = 0;
  for (std::uint32_t i = 0; i < buckets; ++i) {
    last = std::max(last, read<std::uint32_t>(buckets_at + std::uint64_t{4} * i, "a hash bucket"));
  }
  if (last < first) return first; // nothing is defined here
  for (std::uint64_t symbol = last;; ++symbol) {
    if (read<std::uint32_t>(chains_at + 4 * (symbol - first), "a hash chain") & 1) return symbol + 1;
  }
}

std::uint64_t ElfFile::symbol_count(const Dynamic& dynamic) const {
  std::uint64_t count = 0;
  if (dynamic.hash) {
    const std::uint64_t at = file_offset(*dynamic.hash, 8, "the hash table");
    count = read<std::uint32_t>(at + 4, "the symbol count");
  }
  if (dynamic.gnu_hash) count = std::max(count, gnu_hash_count(*dynamic.gnu_hash));
  return count;
}

void ElfFile::read_symbols(const Dynamic& dynamic) {
  if (!dynamic.symbols) return;
  const std::uint64_t count = symbol_count(dynamic);
  if (count > bytes_.size() / sizeof(Elf64_Sym)) {
    fail(0, fmt::format("found {} symbols in a file of {} bytes", count, bytes_.size()));
  }
  const std::uint64_t table = file_offset(*dynamic.symbols, count * sizeof(Elf64_Sym), "the symbol table");
  for (std::uint64_t i = 1; i < count; ++i) {
    const auto symbol = read<Elf64_Sym>(table + i * sizeof(Elf64_Sym), "a symbol");
    if (ELF64_ST_BIND(symbol.st_info) == STB_LOCAL) continue;
    const std::string_view name = string_at(dynamic, symbol.st_name);
    if (symbol.st_shndx == SHN_UNDEF) {
      imports_.emplace_back(name);
      continue;
    }
    const auto visibility = ELF64_ST_VISIBILITY(symbol.st_other);
    if (visibility == STV_DEFAULT || visibility == STV_PROTECTED) exports_.emplace_back(name);
  }
}

} // namespace tenon
