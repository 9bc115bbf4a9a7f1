#include "host/execution/experts.hpp"

#include "kernels/packed_operators.hpp"

namespace tenon {

Experts::Experts(std::vector<std::shared_ptr<LoadedExpert>> slots, bool strict, Say say)
    : work(slots.size()),
      slots_(std::move(slots)),
      masked_(slots_.size(), false),
      strict_(strict),
      say_(std::move(say)) {
  for (const auto& expert : slots_) keep_base_ = keep_base_ || expert->uses_base_output();
}

bool Experts::runs_with_base(std::size_t slot) const {
  const auto &base = slots_[0]->run(), &other = slots_[slot]->run();
  return base && other && share_weights(*base->blocks, *other->blocks);
}

void Experts::fault(std::size_t slot, const Error& error) {
  if (strict_ || slot == 0) throw error;
  masked_[slot] = true;
  if (say_) say_(slots_[slot]->title() + " is masked from here on, its strength goes to the base: " + error.message);
}

Work Experts::total_work() const {
  Work total;
  for (const Work& one : work) total += one;
  return total;
}

} // namespace tenon
