#include "host/model/state.hpp"

#include "registry/base/error.hpp"

#include <ATen/ATen.h>
#include <c10/util/SmallVector.h>

#include <algorithm>

namespace tenon {

// A last block that others hold, too, is copied before it is written.
void RowBuffer::own_last() {
  const std::int64_t filled = length_ % kStateBlock;
  if (filled == 0 || blocks_.back().use_count() == 1) return;
  StateBlock own = pool_->take(kStateBlock * width_);
  std::copy_n(starts_.back(), (form_ ? kStateBlock : filled) * width_, own.get());
  blocks_.back() = std::move(own);
  starts_.back() = blocks_.back().get();
}

void RowBuffer::grow(std::int64_t count) {
  if (count > 0) own_last();
  while (static_cast<std::int64_t>(blocks_.size()) * kStateBlock < length_ + count) {
    blocks_.push_back(pool_->take(kStateBlock * width_));
    starts_.push_back(blocks_.back().get());
  }
  length_ += count;
}

float* const* RowBuffer::extend(std::int64_t count, const std::vector<std::int64_t>& shape,
                                const std::shared_ptr<const RowForm>& form) {
  if (width_ == 0 || form != form_) {
    const at::Tensor kept = length_ > 0 ? rows(0, length_) : at::Tensor();
    truncate(0);
    shape_ = shape, form_ = form, width_ = form ? form->width() : c10::multiply_integers(shape);
    if (kept.defined()) append(kept);
  }
  grow(count);
  return starts_.data();
}

void RowBuffer::append(const at::Tensor& rows) {
  const std::int64_t first = length_, count = rows.size(0);
  if (width_ == 0) extend(0, rows.sizes().slice(1).vec());
  grow(count);
  const at::Tensor plain = rows.to(at::kFloat).contiguous();
  const auto* from = plain.data_ptr<float>();
  if (form_) return form_->put(from, first, count, starts_.data());
  for (std::int64_t done = 0, n = 0; done < count; done += n) {
    const std::int64_t at = (first + done) % kStateBlock;
    n = std::min(count - done, kStateBlock - at);
    std::copy_n(from + done * width_, n * width_,
                starts_[static_cast<std::size_t>((first + done) / kStateBlock)] + at * width_);
  }
}

// Holds its block, so that whoever appends leaves it as it is.
at::Tensor RowBuffer::view(std::int64_t block, std::int64_t first, std::int64_t last) const {
  c10::SmallVector<std::int64_t, 4> shape = {last - first};
  shape.append(shape_.begin(), shape_.end());
  const auto at = static_cast<std::size_t>(block);
  return at::from_blob(
      starts_[at] + first * width_, shape, [held = blocks_[at]](void*) {}, at::kFloat);
}

at::Tensor RowBuffer::rows(std::int64_t first, std::int64_t last) const {
  if (form_) {
    std::vector<std::int64_t> shape = {last - first};
    shape.insert(shape.end(), shape_.begin(), shape_.end());
    at::Tensor out = at::empty(shape);
    form_->get(out.data_ptr<float>(), first, last - first, starts_.data());
    return out;
  }
  std::vector<at::Tensor> parts;
  for (std::int64_t at = first; at < last;) {
    const std::int64_t block = at / kStateBlock, end = std::min(last, (block + 1) * kStateBlock);
    parts.push_back(view(block, at - block * kStateBlock, end - block * kStateBlock));
    at = end;
  }
  if (parts.size() == 1) return parts[0];
  if (!parts.empty()) return at::cat(parts);
  std::vector<std::int64_t> none = {0};
  none.insert(none.end(), shape_.begin(), shape_.end());
  return at::empty(none);
}

void RowBuffer::truncate(std::int64_t length) {
  if (length >= length_) return;
  length_ = length;
  const auto kept = static_cast<std::size_t>((length + kStateBlock - 1) / kStateBlock);
  blocks_.resize(kept);
  starts_.resize(kept);
}

RowBuffer RowBuffer::fork() const {
  RowBuffer other(pool_);
  other.form_ = form_, other.shape_ = shape_, other.width_ = width_, other.length_ = length_;
  other.blocks_ = blocks_, other.starts_ = starts_;
  return other;
}

ModuleState::ModuleState(const ModuleLayout& layout, const std::shared_ptr<BlockPool>& pool) {
  for (const StateTensor& spec : layout) {
    Slot slot{spec, {}, RowBuffer(pool)};
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

SequenceState::Extended ModuleState::extend(std::int64_t index, std::int64_t count, std::int64_t width,
                                            const std::shared_ptr<const RowForm>& form) {
  Slot& target = slot(index, true);
  if (c10::multiply_integers(target.spec.shape) != width)
    throw Error(Code::plugin, "state", target.spec.name + ": appended rows have another width than the layout says");
  const std::int64_t before = target.rows.length();
  return {target.rows.extend(count, target.spec.shape, form), before};
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

at::Tensor ModuleState::value(std::size_t slot) const {
  return slots_[slot].spec.per_position ? rows(static_cast<std::int64_t>(slot)) : slots_[slot].value;
}

void ModuleState::restore(std::int64_t first, std::int64_t done, const std::vector<at::Tensor>& values) {
  restart(first);
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].spec.per_position)
      slots_[i].rows.append(values[i]);
    else
      slots_[i].value.copy_(values[i]);
  }
  done_ = done;
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
  if (length < scored) scores_RE = at::Tensor(), scored = 0;
}

Sequence Sequence::fork() const {
  Sequence copy{trunk.fork(), head.fork(), {}, h.fork(), base.fork(), policy, excluded};
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
