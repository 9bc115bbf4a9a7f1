#include "host/model/packed_weights.hpp"

#include "host/formats/stored_tensor.hpp"
#include "kernels/packed_forms.hpp"
#include "registry/base/error.hpp"
#include "registry/base/files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>

namespace tenon {
namespace {

constexpr const char* kLayout = "1"; // of panels: a file of another layout under the same name would be read as this
constexpr const char* kAgain = "remove this file: it is derived again";
constexpr std::array kFormats = {Format::float32, Format::bf16, Format::int8, Format::int4, Format::stored};

std::span<const float> floats(const TensorView& tensor) {
  return {reinterpret_cast<const float*>(tensor.bytes.data()), tensor.bytes.size() / sizeof(float)};
}

// How one matrix is to be packed: from its blocks, or from its float32 values.
struct Plan {
  StoredTensor stored;
  PackedEntry entry;
  bool verbatim = false;
};

Plan plan_for(const StoredTensor& tensor, Format format, const std::string& file) {
  Plan plan{tensor, {tensor.name, {}, ""}, false};
  cpu::PackedMatrix& matrix = plan.entry.matrix;
  matrix.outputs = static_cast<std::int64_t>(tensor.shape[0]);
  matrix.inputs = static_cast<std::int64_t>(tensor.shape[1]);
  const auto lossless = cpu::lossless_format(tensor.type);
  const auto take = [&](cpu::PackedFormat packed) { matrix.format = packed, plan.verbatim = lossless == packed; };
  switch (format) {
    case Format::float32: break;
    case Format::bf16: take(cpu::PackedFormat::bf16); break;
    case Format::int8: take(cpu::PackedFormat::int8g32); break;
    case Format::int4:
      take(lossless == cpu::PackedFormat::int4g32 ? cpu::PackedFormat::int4g32 : cpu::PackedFormat::int4g32m);
      break;
    case Format::stored:
      if (!lossless)
        throw Error(Code::incompatible, file,
                    fmt::format("{} is stored as {}, which no kernel computes as it is", tensor.name,
                                nn::block_name(tensor.type)),
                    "choose a format to convert to: bf16, int8 or int4; or compute in float32");
      take(*lossless);
      break;
  }
  if (!cpu::panel_bytes(matrix.format, matrix.inputs))
    plan.entry.refusal = fmt::format("{} has {} inputs, {} needs a multiple of {}", tensor.name, matrix.inputs,
                                     format_name(format), cpu::kGroup);
  return plan;
}

bool stays_float32(const StoredTensor& tensor, Format format) {
  return format == Format::stored && tensor.type == nn::BlockType::F32;
}

std::vector<Plan> plans_for(const PackedWeights::Source& source, Format format) {
  std::vector<Plan> plans;
  for (const StoredTensor& tensor : stored_tensors(source.stored)) {
    if (tensor.shape.size() != 2 || source.looked_up.contains(tensor.name)) continue;
    if (stays_float32(tensor, format)) continue;
    plans.push_back(plan_for(tensor, format, source.stored.name()));
  }
  return plans;
}

// Scales are f16: their largest times the fewest steps must hold the largest weight.
void check_range(const Plan& plan, std::span<const float> values, const std::string& file) {
  constexpr float most = 65504.0f * 7.0f;
  if (cpu::reads_bf16(plan.entry.matrix.format)) return;
  for (const float value : values)
    if (std::abs(value) > most)
      throw Error(Code::incompatible, file,
                  fmt::format("{} holds {}, scales of integers reach {}", plan.entry.name, value, most),
                  "choose --compute bf16 or float32");
}

// bfloat16 with short exponents, wherever that holds a matrix: the same numbers in three quarters of the bytes.
void shorten(Plan& plan, const PackedWeights::Source& source) {
  cpu::PackedMatrix& matrix = plan.entry.matrix;
  if (matrix.format != cpu::PackedFormat::bf16 || !plan.entry.refusal.empty()) return;
  matrix.format = plan.verbatim
                      ? cpu::shortest_bf16(matrix.outputs, matrix.inputs, plan.stored.bytes)
                      : cpu::shortest_bf16(matrix.outputs, matrix.inputs, floats(source.float32->at(plan.entry.name)));
}

void derive(const PackedWeights::Source& source, std::vector<Plan> plans, const std::filesystem::path& target,
            const std::function<void(std::uint64_t, std::uint64_t)>& progress) {
  std::vector<PackedEntry> entries;
  std::uint64_t done = 0, total = 0;
  for (Plan& plan : plans) {
    shorten(plan, source);
    entries.push_back(plan.entry);
    if (plan.entry.refusal.empty()) total += plan.stored.bytes.size();
  }
  PackedFileWriter writer(target, entries);
  for (const Plan& plan : plans) {
    if (!plan.entry.refusal.empty()) continue;
    const auto& [format, outputs, inputs, none] = plan.entry.matrix;
    std::vector<std::byte> packed(cpu::packed_bytes(format, outputs, inputs).value());
    if (plan.verbatim) {
      cpu::pack_blocks(format, plan.stored.type, outputs, inputs, plan.stored.bytes, packed);
    } else {
      const std::span<const float> values = floats(source.float32->at(plan.entry.name));
      check_range(plan, values, source.stored.name());
      cpu::pack(format, outputs, inputs, values, packed);
    }
    writer.write(plan.entry.name, packed);
    if (progress) progress(done += plan.stored.bytes.size(), total);
  }
  writer.commit();
  drop_cached(target);
}

bool huge_pages() {
  try {
    return cpu::pages() == cpu::Pages::huge;
  } catch (const std::runtime_error& error) {
    throw Error(Code::environment, "kernels", error.what());
  }
}

std::filesystem::path path_of(const PackedWeights::Source& source, Format format, const std::filesystem::path& cache) {
  return cache / "packed" / kLayout / format_name(format) /
         (source.digest.substr(source.digest.find(':') + 1) + ".safetensors");
}

bool is_planned(const PackedEntry& entry, const PackedEntry& planned) {
  if (!entry.refusal.empty() || !planned.refusal.empty()) return entry.refusal.empty() == planned.refusal.empty();
  const cpu::PackedFormat format = entry.matrix.format;
  return (format == cpu::PackedFormat::bf16e4 ? cpu::PackedFormat::bf16 : format) == planned.matrix.format;
}

// The matrices of a derived file: those that are planned, in the shapes of the weights they were derived from.
std::vector<PackedEntry> entries_of(const SafetensorsFile& file, const std::vector<Plan>& plans,
                                    const SafetensorsFile& float32) {
  std::vector<PackedEntry> entries = packed_entries(file);
  std::map<std::string, const Plan*> missing;
  for (const Plan& plan : plans) missing.emplace(plan.entry.name, &plan);
  for (const PackedEntry& entry : entries) {
    const auto& [format, outputs, inputs, none] = entry.matrix;
    const auto planned = missing.find(entry.name);
    if (planned == missing.end()) throw Error(Code::integrity, file.name(), entry.name + " does not belong here");
    if (!is_planned(entry, planned->second->entry))
      throw Error(Code::integrity, file.name(), entry.name + " has another format than it was derived in");
    missing.erase(planned);
    if (float32.at(entry.name).shape !=
        std::vector<std::size_t>{static_cast<std::size_t>(outputs), static_cast<std::size_t>(inputs)})
      throw Error(Code::integrity, file.name(), entry.name + " has another shape than the weights it was derived from");
  }
  if (!missing.empty()) throw Error(Code::integrity, file.name(), missing.begin()->first + " is missing");
  return entries;
}

std::uint64_t bytes_of(const SafetensorsFile& file) {
  std::uint64_t sum = 0;
  for (const TensorView& tensor : file.tensors()) sum += tensor.bytes.size();
  return sum;
}

// Moves the entries' bytes into pages of their own.
std::shared_ptr<const cpu::HugeMemory> copy_of(const SafetensorsFile& file, std::vector<PackedEntry>& entries) {
  auto copy = std::make_shared<const cpu::HugeMemory>(bytes_of(file));
  std::size_t done = 0;
  for (PackedEntry& entry : entries) {
    if (!entry.matrix.bytes) continue;
    const std::size_t bytes = cpu::packed_bytes(entry.matrix.format, entry.matrix.outputs, entry.matrix.inputs).value();
    std::memcpy(copy->bytes().data() + done, entry.matrix.bytes, bytes);
    entry.matrix.bytes = copy->bytes().data() + done;
    done += bytes;
  }
  return copy;
}

} // namespace

const char* format_name(Format format) {
  switch (format) {
    case Format::float32: return "float32";
    case Format::bf16: return "bf16";
    case Format::int8: return "int8";
    case Format::int4: return "int4";
    case Format::stored: return "stored";
  }
  return "?";
}

Format format_of(const std::string& name) {
  for (const Format format : kFormats)
    if (name == format_name(format)) return format;
  throw Error(Code::usage, "format", "found \"" + name + "\", need float32, bf16, int8, int4 or stored",
              "give one of these");
}

PackedWeights::PackedWeights(const Source& source, Format format, const std::filesystem::path& cache,
                             const std::function<void(std::uint64_t, std::uint64_t)>& progress)
    : float32_(source.float32) {
  const std::filesystem::path derived = path_of(source, format, cache);
  const std::vector<Plan> plans = plans_for(source, format);
  if (!std::filesystem::exists(derived)) {
    const FileLock lock(derived.string() + ".lock");
    derived_now_ = !std::filesystem::exists(derived); // another process may have been faster
    if (derived_now_) remove_temporaries_of(derived), derive(source, plans, derived, progress);
  }
  std::vector<PackedEntry> entries;
  try {
    file_ = std::make_shared<const SafetensorsFile>(derived);
    entries = entries_of(*file_, plans, *float32_);
  } catch (const Error& error) {
    if (error.code != Code::integrity) throw;
    throw Error(error.code, error.unit, error.message, kAgain);
  }
  if (huge_pages()) copy_ = copy_of(*file_, entries);
  make_known(source, entries);
  for (const StoredTensor& tensor : stored_tensors(source.stored))
    if (tensor.shape.size() == 2 && !source.looked_up.contains(tensor.name) && stays_float32(tensor, format)) {
      unpacked_.push_back(floats(float32_->at(tensor.name)).data());
      add_unpacked(unpacked_.back(), static_cast<std::int64_t>(tensor.shape[0]),
                   static_cast<std::int64_t>(tensor.shape[1]));
    }
}

void PackedWeights::make_known(const Source& source, const std::vector<PackedEntry>& entries) {
  const std::shared_ptr<const void> owner = copy_ ? std::shared_ptr<const void>(copy_) : file_;
  std::map<std::string, nn::BlockType> stored;
  for (const StoredTensor& tensor : stored_tensors(source.stored)) stored.emplace(tensor.name, tensor.type);
  for (const PackedEntry& entry : entries) {
    known_.push_back(floats(float32_->at(entry.name)).data());
    if (entry.refusal.empty()) {
      const bool lossless = cpu::is_lossless(entry.matrix.format, stored.at(entry.name));
      add_packed_form(known_.back(), {entry.matrix, owner, lossless});
    } else {
      add_packed_refusal(known_.back(), entry.matrix.outputs, entry.matrix.inputs, entry.refusal);
      refusals_.push_back(entry.refusal);
    }
  }
}

PackedWeights::~PackedWeights() {
  for (const float* weights : known_) remove_packed_form(weights);
  for (const float* weights : unpacked_) remove_packed_form(weights);
}

std::size_t PackedWeights::multiplied_in_float32() const {
  return static_cast<std::size_t>(std::count_if(unpacked_.begin(), unpacked_.end(), multiplied_unpacked));
}

std::uint64_t PackedWeights::bytes() const { return bytes_of(*file_); }
std::uint64_t PackedWeights::in_huge_pages() const { return copy_ ? copy_->in_huge_pages() : 0; }

} // namespace tenon
