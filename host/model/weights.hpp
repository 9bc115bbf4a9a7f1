// Named float32 tensors, mapped read-only. Weights that a package stores in another type (source blocks, bfloat16) are
// converted once into a derived file in the cache, and that file is mapped: nothing is ever held twice in memory.
// Thread: immutable; any.
#pragma once

#include "host/formats/safetensors.hpp"

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace tenon {

class Weights {
 public:
  // digest: of the file's bytes, which names the derived file. progress(done, total) in bytes while one is made.
  // Errors: those of reading; integrity where a weight is not finite (both named).
  static Weights open(const std::filesystem::path& path, const std::string& digest, const std::filesystem::path& cache,
                      const std::function<void(std::uint64_t, std::uint64_t)>& progress = {});

  bool has(const std::string& name) const { return file_->find(name) != nullptr; }
  // Errors: integrity, naming file and tensor.
  at::Tensor at(const std::string& name) const;
  std::vector<std::string> names() const { return file_->names(); }
  const std::string& path() const { return file_->name(); }

 private:
  explicit Weights(std::shared_ptr<const SafetensorsFile> file) : file_(std::move(file)) {}
  std::shared_ptr<const SafetensorsFile> file_; // tensors keep it alive
};

// The digest of what weights are: names, types, shapes and stored bytes, whatever file they stand in. `prefixes`: only
// names that begin with one of these; empty: all.
std::string weights_digest(const SafetensorsFile& file, const std::vector<std::string>& prefixes = {});

// Writes float32 tensors as a safetensors file, atomically. Errors: environment; numeric where a value is not finite.
void write_weights(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                   const std::map<std::string, std::string>& metadata = {});

} // namespace tenon
