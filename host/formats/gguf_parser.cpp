#include "host/formats/gguf_parser.hpp"

#include "registry/base/error.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace tenon {
namespace {

static_assert(std::endian::native == std::endian::little, "stored numbers are little-endian");

constexpr std::uint64_t min_value_bytes = 8 + 4 + 1;          // an empty key, its type, one byte
constexpr std::uint64_t min_tensor_bytes = 8 + 4 + 8 + 4 + 8; // an empty name, one dimension, type, offset
constexpr int max_array_depth = 4;
constexpr std::size_t max_key_bytes = 65535, max_tensor_name_bytes = 64; // both from the specification
constexpr std::uint32_t max_dimensions = 4;

struct TypeName {
  std::uint32_t id;
  const char* name;
};
// ggml's tensor types, so that one we do not read is refused by its name.
constexpr TypeName tensor_types[] = {
    {0, "F32"},         {1, "F16"},         {2, "Q4_0"},        {3, "Q4_1"},      {4, "Q4_2"},     {5, "Q4_3"},
    {6, "Q5_0"},        {7, "Q5_1"},        {8, "Q8_0"},        {9, "Q8_1"},      {10, "Q2_K"},    {11, "Q3_K"},
    {12, "Q4_K"},       {13, "Q5_K"},       {14, "Q6_K"},       {15, "Q8_K"},     {16, "IQ2_XXS"}, {17, "IQ2_XS"},
    {18, "IQ3_XXS"},    {19, "IQ1_S"},      {20, "IQ4_NL"},     {21, "IQ3_S"},    {22, "IQ2_S"},   {23, "IQ4_XS"},
    {24, "I8"},         {25, "I16"},        {26, "I32"},        {27, "I64"},      {28, "F64"},     {29, "IQ1_M"},
    {30, "BF16"},       {31, "Q4_0_4_4"},   {32, "Q4_0_4_8"},   {33, "Q4_0_8_8"}, {34, "TQ1_0"},   {35, "TQ2_0"},
    {36, "IQ4_NL_4_4"}, {37, "IQ4_NL_4_8"}, {38, "IQ4_NL_8_8"}, {39, "MXFP4"},    {40, "NVFP4"},   {41, "Q1_0"}};

const char* tensor_type_name(std::uint32_t id) {
  for (const TypeName& type : tensor_types) {
    if (type.id == id) return type.name;
  }
  return nullptr;
}

} // namespace

std::uint64_t gguf_scalar_bytes(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean: return 1;
    case GgufType::u16:
    case GgufType::i16: return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32: return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64: return 8;
    case GgufType::string:
    case GgufType::array: return 0;
  }
  return 0;
}

void GgufParser::fail(std::uint64_t offset, const std::string& message) const {
  throw Error(Code::integrity, file_.name_, fmt::format("offset {}: {}", offset, message),
              "the file is damaged or no GGUF file; fetch it again");
}

void GgufParser::need(std::uint64_t size, const char* what) const {
  if (size > left()) fail(at_, fmt::format("{} needs {} bytes, {} are left in the file", what, size, left()));
}

template <class Number>
Number GgufParser::read(const char* what) {
  need(sizeof(Number), what);
  Number number;
  std::memcpy(&number, bytes_.data() + at_, sizeof number);
  at_ += sizeof number;
  return number;
}

std::uint64_t GgufParser::read_count(std::uint64_t item_bytes, const char* what) {
  const std::uint64_t start = at_, count = read<std::uint64_t>(what);
  if (count > left() / item_bytes) {
    fail(start, fmt::format("found a count of {} {}, the {} bytes left hold at most {}", count, what, left(),
                            left() / item_bytes));
  }
  return count;
}

std::string_view GgufParser::read_string(const char* what) {
  const std::uint64_t size = read_count(1, what);
  const std::string_view text(reinterpret_cast<const char*>(bytes_.data() + at_), size);
  at_ += size;
  return text;
}

GgufType GgufParser::read_type() {
  const std::uint64_t start = at_;
  const auto id = read<std::uint32_t>("a value's type");
  if (id > static_cast<std::uint32_t>(GgufType::f64)) {
    fail(start, fmt::format("found the unknown value type {}, known are 0 to 12", id));
  }
  return static_cast<GgufType>(id);
}

void GgufParser::skip_elements(GgufType type, std::uint64_t count, int depth) {
  if (type == GgufType::string) {
    for (std::uint64_t i = 0; i < count; ++i) read_string("characters in a string");
  } else if (type == GgufType::array) {
    for (std::uint64_t i = 0; i < count; ++i) skip_array(depth + 1);
  } else {
    const std::uint64_t start = at_;
    need(count * gguf_scalar_bytes(type), "a value"); // cannot overflow: read_count bounded it by the file
    at_ += count * gguf_scalar_bytes(type);
    if (type != GgufType::boolean) return;
    for (std::uint64_t i = start; i < at_; ++i) {
      if (std::to_integer<unsigned>(bytes_[i]) > 1) fail(i, "found a boolean that is neither 0 nor 1");
    }
  }
}

std::pair<GgufType, std::uint64_t> GgufParser::read_array_head() {
  const GgufType element = read_type();
  const std::uint64_t smallest = element == GgufType::string  ? 8
                                 : element == GgufType::array ? 12
                                                              : gguf_scalar_bytes(element);
  return {element, read_count(smallest, "elements in an array")};
}

void GgufParser::skip_array(int depth) {
  if (depth > max_array_depth) fail(at_, fmt::format("arrays are nested deeper than {}", max_array_depth));
  const auto [element, count] = read_array_head();
  skip_elements(element, count, depth);
}

void GgufParser::read_value() {
  const std::uint64_t start = at_;
  GgufValue value{};
  value.key = read_string("characters in a key");
  if (value.key.empty() || value.key.size() > max_key_bytes) fail(start, "found a key that is empty or too long");
  value.type = value.element = read_type();
  value.count = 1;
  if (value.type == GgufType::array) std::tie(value.element, value.count) = read_array_head();
  const std::uint64_t data = at_;
  skip_elements(value.element, value.count, 1);
  value.bytes = bytes_.subspan(data, at_ - data);
  if (!file_.value_index_.emplace(value.key, file_.values_.size()).second) {
    fail(start, fmt::format("the key {} is given twice", value.key));
  }
  file_.values_.push_back(value);
}

nn::BlockType GgufParser::read_tensor_type(const std::string& tensor) {
  const auto id = read<std::uint32_t>("a tensor's type");
  const char* name = tensor_type_name(id);
  const auto type = name ? nn::block_type(name) : std::nullopt;
  if (type) return *type;
  throw Error(Code::incompatible, file_.name_,
              fmt::format("the tensor {} has type {}, need {}", tensor, name ? name : fmt::format("{} (unknown)", id),
                          nn::block_type_list()),
              "convert the model again with one of these types, such as Q8_0");
}

// The offset is kept in a list of its own: the tensors' data are checked once the end of the header is known.
void GgufParser::read_tensor() {
  const std::uint64_t start = at_;
  GgufTensor tensor;
  tensor.name = read_string("characters in a tensor's name");
  if (tensor.name.empty() || tensor.name.size() > max_tensor_name_bytes) {
    fail(start,
         fmt::format("found a tensor name of {} bytes, need 1 to {}", tensor.name.size(), max_tensor_name_bytes));
  }
  const auto dimensions = read<std::uint32_t>("a tensor's dimensions");
  if (dimensions < 1 || dimensions > max_dimensions) {
    fail(start, fmt::format("the tensor {} has {} dimensions, need 1 to {}", tensor.name, dimensions, max_dimensions));
  }
  for (std::uint32_t i = 0; i < dimensions; ++i) tensor.shape.push_back(read<std::uint64_t>("a tensor's dimension"));
  std::reverse(tensor.shape.begin(), tensor.shape.end());
  tensor.type = read_tensor_type(tensor.name);
  offsets_.push_back(read<std::uint64_t>("a tensor's offset"));
  file_.tensors_.push_back(std::move(tensor));
}

std::uint64_t GgufParser::tensor_bytes(const GgufTensor& tensor) const {
  const auto row = nn::row_bytes(tensor.type, tensor.shape.back());
  if (!row) {
    fail(at_, fmt::format("the tensor {} has rows of {} numbers, {} needs a multiple of {}", tensor.name,
                          tensor.shape.back(), nn::block_name(tensor.type), nn::block_elements(tensor.type)));
  }
  std::uint64_t size = *row;
  for (std::size_t i = 0; i + 1 < tensor.shape.size(); ++i) {
    if (__builtin_mul_overflow(size, tensor.shape[i], &size)) size = bytes_.size() + 1; // more than any file
  }
  if (std::find(tensor.shape.begin(), tensor.shape.end(), 0u) != tensor.shape.end()) {
    fail(at_, fmt::format("the tensor {} has a dimension of 0", tensor.name));
  }
  return size;
}

void GgufParser::place_tensors() {
  const std::uint64_t alignment = read_alignment();
  const std::uint64_t padding = (alignment - at_ % alignment) % alignment;
  const std::uint64_t data = padding > left() ? bytes_.size() : at_ + padding;
  std::vector<std::size_t> order(offsets_.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return offsets_[a] < offsets_[b]; });
  std::uint64_t end = 0; // of the tensors placed so far
  for (const std::size_t i : order) {
    GgufTensor& tensor = file_.tensors_[i];
    const std::uint64_t offset = offsets_[i], size = tensor_bytes(tensor), available = bytes_.size() - data;
    if (offset % alignment != 0 || offset < end) {
      fail(data, fmt::format("the tensor {} starts at {} in the data, need a multiple of {} from {} on", tensor.name,
                             offset, alignment, end));
    }
    if (offset > available || size > available - offset) {
      fail(data, fmt::format("the tensor {} needs {} bytes from {} on in the data, which have {} bytes", tensor.name,
                             size, offset, available));
    }
    tensor.bytes = bytes_.subspan(data + offset, size);
    end = offset + size;
  }
}

std::uint64_t GgufParser::read_alignment() const {
  const std::int64_t alignment = file_.integer("general.alignment", 32);
  if (alignment < 1 || alignment > (std::int64_t{1} << 30) ||
      !std::has_single_bit(static_cast<std::uint64_t>(alignment))) {
    throw Error(Code::integrity, file_.name_,
                fmt::format("general.alignment: found {}, need a power of two", alignment));
  }
  return static_cast<std::uint64_t>(alignment);
}

void GgufParser::read_header() {
  need(24, "the header");
  if (std::memcmp(bytes_.data(), "GGUF", 4) != 0) fail(0, "found no \"GGUF\" at the start");
  at_ = 4;
  const auto version = read<std::uint32_t>("the version");
  if (version != 3) {
    const bool swapped = version == 0x03000000;
    throw Error(Code::incompatible, file_.name_,
                swapped ? std::string("offset 4: found a big-endian file, need a little-endian one")
                        : fmt::format("offset 4: found GGUF version {}, need 3", version),
                "convert the model again with a current converter");
  }
}

void GgufParser::parse() {
  read_header();
  const std::uint64_t tensors = read_count(min_tensor_bytes, "tensors");
  const std::uint64_t values = read_count(min_value_bytes, "metadata values");
  for (std::uint64_t i = 0; i < values; ++i) read_value();
  for (std::uint64_t i = 0; i < tensors; ++i) read_tensor();
  place_tensors();
  for (std::size_t i = 0; i < file_.tensors_.size(); ++i) {
    if (!file_.tensor_index_.emplace(file_.tensors_[i].name, i).second) {
      fail(at_, fmt::format("the tensor {} is given twice", file_.tensors_[i].name));
    }
  }
}

} // namespace tenon
