// The packed forms of a file of weights: derived once into the cache, mapped, shared between processes, and made known
// to the kernels for as long as this lives.
//
//   format   W of a product is computed as                                               rows of activations as
//   float32  float32, by LibTorch                                                         float32
//   bf16     bfloat16, rounded where it is stored otherwise; in 12 bits a number where     bfloat16
//            its exponents are few enough (bf16e4), which changes no number
//   int8     int8 in groups of 32 with an f16 scale; Q8_0 verbatim                        int8 in groups of 32
//   int4     int4 in groups of 32 with f16 scale and minimum; Q4_0 and Q4_1 verbatim      int8 in groups of 32
//   stored   what each tensor is stored in, without loss: Q4_0, Q4_1, Q8_0, BF16; F32 stays float32
// Everything that is no matrix of a product (norms, biases, low-rank terms, looked-up rows) stays float32.
// With TENON_PAGES=huge the packed bytes are copied once into 2 MiB pages of this process's own, which stream faster.
// Thread: immutable; any.
#pragma once

#include "host/formats/packed_file.hpp"
#include "kernels/cpu/pages.hpp"

#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <string>

namespace tenon {

enum class Format { float32, bf16, int8, int4, stored };
const char* format_name(Format format);
// Errors: usage, naming the formats there are.
Format format_of(const std::string& name);

class PackedWeights {
 public:
  struct Source {
    const SafetensorsFile& stored;                  // as the package has them
    std::shared_ptr<const SafetensorsFile> float32; // the same as float32: what modules are bound to
    std::string digest;                             // of the stored file
    std::set<std::string> looked_up = {};           // names of matrices whose rows are looked up, never multiplied
  };
  // Requires: format is not float32. progress(done, total) in bytes while a file is derived.
  // Errors: incompatible where a stored type has no form as asked (named, with the remedy); environment where
  // TENON_PAGES cannot be had; integrity where the cached file is not what would be derived; those of files.
  PackedWeights(const Source& source, Format format, const std::filesystem::path& cache,
                const std::function<void(std::uint64_t, std::uint64_t)>& progress = {});
  ~PackedWeights();
  PackedWeights(const PackedWeights&) = delete;
  PackedWeights& operator=(const PackedWeights&) = delete;

  std::uint64_t bytes() const; // of all packed matrices
  const std::string& path() const { return file_->name(); }
  bool derived_now() const { return derived_now_; } // it was not in the cache when this was made
  bool copied() const { return copy_ != nullptr; }  // into memory that asks for huge pages; else mapped
  std::uint64_t in_huge_pages() const;              // bytes of the copy that lie in such
  // Matrices that stay float32 because they are stored so (Format::stored), and how many of them products were made of
  // since, LibTorch's.
  std::size_t left_float32() const { return unpacked_.size(); }
  std::size_t multiplied_in_float32() const;
  // Matrices that cannot have this format: what was found and needed. Their products throw it.
  const std::vector<std::string>& refusals() const { return refusals_; }

 private:
  void make_known(const Source& source, const std::vector<PackedEntry>& entries);

  std::shared_ptr<const SafetensorsFile> file_, float32_;
  std::shared_ptr<const cpu::HugeMemory> copy_; // of the file's tensors; null where they stay mapped
  std::vector<const float*> known_, unpacked_;  // to the kernels
  std::vector<std::string> refusals_;
  bool derived_now_ = false;
};

} // namespace tenon
