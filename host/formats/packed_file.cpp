#include "host/formats/packed_file.hpp"

#include "registry/base/error.hpp"
#include "registry/base/json.hpp"

#include <fmt/format.h>

#include <boost/json/serialize.hpp>

namespace tenon {
namespace {

constexpr std::string_view kPrefix = "tenon.packed.";
constexpr std::size_t kAlignment = 64;

std::int64_t extent(const JsonReader& shape, std::size_t index) {
  const std::int64_t value = shape.at(index).integer();
  if (value < 0) shape.at(index).fail("need 0 or more");
  return value;
}

PackedEntry read_entry(const SafetensorsFile& file, const std::string& name, const std::string& text) {
  const json::value value = parse_json(text, fmt::format("{} ({}{})", file.name(), kPrefix, name));
  const JsonReader reader(value, fmt::format("{} ({}{})", file.name(), kPrefix, name)), shape = reader.at("shape");
  if (shape.array().size() != 2) shape.fail("need two extents");
  PackedEntry entry{name, {}, reader.string("refused", "")};
  entry.matrix.outputs = extent(shape, 0), entry.matrix.inputs = extent(shape, 1);
  if (!entry.refusal.empty()) return entry;
  const auto format = cpu::packed_format(reader.at("format").string());
  if (!format) reader.at("format").fail("this format is not known here");
  entry.matrix.format = *format;
  const TensorView& view = file.at(name);
  const auto need = cpu::packed_bytes(*format, entry.matrix.outputs, entry.matrix.inputs);
  if (view.dtype != Dtype::U8 || need != view.bytes.size())
    reader.fail(fmt::format("found {} bytes, this shape is of another size", view.bytes.size()));
  if (reinterpret_cast<std::uintptr_t>(view.bytes.data()) % kAlignment != 0)
    reader.fail("its bytes do not begin at a multiple of 64");
  entry.matrix.bytes = view.bytes.data();
  return entry;
}

std::map<std::string, std::string> metadata_of(const std::vector<PackedEntry>& entries) {
  std::map<std::string, std::string> metadata;
  for (const PackedEntry& entry : entries) {
    json::object said = {{"shape", json::array{entry.matrix.outputs, entry.matrix.inputs}}};
    if (entry.refusal.empty())
      said["format"] = cpu::packed_name(entry.matrix.format);
    else
      said["refused"] = entry.refusal;
    metadata[std::string(kPrefix) + entry.name] = json::serialize(said);
  }
  return metadata;
}

std::vector<TensorSpec> specs_of(const std::vector<PackedEntry>& entries) {
  std::vector<TensorSpec> specs;
  for (const PackedEntry& entry : entries) {
    if (!entry.refusal.empty()) continue;
    const auto bytes = cpu::packed_bytes(entry.matrix.format, entry.matrix.outputs, entry.matrix.inputs);
    if (!bytes) throw Error(Code::bug, "packed file", entry.name + " has a shape that this format does not hold");
    specs.push_back({entry.name, Dtype::U8, {*bytes}});
  }
  return specs;
}

} // namespace

std::vector<PackedEntry> packed_entries(const SafetensorsFile& file) {
  std::vector<PackedEntry> entries;
  std::size_t matrices = 0;
  for (const auto& [key, text] : file.metadata()) {
    if (!key.starts_with(kPrefix)) continue;
    entries.push_back(read_entry(file, key.substr(kPrefix.size()), text));
    matrices += entries.back().refusal.empty();
  }
  if (matrices != file.tensors().size())
    throw Error(Code::integrity, file.name(),
                fmt::format("found {} tensors, the metadata describe {}", file.tensors().size(), matrices));
  return entries;
}

PackedFileWriter::PackedFileWriter(const std::filesystem::path& path, const std::vector<PackedEntry>& entries)
    : writer_(path, specs_of(entries), metadata_of(entries)) {}

} // namespace tenon
