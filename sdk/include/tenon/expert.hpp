// tenon::Expert: what the author of a native expert derives from. Compiled into the plugin and private to it.
//
//   class Mine : public tenon::Expert {
//    public:
//     explicit Mine(const tenon::Setup& setup) : Expert(setup) { ... register_module ... }
//     tenon::Tensor forward(const tenon::Input& in) override { return in.base_NC + ...; }
//   };
//   TENON_PLUGIN(tenon::architecture<Mine>("acme.mine"))
//
// Shapes: N rows (positions of all sequences, packed), B batch, T positions, C model width.
// Thread: one call at a time per expert.
#pragma once

#include <ATen/ATen.h>
#include <torch/nn/module.h>
#include <tenon/host.hpp>

#include <map>
#include <string>
#include <vector>

namespace tenon {

using at::Tensor;
using Span = tenon_span;

// What one sequence remembers for one expert. Owned, paged, forked, truncated and saved by the host. Slots are numbered
// in the order of state_layout(). Borrowed for one forward call.
class State {
 public:
  explicit State(tenon_state* raw) : raw_(raw) {}
  explicit operator bool() const { return raw_ != nullptr; }

  Tensor fixed(std::uint32_t slot) const { return get(host().state_fixed, slot); } // read and written in place
  Tensor rows(std::uint32_t slot) const { return get(host().state_rows, slot); }   // (length, ...)
  void append(std::uint32_t slot, const Tensor& rows) const { check(host().state_append(raw_, slot, &rows), slot); }

 private:
  Tensor get(tenon_status (*call)(tenon_state*, std::uint32_t, tenon_tensor_out), std::uint32_t slot) const {
    Tensor out;
    check(call(raw_, slot, &out), slot);
    return out;
  }
  static void check(tenon_status status, std::uint32_t slot) {
    const std::string name = "state slot " + std::to_string(slot);
    if (status == TENON_NO_MEMORY) throw Failure(status, "there is no memory left for " + name);
    if (status != TENON_OK) throw Failure(status, name + " is not in state_layout() in that form");
  }
  tenon_state* raw_;
};

// The named tensors of a state, float32.
class StateLayout {
 public:
  struct Entry {
    std::string name;
    std::uint32_t kind;
    std::vector<std::int64_t> shape;
  };

  // One tensor of this shape a sequence, zero at first. Returns its slot.
  std::uint32_t fixed(std::string name, std::vector<std::int64_t> shape) {
    return add({std::move(name), TENON_STATE_FIXED, std::move(shape)});
  }
  // One row of this shape a position. Returns its slot.
  std::uint32_t per_position(std::string name, std::vector<std::int64_t> shape) {
    return add({std::move(name), TENON_STATE_PER_POSITION, std::move(shape)});
  }
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::uint32_t add(Entry entry) {
    entries_.push_back(std::move(entry));
    return static_cast<std::uint32_t>(entries_.size() - 1);
  }
  std::vector<Entry> entries_;
};

// The rows of one call. Borrowed for the call.
struct Input {
  Tensor h_NC;               // residual stream at the lower cut, rows of all sequences packed
  Tensor base_NC;            // what the base says for the same rows; defined only with `uses: base.output`
  c10::ArrayRef<Span> spans; // per sequence: rows [offset, offset+length), first position, state (null: whole sequence)

  // Requires: all spans have one length and no state.
  Tensor h_BTC() const { return batched(h_NC); }
  Tensor base_BTC() const { return batched(base_NC); }

  bool uniform() const {
    for (const Span& span : spans)
      if (span.length != spans[0].length || span.state) return false;
    return !spans.empty();
  }

 private:
  Tensor batched(const Tensor& rows) const {
    if (!uniform()) throw Failure(TENON_BAD_ARGUMENT, "h_BTC() needs spans of one length and no state");
    return rows.view({static_cast<std::int64_t>(spans.size()), spans[0].length, rows.size(-1)});
  }
};

// What a new expert is told.
struct Setup {
  Config config; // the expert's own
  Config model;  // {"width", "first", "last", "dtype"}
  Config base;   // {"architecture", "config"}
  Tensor h_mean_C, h_deviation_C;
};

// Numbers at birth, each stream its own, none depending on another.
class Random {
 public:
  explicit Random(std::uint64_t seed) : seed_(seed) {}
  // Fills a contiguous float32 tensor with N(0, deviation^2) of the stream `name`.
  void normal(const std::string& name, Tensor& tensor, double deviation) const {
    at::NoGradGuard no_grad;
    host().normal(seed_, {name.data(), name.size()}, tensor.data_ptr<float>(),
                  static_cast<std::uint64_t>(tensor.numel()));
    tensor.mul_(deviation);
  }

 private:
  std::uint64_t seed_;
};

class Expert : public torch::nn::Module {
 public:
  explicit Expert(const Setup& setup) : h_mean_C_(setup.h_mean_C), h_deviation_C_(setup.h_deviation_C) {}

  // y_NC for in.h_NC. forward(whole) == forward in any split, within the dtype's tolerance.
  virtual Tensor forward(const Input& in) = 0;
  virtual StateLayout state_layout() const { return {}; }

  // Values at birth. By default: matrices N(0, 1/fan-in), vectors named "bias" 0, other vectors 1.
  virtual void initialize(const Random& random) {
    for (auto& item : named_parameters())
      if (!shared_.count(item.key())) birth(random, item.key(), item.value());
  }

  const std::map<std::string, std::string>& shared() const { return shared_; }

 protected:
  // n(h) = (h - mean) / deviation per channel, over the model's general text.
  Tensor normalize(const Tensor& h_NC) const { return (h_NC - h_mean_C_) / h_deviation_C_; }

  // The parameter uses the base's tensor, read-only: no copy, no gradient, nothing stored in the package.
  void share(const std::string& parameter, const std::string& base_tensor) {
    named_parameters()[parameter].set_requires_grad(false);
    shared_[parameter] = base_tensor;
  }

 private:
  static void birth(const Random& random, const std::string& name, Tensor& value) {
    at::NoGradGuard no_grad;
    const bool bias = name == "bias" || (name.size() > 5 && name.compare(name.size() - 5, 5, ".bias") == 0);
    if (value.dim() < 2)
      value.fill_(bias ? 0.0 : 1.0);
    else
      random.normal(name, value, 1.0 / std::sqrt(static_cast<double>(value.numel() / value.size(0))));
  }

  Tensor h_mean_C_, h_deviation_C_;
  std::map<std::string, std::string> shared_;
};

} // namespace tenon
