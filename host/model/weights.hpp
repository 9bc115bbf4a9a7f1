// Named float32 tensors, mapped read-only. Weights that a package stores in another type (source blocks, bfloat16) are
// converted once into a derived file in the cache, and that file is mapped: nothing is ever held twice in memory. Where
// products are to be computed in another format than float32, packed forms stand behind these tensors.
// Thread: immutable; any.
#pragma once

#include "host/model/packed_weights.hpp"

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace tenon {

class Weights {
 public:
  // How products with these weights are computed, and the matrices that are looked up instead.
  struct Compute {
    Format format = Format::float32;
    std::set<std::string> looked_up = {};
  };
  // digest: of the file's bytes, which names derived files. progress(done, total) in bytes while one is made.
  // Errors: those of reading; integrity where a weight is not finite (both named).
  static Weights open(const std::filesystem::path& path, const std::string& digest, const std::filesystem::path& cache,
                      const std::function<void(std::uint64_t, std::uint64_t)>& progress = {});
  static Weights open(const std::filesystem::path& path, const std::string& digest, const std::filesystem::path& cache,
                      const Compute& compute, const std::function<void(std::uint64_t, std::uint64_t)>& progress = {});

  bool has(const std::string& name) const { return file_->find(name) != nullptr; }
  // Errors: integrity, naming file and tensor.
  at::Tensor at(const std::string& name) const;
  std::vector<std::string> names() const { return file_->names(); }
  // Null in float32.
  const PackedWeights* packed() const { return packed_.get(); }
  // The package stores other types than float32, and nothing is packed from them: products compute in float32.
  bool widened() const { return widened_ && !packed_; }
  const std::string& path() const { return file_->name(); }

 private:
  explicit Weights(std::shared_ptr<const SafetensorsFile> file, bool widened = false)
      : file_(std::move(file)), widened_(widened) {}
  std::shared_ptr<const SafetensorsFile> file_; // tensors keep both alive
  std::shared_ptr<const PackedWeights> packed_; // null in float32
  bool widened_ = false;
};

// The digest of what weights are: names, types, shapes and stored bytes, whatever file they stand in. `prefixes`: only
// names that begin with one of these; empty: all.
std::string weights_digest(const SafetensorsFile& file, const std::vector<std::string>& prefixes = {});

// Writes float32 tensors as a safetensors file, atomically. Errors: environment; numeric where a value is not finite.
void write_weights(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                   const std::map<std::string, std::string>& metadata = {});

} // namespace tenon
