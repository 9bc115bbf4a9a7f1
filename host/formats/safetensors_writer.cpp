#include "host/formats/safetensors_writer.hpp"

#include "registry/base/error.hpp"
#include "registry/base/json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json/serialize.hpp>
#include <tuple>

namespace tenon {
namespace {

constexpr std::size_t kDataAlignment = 64;

json::object metadata_json(const std::map<std::string, std::string>& metadata) {
  json::object words;
  for (const auto& [key, text] : metadata) words[key] = text;
  return words;
}

} // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path), name_(path.string()) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorSpec& a, const TensorSpec& b) {
    return std::tuple(dtype_bytes(b.dtype), a.shape.size(), std::string_view(a.name)) <
           std::tuple(dtype_bytes(a.dtype), b.shape.size(), std::string_view(b.name));
  });
  json::object header;
  if (!metadata.empty()) header["__metadata__"] = metadata_json(metadata);
  std::size_t offset = 0;
  for (const TensorSpec& tensor : tensors) {
    const auto size = tensor_bytes(tensor.dtype, tensor.shape);
    std::size_t end = 0;
    if (!size || __builtin_add_overflow(offset, *size, &end))
      throw Error(Code::bug, name_, fmt::format("the tensor {} is larger than any file", tensor.name));
    if (tensor.name == "__metadata__" || !places_.emplace(tensor.name, Place{offset, end}).second)
      throw Error(Code::bug, name_, fmt::format("the name {} is given twice", tensor.name));
    json::array shape;
    for (const std::size_t extent : tensor.shape) shape.push_back(static_cast<std::uint64_t>(extent));
    header[tensor.name] = {{"dtype", dtype_name(tensor.dtype)}, {"shape", shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = json::serialize(header);
  text.append((kDataAlignment - (8 + text.size()) % kDataAlignment) % kDataAlignment, ' ');
  const std::uint64_t size = text.size();
  file_.write(std::as_bytes(std::span(&size, 1)));
  file_.write(text);
  for (auto& [name, place] : places_) place.next += 8 + text.size(), place.end += 8 + text.size();
}

void SafetensorsWriter::write(std::string_view tensor, std::span<const std::byte> bytes) {
  const auto found = places_.find(tensor);
  if (found == places_.end()) throw Error(Code::bug, name_, fmt::format("there is no tensor {}", tensor));
  Place& place = found->second;
  if (bytes.size() > place.end - place.next)
    throw Error(Code::bug, name_,
                fmt::format("the tensor {} gets {} bytes, its shape has room for {}", tensor, bytes.size(),
                            place.end - place.next));
  file_.write_at(place.next, bytes);
  place.next += bytes.size();
}

void SafetensorsWriter::commit() {
  for (const auto& [name, place] : places_)
    if (place.next != place.end)
      throw Error(Code::bug, name_,
                  fmt::format("the tensor {} lacks {} bytes of its shape", name, place.end - place.next));
  file_.commit();
}

} // namespace tenon
