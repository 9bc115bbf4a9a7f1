#include "host/model/weights.hpp"

#include "host/formats/stored_tensor.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"
#include "registry/base/sha256.hpp"

#include <ATen/ATen.h>

#include <cmath>

namespace tenon {
namespace {

void check_finite(std::span<const float> values, const std::string& file, const std::string& name) {
  for (std::size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i]))
      throw Error(Code::integrity, file, "weight " + name + " is not finite at element " + std::to_string(i),
                  "publish weights that are finite");
}

bool is_float32(const SafetensorsFile& file) {
  for (const TensorView& tensor : file.tensors())
    if (tensor.dtype != Dtype::F32) return false;
  return true;
}

std::span<const float> floats(const TensorView& tensor) {
  return {reinterpret_cast<const float*>(tensor.bytes.data()), tensor.bytes.size() / sizeof(float)};
}

// One tensor at a time, so that a large model never stands in memory as a whole.
void convert(const SafetensorsFile& source, const std::filesystem::path& target,
             const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
  std::vector<std::vector<float>> values;
  std::vector<TensorView> views;
  std::uint64_t done = 0, total = 0;
  const std::vector<StoredTensor> tensors = stored_tensors(source);
  for (const StoredTensor& tensor : tensors) total += tensor.bytes.size();
  for (const StoredTensor& tensor : tensors) {
    std::vector<float>& out = values.emplace_back(tensor.elements());
    dequantise(tensor, out);
    check_finite(out, source.name(), tensor.name);
    views.push_back({tensor.name, Dtype::F32, tensor.shape, std::as_bytes(std::span(out))});
    done += tensor.bytes.size();
    if (progress) progress(done, total);
  }
  write_safetensors(target, views);
}

} // namespace

Weights Weights::open(const std::filesystem::path& path, const std::string& digest, const std::filesystem::path& cache,
                      const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
  auto source = std::make_shared<const SafetensorsFile>(path);
  if (is_float32(*source)) {
    for (const TensorView& tensor : source->tensors()) check_finite(floats(tensor), source->name(), tensor.name);
    return Weights(source);
  }
  if (digest.empty())
    throw Error(Code::integrity, source->name(), "found numbers of another type than float32, need float32 here");
  const std::filesystem::path derived = cache / "float32" / (digest.substr(digest.find(':') + 1) + ".safetensors");
  if (!std::filesystem::exists(derived)) {
    const FileLock lock(derived.string() + ".lock");
    if (!std::filesystem::exists(derived)) convert(*source, derived, progress);
  }
  return Weights(std::make_shared<const SafetensorsFile>(derived), true);
}

Weights Weights::open(const std::filesystem::path& path, const std::string& digest, const std::filesystem::path& cache,
                      const Compute& compute, const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
  Weights weights = open(path, digest, cache, progress);
  if (compute.format == Format::float32) return weights;
  const SafetensorsFile stored(path);
  weights.packed_ = std::make_shared<const PackedWeights>(
      PackedWeights::Source{stored, weights.file_, digest, compute.looked_up}, compute.format, cache, progress);
  return weights;
}

at::Tensor Weights::at(const std::string& name) const {
  const TensorView& view = file_->at(name);
  if (view.dtype != Dtype::F32)
    throw Error(Code::incompatible, file_->name(), "tensor " + name + " is " + dtype_name(view.dtype) + ", need F32");
  const std::vector<std::int64_t> shape(view.shape.begin(), view.shape.end());
  return at::from_blob(
      const_cast<std::byte*>(view.bytes.data()), shape, [keep = file_, packed = packed_](void*) {}, at::kFloat);
}

std::string weights_digest(const SafetensorsFile& file, const std::vector<std::string>& prefixes) {
  const auto wanted = [&](const std::string& name) {
    if (prefixes.empty()) return true;
    for (const std::string& prefix : prefixes)
      if (name.rfind(prefix, 0) == 0) return true;
    return false;
  };
  std::map<std::string, StoredTensor> sorted;
  for (StoredTensor& tensor : stored_tensors(file))
    if (wanted(tensor.name)) sorted.emplace(tensor.name, std::move(tensor));
  Sha256 hash;
  for (const auto& [name, tensor] : sorted) {
    std::string shape;
    for (const std::size_t size : tensor.shape) shape += std::to_string(size) + ",";
    hash.field(name).field(nn::block_name(tensor.type)).field(shape).update(tensor.bytes);
  }
  return "sha256:" + hash.hex();
}

void write_weights(const std::filesystem::path& path, const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                   const std::map<std::string, std::string>& metadata) {
  std::vector<at::Tensor> keep;
  std::vector<TensorView> views;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor& value = keep.emplace_back(tensor.detach().to(at::kFloat).contiguous());
    const std::span<const float> numbers(value.data_ptr<float>(), static_cast<std::size_t>(value.numel()));
    for (const float number : numbers)
      if (!std::isfinite(number))
        throw Error(Code::numeric, path.filename().string(), "tensor " + name + " is not finite");
    views.push_back({name, Dtype::F32, {value.sizes().begin(), value.sizes().end()}, std::as_bytes(numbers)});
  }
  write_safetensors(path, views, metadata);
}

} // namespace tenon
