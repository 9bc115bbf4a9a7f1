#include "kernels/packed_forms.hpp"

#include <mutex>
#include <stdexcept>
#include <unordered_map>

namespace tenon {
namespace {

struct Entry {
  PackedForm form = {};
  std::string refusal = {};
  bool unpacked = false, multiplied = false;
};

struct Table {
  std::mutex mutex;
  std::unordered_map<const float*, Entry> entries;
};

Table& table() {
  static Table one;
  return one;
}

void add(const float* weights, Entry entry) {
  const std::lock_guard lock(table().mutex);
  table().entries[weights] = std::move(entry);
}

} // namespace

void add_packed_form(const float* weights, PackedForm form) { add(weights, {.form = std::move(form)}); }

void add_packed_refusal(const float* weights, std::int64_t outputs, std::int64_t inputs, std::string reason) {
  PackedForm form;
  form.matrix.outputs = outputs, form.matrix.inputs = inputs;
  add(weights, {.form = std::move(form), .refusal = std::move(reason)});
}

void add_unpacked(const float* weights, std::int64_t outputs, std::int64_t inputs) {
  Entry entry;
  entry.form.matrix.outputs = outputs, entry.form.matrix.inputs = inputs;
  entry.unpacked = true;
  add(weights, std::move(entry));
}

bool multiplied_unpacked(const float* weights) {
  const std::lock_guard lock(table().mutex);
  const auto found = table().entries.find(weights);
  return found != table().entries.end() && found->second.multiplied;
}

void remove_packed_form(const float* weights) {
  const std::lock_guard lock(table().mutex);
  table().entries.erase(weights);
}

std::optional<PackedForm> packed_form(const float* weights, std::int64_t outputs, std::int64_t inputs,
                                      bool multiplied) {
  const std::lock_guard lock(table().mutex);
  const auto found = table().entries.find(weights);
  if (found == table().entries.end()) return std::nullopt;
  Entry& entry = found->second;
  if (entry.form.matrix.inputs != inputs || outputs > entry.form.matrix.outputs) return std::nullopt;
  if (entry.unpacked) {
    entry.multiplied |= multiplied;
    return std::nullopt;
  }
  if (!entry.refusal.empty()) throw std::runtime_error(entry.refusal + "; compute in bf16 or float32");
  PackedForm form = entry.form;
  form.matrix.outputs = outputs;
  return form;
}

} // namespace tenon
