#include "host/formats/safetensors.hpp"

#include "host/formats/safetensors_writer.hpp"
#include "registry/base/error.hpp"
#include "registry/base/json.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <tuple>

namespace tenon {
namespace {

constexpr std::size_t max_header_bytes = 100'000'000; // the limit of the reference implementation

struct DtypeInfo {
  Dtype dtype;
  const char* name;
  std::size_t bytes;
};
constexpr std::array<DtypeInfo, 10> dtypes{{{Dtype::F64, "F64", 8},
                                            {Dtype::F32, "F32", 4},
                                            {Dtype::F16, "F16", 2},
                                            {Dtype::BF16, "BF16", 2},
                                            {Dtype::I64, "I64", 8},
                                            {Dtype::I32, "I32", 4},
                                            {Dtype::I16, "I16", 2},
                                            {Dtype::I8, "I8", 1},
                                            {Dtype::U8, "U8", 1},
                                            {Dtype::BOOL, "BOOL", 1}}};

constexpr const char* kFetchAgain = "the file is damaged or no safetensors file; fetch it again";

std::size_t natural(const JsonReader& reader) {
  const std::int64_t number = reader.integer();
  if (number < 0) reader.fail(fmt::format("found {}, need 0 or more", number));
  return static_cast<std::size_t>(number);
}

Dtype read_dtype(const JsonReader& reader, const std::string& file, std::string_view tensor) {
  const std::string name = reader.string();
  if (const auto dtype = dtype_of(name)) return *dtype;
  throw Error(
      Code::incompatible, file,
      fmt::format("the tensor {} has dtype {}, need F64, F32, F16, BF16, I64, I32, I16, I8, U8 or BOOL", tensor, name),
      "save the file again with one of these dtypes");
}

TensorView read_entry(const JsonReader& entry, std::string_view name, std::span<const std::byte> data,
                      const std::string& file) {
  if (entry.size() != 3) entry.fail("need exactly dtype, shape and data_offsets");
  TensorView tensor{std::string(name), read_dtype(entry.at("dtype"), file, name), {}, {}};
  const JsonReader shape = entry.at("shape"), offsets = entry.at("data_offsets");
  for (std::size_t i = 0; i < shape.array().size(); ++i) tensor.shape.push_back(natural(shape.at(i)));
  if (offsets.array().size() != 2) offsets.fail("need a begin and an end");
  const std::size_t begin = natural(offsets.at(std::size_t{0})), end = natural(offsets.at(std::size_t{1}));
  if (begin > end || end > data.size()) {
    offsets.fail(fmt::format("found {} to {}, the file has {} bytes of data", begin, end, data.size()), kFetchAgain);
  }
  if (tensor_bytes(tensor.dtype, tensor.shape) != end - begin) {
    entry.fail(fmt::format("found {} bytes, {} of shape [{}] is another size", end - begin, dtype_name(tensor.dtype),
                           fmt::join(tensor.shape, ",")));
  }
  tensor.bytes = data.subspan(begin, end - begin);
  return tensor;
}

} // namespace

const char* dtype_name(Dtype dtype) { return dtypes[static_cast<std::size_t>(dtype)].name; }
std::size_t dtype_bytes(Dtype dtype) { return dtypes[static_cast<std::size_t>(dtype)].bytes; }

std::optional<Dtype> dtype_of(std::string_view name) {
  for (const DtypeInfo& info : dtypes) {
    if (name == info.name) return info.dtype;
  }
  return std::nullopt;
}

std::optional<std::size_t> tensor_bytes(Dtype dtype, std::span<const std::size_t> shape) {
  std::size_t size = dtype_bytes(dtype);
  for (const std::size_t extent : shape) {
    if (__builtin_mul_overflow(size, extent, &size)) return std::nullopt;
  }
  return size;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(MappedFile(path)), name_(path.string()) {
  parse(file_->bytes());
}

SafetensorsFile::SafetensorsFile(std::span<const std::byte> bytes, std::string name) : name_(std::move(name)) {
  parse(bytes);
}

void SafetensorsFile::parse(std::span<const std::byte> bytes) {
  const auto damaged = [&](const std::string& what) { throw Error(Code::integrity, name_, what, kFetchAgain); };
  if (bytes.size() < 8) damaged(fmt::format("found {} bytes, the header's length alone needs 8", bytes.size()));
  std::uint64_t size = 0;
  std::memcpy(&size, bytes.data(), sizeof size);
  if (size > max_header_bytes)
    damaged(fmt::format("offset 0: found a header of {} bytes, at most {} are allowed", size, max_header_bytes));
  if (size > bytes.size() - 8)
    damaged(fmt::format("offset 0: found a header of {} bytes, the file has {} left", size, bytes.size() - 8));
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, size);
  if (text.empty() || text.front() != '{') damaged("offset 8: the header does not begin with {");

  const json::value header = parse_json(text, name_ + " (header)");
  const JsonReader reader(header, name_);
  const auto data = bytes.subspan(8 + size);
  for (const auto& [key, value] : reader.object()) {
    if (key == "__metadata__") {
      const JsonReader metadata = reader.at(key);
      for (const auto& member : metadata.object()) metadata_.emplace(member.key(), metadata.at(member.key()).string());
    } else {
      tensors_.push_back(read_entry(reader.at(key), key, data, name_));
    }
  }
  check_layout(data);
  for (std::size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
}

void SafetensorsFile::check_layout(std::span<const std::byte> data) {
  const auto damaged = [&](const std::string& what) { throw Error(Code::integrity, name_, what, kFetchAgain); };
  const auto place = [](const TensorView& t) {
    return std::tuple(t.bytes.data(), t.bytes.size(), std::string_view(t.name));
  };
  std::sort(tensors_.begin(), tensors_.end(), [&](auto& a, auto& b) { return place(a) < place(b); });
  const std::byte* end = data.data();
  for (const TensorView& tensor : tensors_) {
    if (tensor.bytes.data() != end) {
      damaged(fmt::format("the tensor {} starts at {} in the data, need {}: tensors neither overlap nor leave holes",
                          tensor.name, tensor.bytes.data() - data.data(), end - data.data()));
    }
    end += tensor.bytes.size();
  }
  if (end != data.data() + data.size()) {
    damaged(fmt::format("the tensors end at {} in the data, the file has {} bytes of data", end - data.data(),
                        data.size()));
  }
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  for (const TensorView& tensor : tensors_) names.push_back(tensor.name);
  return names;
}

const TensorView* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const TensorView& SafetensorsFile::at(std::string_view name) const {
  if (const TensorView* tensor = find(name)) return *tensor;
  throw Error(Code::integrity, name_, fmt::format("the tensor {} is missing", name), kFetchAgain);
}

void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<TensorSpec> specs;
  for (const TensorView& tensor : tensors) specs.push_back({tensor.name, tensor.dtype, tensor.shape});
  SafetensorsWriter writer(path, std::move(specs), metadata);
  for (const TensorView& tensor : tensors) writer.write(tensor.name, tensor.bytes);
  writer.commit();
}

} // namespace tenon
