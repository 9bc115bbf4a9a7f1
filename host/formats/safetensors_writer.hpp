// A safetensors file written piece by piece, for tensors that are never in memory as a whole.
//
// Shapes are said first; then every tensor gets its bytes from front to back, the tensors in any order among each
// other. Layout: widest dtype first, so that every tensor is aligned to its dtype; then fewest dimensions first, then
// by name: norms and biases stand together, and whoever reads them alone brings no pages of matrices into memory. The
// data begin at a multiple of 64; the same content gives the same bytes. The file appears with commit(), whole, or not
// at all. Thread: one.
#pragma once

#include "host/formats/safetensors.hpp"

namespace tenon {

struct TensorSpec {
  std::string name;
  Dtype dtype;
  std::vector<std::size_t> shape;
};

class SafetensorsWriter {
 public:
  // Errors: bug (a name given twice, a size that overflows); environment (no space, permission).
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors,
                    const std::map<std::string, std::string>& metadata = {});

  // The tensor's next bytes, row-major, little-endian. Errors: bug (no such tensor, more than its shape holds).
  void write(std::string_view tensor, std::span<const std::byte> bytes);
  // Errors: bug (a tensor has fewer bytes than its shape needs); environment.
  void commit();

 private:
  struct Place {
    std::size_t next = 0, end = 0; // in the file
  };
  AtomicFile file_;
  std::string name_;
  std::map<std::string, Place, std::less<>> places_;
};

} // namespace tenon
