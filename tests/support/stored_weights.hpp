// Weights in a file as models have them: matrices in blocks of integers, vectors in float32.
#pragma once

#include "host/formats/safetensors_writer.hpp"
#include "host/formats/stored_tensor.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tenon::test {

// How a matrix of that name is stored: two kinds, as a file of four bits has them.
inline nn::BlockType stored_type(const std::string& name) {
  return name.find("ffn.") != std::string::npos ? nn::BlockType::Q4_1 : nn::BlockType::Q8_0;
}

// Blocks of 32 numbers, each the nearest step. Requires: Q8_0 or Q4_1.
inline std::vector<std::byte> blocks_of(nn::BlockType type, const at::Tensor& numbers) {
  const bool signs = type == nn::BlockType::Q8_0;
  std::vector<std::byte> out;
  const auto put = [&](const auto& value) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&value);
    out.insert(out.end(), bytes, bytes + sizeof value);
  };
  const auto* x = numbers.data_ptr<float>();
  for (std::int64_t at = 0; at < numbers.numel(); at += 32) {
    const auto [low, high] = std::minmax_element(x + at, x + at + 32);
    const float least = signs ? 0.0f : *low,
                step = signs ? std::max(-*low, *high) / 127.0f : std::max((*high - *low) / 15.0f, 1e-6f);
    const auto q = [&](std::int64_t i) { return static_cast<int>(std::lround((x[at + i] - least) / step)); };
    put(nn::f32_to_f16(step));
    if (!signs) put(nn::f32_to_f16(least));
    for (std::int64_t i = 0; i < (signs ? 32 : 16); ++i)
      put(static_cast<std::uint8_t>(signs ? q(i) : q(i) | q(i + 16) << 4));
  }
  return out;
}

inline void write_stored_weights(const std::filesystem::path& path,
                                 const std::vector<std::pair<std::string, at::Tensor>>& weights) {
  std::vector<std::vector<std::byte>> bytes;
  std::vector<TensorView> views;
  std::map<std::string, std::string> metadata;
  for (const auto& [name, tensor] : weights) {
    const nn::BlockType type = tensor.dim() < 2 ? nn::BlockType::F32 : stored_type(name);
    const std::span numbers(tensor.data_ptr<float>(), static_cast<std::size_t>(tensor.numel()));
    const auto plain = std::as_bytes(numbers);
    bytes.push_back(tensor.dim() < 2 ? std::vector(plain.begin(), plain.end()) : blocks_of(type, tensor));
    views.push_back(
        safetensors_view({name, type, {tensor.sizes().begin(), tensor.sizes().end()}, bytes.back()}, metadata));
  }
  write_safetensors(path, views, metadata);
}

} // namespace tenon::test
