#include "host/formats/stored_tensor.hpp"

#include "registry/base/error.hpp"
#include "registry/base/json.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <boost/json/serialize.hpp>
#include <optional>

namespace tenon {
namespace {

constexpr std::string_view blocks_prefix = "tenon.blocks.";

std::optional<nn::BlockType> plain_type(Dtype dtype) {
  if (dtype == Dtype::F32) return nn::BlockType::F32;
  if (dtype == Dtype::F16) return nn::BlockType::F16;
  if (dtype == Dtype::BF16) return nn::BlockType::BF16;
  return std::nullopt;
}

// Bytes of a tensor of that type and shape; nullopt when rows are no whole blocks or the size overflows.
std::optional<std::size_t> stored_bytes(nn::BlockType type, const std::vector<std::size_t>& shape) {
  std::optional<std::size_t> size = nn::row_bytes(type, shape.empty() ? 1 : shape.back());
  for (std::size_t i = 0; size && i + 1 < shape.size(); ++i) {
    if (__builtin_mul_overflow(*size, shape[i], &*size)) size.reset();
  }
  return size;
}

StoredTensor read_blocks(const SafetensorsFile& file, const TensorView& view, const std::string& text) {
  const std::string where = fmt::format("{} ({}{})", file.name(), blocks_prefix, view.name);
  const json::value value = parse_json(text, where);
  const JsonReader reader(value, where);
  const auto type = nn::block_type(reader.at("type").string());
  if (!type || !nn::is_quantised(*type))
    reader.at("type").fail("need the name of a block format: " + nn::block_type_list());
  if (view.dtype != Dtype::U8)
    reader.fail(fmt::format("the tensor is {}, blocks are stored as U8", dtype_name(view.dtype)));
  StoredTensor tensor{view.name, *type, {}, view.bytes};
  const JsonReader shape = reader.at("shape");
  for (std::size_t i = 0; i < shape.array().size(); ++i) {
    const std::int64_t extent = shape.at(i).integer();
    if (extent < 0) shape.at(i).fail("need 0 or more");
    tensor.shape.push_back(static_cast<std::size_t>(extent));
  }
  if (tensor.shape.empty() || stored_bytes(*type, tensor.shape) != view.bytes.size()) {
    reader.fail(fmt::format("found {} bytes, {} of shape [{}] is another size", view.bytes.size(),
                            nn::block_name(*type), fmt::join(tensor.shape, ",")));
  }
  return tensor;
}

} // namespace

std::size_t StoredTensor::elements() const { return bytes.size() / nn::block_bytes(type) * nn::block_elements(type); }

StoredTensor stored_tensor(const SafetensorsFile& file, std::string_view name) {
  const TensorView& view = file.at(name);
  const auto described = file.metadata().find(std::string(blocks_prefix) + view.name);
  if (described != file.metadata().end()) return read_blocks(file, view, described->second);
  if (const auto type = plain_type(view.dtype)) return {view.name, *type, view.shape, view.bytes};
  throw Error(Code::incompatible, file.name(),
              fmt::format("the tensor {} has dtype {}, a weight needs F32, F16, BF16 or described blocks", view.name,
                          dtype_name(view.dtype)),
              "save the file again with its weights as one of these");
}

std::vector<StoredTensor> stored_tensors(const SafetensorsFile& file) {
  for (const auto& [key, text] : file.metadata()) {
    if (key.starts_with(blocks_prefix)) file.at(std::string_view(key).substr(blocks_prefix.size()));
  }
  std::vector<StoredTensor> tensors;
  for (const TensorView& view : file.tensors()) tensors.push_back(stored_tensor(file, view.name));
  return tensors;
}

TensorView safetensors_view(const StoredTensor& tensor, std::map<std::string, std::string>& metadata) {
  switch (tensor.type) {
    case nn::BlockType::F32: return {tensor.name, Dtype::F32, tensor.shape, tensor.bytes};
    case nn::BlockType::F16: return {tensor.name, Dtype::F16, tensor.shape, tensor.bytes};
    case nn::BlockType::BF16: return {tensor.name, Dtype::BF16, tensor.shape, tensor.bytes};
    default: break;
  }
  json::array shape;
  for (const std::size_t extent : tensor.shape) shape.push_back(static_cast<std::uint64_t>(extent));
  metadata[std::string(blocks_prefix) + tensor.name] =
      json::serialize(json::object{{"type", nn::block_name(tensor.type)}, {"shape", shape}});
  std::vector<std::size_t> raw_shape(tensor.shape);
  raw_shape.back() = raw_shape.back() / nn::block_elements(tensor.type) * nn::block_bytes(tensor.type);
  return {tensor.name, Dtype::U8, raw_shape, tensor.bytes};
}

void dequantise(const StoredTensor& tensor, std::span<float> out) {
  if (out.size() != tensor.elements()) {
    throw Error(Code::bug, tensor.name, fmt::format("{} numbers asked for, it has {}", out.size(), tensor.elements()));
  }
  nn::dequantise(tensor.type, tensor.bytes, out);
}

} // namespace tenon
