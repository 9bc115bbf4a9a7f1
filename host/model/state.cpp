#include "host/model/state.hpp"

#include "registry/base/error.hpp"

#include <ATen/ATen.h>

namespace tenon {

// shape: of the whole buffer; its first extent is set here.
void RowBuffer::reserve(std::int64_t needed, std::vector<std::int64_t> shape) {
  if (buffer_.defined() && buffer_.size(0) >= needed) return;
  shape[0] = std::max<std::int64_t>(needed, std::max<std::int64_t>(64, 2 * length_));
  at::Tensor larger = at::empty(shape, at::kFloat);
  if (length_ > 0) larger.narrow(0, 0, length_).copy_(buffer_.narrow(0, 0, length_));
  buffer_ = larger;
}

void RowBuffer::append(const at::Tensor& rows) {
  const std::int64_t needed = length_ + rows.size(0);
  reserve(needed, rows.sizes().vec());
  buffer_.narrow(0, length_, rows.size(0)).copy_(rows);
  length_ = needed;
}

float* RowBuffer::extend(std::int64_t count, const std::vector<std::int64_t>& shape) {
  if (!buffer_.defined() || buffer_.size(0) < length_ + count) {
    std::vector<std::int64_t> whole = {0};
    whole.insert(whole.end(), shape.begin(), shape.end());
    reserve(length_ + count, std::move(whole));
  }
  length_ += count;
  return buffer_.data_ptr<float>();
}

at::Tensor RowBuffer::rows(std::int64_t first, std::int64_t last) const {
  return buffer_.narrow(0, first, last - first);
}

void RowBuffer::truncate(std::int64_t length) { length_ = std::min(length_, length); }

RowBuffer RowBuffer::fork() const {
  RowBuffer copy;
  if (length_ > 0) copy.append(rows(0, length_));
  return copy;
}

ModuleState::ModuleState(const ModuleLayout& layout) {
  for (const StateTensor& spec : layout) {
    Slot slot{spec, {}, {}};
    if (!spec.per_position) slot.value = at::zeros(spec.shape);
    slots_.push_back(std::move(slot));
  }
}

ModuleState::Slot& ModuleState::slot(std::int64_t index, bool per_position) {
  if (index < 0 || index >= static_cast<std::int64_t>(slots_.size()) || slots_[index].spec.per_position != per_position)
    throw Error(Code::plugin, "state", "slot " + std::to_string(index) + " is not in the state layout in that form");
  return slots_[index];
}

at::Tensor ModuleState::fixed(std::int64_t index) { return slot(index, false).value; }

void ModuleState::append(std::int64_t index, const at::Tensor& rows) {
  Slot& target = slot(index, true);
  if (rows.dim() < 1 || rows.sizes().slice(1) != at::IntArrayRef(target.spec.shape))
    throw Error(Code::plugin, "state", target.spec.name + ": appended rows have another shape than the layout says");
  target.rows.append(rows);
}

SequenceState::Extended ModuleState::extend(std::int64_t index, std::int64_t count, std::int64_t width) {
  Slot& target = slot(index, true);
  if (c10::multiply_integers(target.spec.shape) != width)
    throw Error(Code::plugin, "state", target.spec.name + ": appended rows have another width than the layout says");
  const std::int64_t before = target.rows.length();
  return {target.rows.extend(count, target.spec.shape), before};
}

at::Tensor ModuleState::rows(std::int64_t index) const {
  const Slot& from = const_cast<ModuleState*>(this)->slot(index, true);
  if (from.rows.length() > 0) return from.rows.rows(0, from.rows.length());
  std::vector<std::int64_t> shape = from.spec.shape;
  shape.insert(shape.begin(), 0);
  return at::empty(shape);
}

bool ModuleState::has_fixed() const {
  for (const Slot& slot : slots_)
    if (!slot.spec.per_position) return true;
  return false;
}

void ModuleState::restart(std::int64_t position) {
  first_ = done_ = position;
  for (Slot& slot : slots_) {
    if (slot.spec.per_position)
      slot.rows.truncate(0);
    else
      slot.value.zero_();
  }
}

void ModuleState::truncate(std::int64_t length) {
  if (length < done_) {
    if (has_fixed() || length <= first_) return restart(0);
    done_ = length;
  }
  for (Slot& slot : slots_)
    if (slot.spec.per_position) slot.rows.truncate(done_ - first_); // what a failed call had appended goes, too
}

void ModuleState::undo_failed() {
  if (has_fixed()) return restart(0);
  truncate(done_);
}

ModuleState ModuleState::fork() const {
  ModuleState copy;
  for (const Slot& slot : slots_)
    copy.slots_.push_back({slot.spec, slot.value.defined() ? slot.value.clone() : at::Tensor(), slot.rows.fork()});
  copy.first_ = first_;
  copy.done_ = done_;
  return copy;
}

void PolicyState::truncate(std::int64_t length) {
  while (!kept.empty() && kept.back().position >= length) kept.pop_back();
  fixed_E = at::Tensor(); // decided again from the kept rows
}

Sequence Sequence::fork() const {
  Sequence copy{trunk.fork(), head.fork(), {}, h.fork(), base.fork(), policy};
  for (const ModuleState& state : experts) copy.experts.push_back(state.fork());
  return copy;
}

void Sequence::truncate(std::int64_t length) {
  trunk.truncate(length);
  head.truncate(length);
  for (ModuleState& state : experts) state.truncate(length);
  h.truncate(length);
  base.truncate(length);
  policy.truncate(length);
}

} // namespace tenon
