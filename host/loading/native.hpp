// An expert behind the boundary: the host's side of "tenon.native/1".
//
// Owns the plugin's object and the values it reads; borrows nothing. Whatever a plugin does wrong (a status, a wrong
// shape or type) becomes an Error with code plugin that names the expert.
// Thread: one call at a time per LoadedExpert. The library behind it is never unloaded.
#pragma once

#include "host/loading/facts.hpp"
#include "host/model/state.hpp"
#include "kernels/packed.hpp"
#include "registry/base/json.hpp"

#include <ATen/core/Tensor.h>
#include <tenon/plugin.h>

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace tenon {

// The table every plugin is given.
const tenon_host* host_table();

struct ExpertSpec {
  std::string title;        // for messages: "legal 1.0.0"
  std::string architecture; // "tenon.low_rank"
  json::value values;       // {"config", "model", "base"}, see tenon_setup
  at::Tensor h_mean_C, h_deviation_C;
  ExpertContext context;
  bool uses_base_output = false;
};

// Rows of one sequence, its first and last position left out; see tenon_observation.
struct ObservedRows {
  at::Tensor h_NC, base_NC, gradient_NC, targets_N;
};

struct ExpertParameter {
  std::string name;
  std::optional<std::string> shared; // the base's tensor of this name
  bool trainable = false;
  at::Tensor tensor;
};

class LoadedExpert {
 public:
  // Errors: plugin (it threw, or lacks the table), incompatible (the configuration cannot be built from).
  LoadedExpert(const tenon_plugin* plugin, ExpertSpec spec);
  LoadedExpert(const LoadedExpert&) = delete;
  ~LoadedExpert();

  const std::string& title() const { return spec_.title; }
  const ExpertContext& context() const { return spec_.context; }
  bool uses_base_output() const { return spec_.uses_base_output; }

  std::vector<ExpertParameter> parameters() const;
  void initialize(std::uint64_t seed);
  // The parameter then lives in this tensor's memory, which the expert keeps alive.
  void bind(const std::string& name, const at::Tensor& tensor);
  void prepare(tenon_mode mode);
  // The run of blocks that the expert is, prepared for inference; "tenon.run/1". nullopt: it is something else.
  struct Run {
    PackedPointer blocks;
    std::int64_t slot;
  };
  const std::optional<Run>& run() const { return run_; }
  const ModuleLayout& layout() const { return layout_; }
  // Numbers, of float32's size, that a sequence keeps of each position.
  std::int64_t kept_numbers() const;

  // y (N,C) float32, checked for shape and type; not for finite values.
  at::Tensor forward(const at::Tensor& h_NC, const at::Tensor& base_NC, std::span<const tenon_span> spans) const;

  // Learning in a pass, in this order; "tenon.pass/1". Errors: plugin (it threw, or lacks the table).
  void begin_pass(std::uint64_t seed, std::int64_t positions);
  void observe(const ObservedRows& seen);
  void finish_pass();
  void scale_correction(double factor);

 private:
  const tenon_pass_table& pass() const;
  template <class Call>
  void checked(const char* what, Call&& call) const;
  ModuleLayout read_layout() const;
  std::optional<Run> read_run() const;

  ExpertSpec spec_;
  const tenon_expert_table* table_ = nullptr;
  const tenon_pass_table* pass_ = nullptr; // none where the plugin lacks it
  const tenon_run_table* runs_ = nullptr;  // likewise
  tenon_expert* expert_ = nullptr;
  ModuleLayout layout_;
  std::optional<Run> run_;
};

} // namespace tenon
