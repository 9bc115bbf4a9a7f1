// A file of packed weights, derived from a package's weights and never part of one: safetensors with one U8 tensor a
// matrix, and in the metadata what each is: "tenon.packed.<name>" = {"format":"int4g32m","shape":[576,1536]}.
// A matrix that cannot be packed as asked stands there too, with the reason: {"shape":[16,24],"refused":"..."}.
//
// Every matrix begins at a multiple of 64 bytes, as kernels want it. Loading reads the header and no weight.
// Thread: immutable; any.
#pragma once

#include "host/formats/safetensors_writer.hpp"
#include "kernels/cpu/packed_matrix.hpp"

#include <map>
#include <string>
#include <vector>

namespace tenon {

struct PackedEntry {
  std::string name;
  cpu::PackedMatrix matrix; // without bytes where it is refused
  std::string refusal;
};

// Entries borrow from the file. Errors: integrity when the metadata do not agree with the bytes.
std::vector<PackedEntry> packed_entries(const SafetensorsFile& file);

// Writes such a file: what it will hold is said first (matrices without bytes), then every matrix is given whole.
class PackedFileWriter {
 public:
  // Errors: as SafetensorsWriter; bug for a size that no packed matrix has.
  PackedFileWriter(const std::filesystem::path& path, const std::vector<PackedEntry>& entries);
  void write(const std::string& name, std::span<const std::byte> bytes) { writer_.write(name, bytes); }
  void commit() { writer_.commit(); }

 private:
  SafetensorsWriter writer_;
};

} // namespace tenon
