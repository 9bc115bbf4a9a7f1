#include "host/loading/native.hpp"

#include "kernels/packed_operators.hpp"
#include "registry/base/error.hpp"

#include <ATen/ATen.h>

namespace tenon {
namespace {

Code code_of(tenon_status status) {
  switch (status) {
    case TENON_BAD_CONFIG: return Code::incompatible;
    case TENON_BAD_TENSOR: return Code::integrity;
    case TENON_NO_MEMORY: return Code::environment;
    default: return Code::plugin;
  }
}

const char* remedy_for(tenon_status status) {
  switch (status) {
    case TENON_BAD_CONFIG: return "change its configuration; tenon show PLUGIN says what it can be told";
    case TENON_BAD_TENSOR: return "take a sound copy of the expert, or make it again";
    case TENON_NO_MEMORY: return "make the expert smaller, or give it more memory";
    default: return "tell its author; tenon compose without it leaves the rest as it is";
  }
}

std::string shape_text(const at::Tensor& tensor) {
  std::string text = "(";
  for (std::int64_t i = 0; i < tensor.dim(); ++i) text += (i ? ", " : "") + std::to_string(tensor.size(i));
  return text + ") " + c10::toString(tensor.scalar_type());
}

} // namespace

// Are the keys and values of a run's blocks in these slots of the state?
bool keeps(const ModuleLayout& layout, const PackedHandle& run, std::size_t slot) {
  if (run.blocks.empty() || layout.size() < slot + 2 * run.blocks.size()) return false;
  for (std::size_t i = 0; i < 2 * run.blocks.size(); ++i) {
    const StateTensor& kept = layout[slot + i];
    const PackedBlock& block = run.blocks[i / 2];
    if (!kept.per_position || c10::multiply_integers(kept.shape) != block.kv_heads * block.head_dim) return false;
  }
  return true;
}

// Every call has its own message buffer on the stack, so that failures on several threads do not mix.
template <class Call>
void LoadedExpert::checked(const char* what, Call&& call) const {
  char text[1024];
  tenon_message message{text, sizeof text, 0};
  const tenon_status status = call(&message);
  if (status == TENON_OK) return;
  const std::string reason = message.size ? std::string(text, message.size) : "no reason given";
  throw Error(code_of(status), spec_.title, std::string(spec_.architecture) + " failed in " + what + ": " + reason,
              remedy_for(status));
}

LoadedExpert::LoadedExpert(const tenon_plugin* plugin, ExpertSpec spec) : spec_(std::move(spec)) {
  table_ = static_cast<const tenon_expert_table*>(plugin->extension("tenon.native/1"));
  if (!table_ || table_->struct_size < sizeof(tenon_expert_table))
    throw Error(Code::plugin, spec_.title, "the plugin offers no tenon.native/1", "rebuild it with this SDK");
  pass_ = static_cast<const tenon_pass_table*>(plugin->extension("tenon.pass/1"));
  runs_ = static_cast<const tenon_run_table*>(plugin->extension("tenon.run/1"));
  tenon_setup setup{};
  setup.struct_size = sizeof setup;
  setup.architecture = spec_.architecture.c_str();
  setup.values = reinterpret_cast<const tenon_values*>(&spec_.values);
  setup.h_mean_C = &spec_.h_mean_C;
  setup.h_deviation_C = &spec_.h_deviation_C;
  checked("create", [&](tenon_message* message) { return table_->create(&setup, &expert_, message); });
  if (!expert_) throw Error(Code::plugin, spec_.title, spec_.architecture + " made no expert in create");
  try {
    layout_ = read_layout();
  } catch (...) {
    table_->destroy(expert_);
    throw;
  }
}

LoadedExpert::~LoadedExpert() {
  run_.reset(); // borrows the expert's tensors
  table_->destroy(expert_);
}

ModuleLayout LoadedExpert::read_layout() const {
  ModuleLayout layout;
  checked("state_layout", [&](tenon_message* message) {
    return table_->state_layout(
        expert_,
        [](void* context, const tenon_state_tensor* tensor) {
          static_cast<ModuleLayout*>(context)->push_back(
              {tensor->name, tensor->kind == TENON_STATE_PER_POSITION, {tensor->shape, tensor->shape + tensor->rank}});
        },
        &layout, message);
  });
  return layout;
}

std::int64_t LoadedExpert::kept_numbers() const {
  if (run_) return tenon::kept_numbers(*run_->blocks);
  std::int64_t sum = 0;
  for (const StateTensor& kept : layout_)
    if (kept.per_position) sum += c10::multiply_integers(kept.shape);
  return sum;
}

std::vector<ExpertParameter> LoadedExpert::parameters() const {
  std::vector<ExpertParameter> out;
  checked("parameters", [&](tenon_message* message) {
    return table_->parameters(
        expert_,
        [](void* context, const tenon_parameter* parameter) {
          static_cast<std::vector<ExpertParameter>*>(context)->push_back(
              {parameter->name, parameter->shared ? std::optional<std::string>(parameter->shared) : std::nullopt,
               (parameter->flags & TENON_PARAMETER_TRAINABLE) != 0,
               *static_cast<const at::Tensor*>(parameter->tensor)});
        },
        &out, message);
  });
  return out;
}

void LoadedExpert::initialize(std::uint64_t seed) {
  checked("initialize", [&](tenon_message* message) { return table_->initialize(expert_, seed, message); });
}

void LoadedExpert::bind(const std::string& name, const at::Tensor& tensor) {
  checked("bind", [&](tenon_message* message) { return table_->bind(expert_, name.c_str(), &tensor, message); });
}

void LoadedExpert::prepare(tenon_mode mode) {
  run_.reset();
  checked("prepare", [&](tenon_message* message) { return table_->prepare(expert_, mode, message); });
  if (mode == TENON_INFERENCE) run_ = read_run();
}

std::optional<LoadedExpert::Run> LoadedExpert::read_run() const {
  if (!runs_ || runs_->struct_size < sizeof(tenon_run_table)) return std::nullopt;
  c10::IValue blocks;
  std::uint32_t slot = 0;
  checked("run", [&](tenon_message* message) { return runs_->run(expert_, &blocks, &slot, message); });
  if (blocks.isNone()) return std::nullopt;
  const auto handle = blocks.isObject() ? blocks.toCustomClass<PackedHandle>() : PackedPointer();
  if (!handle || !keeps(layout_, *handle, slot))
    throw Error(Code::plugin, spec_.title, "its run is no run of blocks whose keys and values stand in its state",
                "let run() return what forward() runs, and state_layout() what its add_state says");
  return Run{handle, slot};
}

const tenon_pass_table& LoadedExpert::pass() const {
  if (!pass_ || pass_->struct_size < sizeof(tenon_pass_table))
    throw Error(Code::plugin, spec_.title,
                "the plugin offers no tenon.pass/1, and its facts say that it learns in a pass",
                "rebuild it with this SDK, or correct its plugin.json");
  return *pass_;
}

void LoadedExpert::begin_pass(std::uint64_t seed, std::int64_t positions) {
  checked("begin", [&](tenon_message* message) {
    return pass().begin(expert_, seed, static_cast<std::uint64_t>(positions), message);
  });
}

void LoadedExpert::observe(const ObservedRows& seen) {
  const tenon_observation observation{sizeof observation, 0, &seen.h_NC, &seen.base_NC, &seen.gradient_NC,
                                      &seen.targets_N};
  checked("observe", [&](tenon_message* message) { return pass().observe(expert_, &observation, message); });
}

void LoadedExpert::finish_pass() {
  checked("finish", [&](tenon_message* message) { return pass().finish(expert_, message); });
}

void LoadedExpert::scale_correction(double factor) {
  checked("scale", [&](tenon_message* message) { return pass().scale(expert_, factor, message); });
}

at::Tensor LoadedExpert::forward(const at::Tensor& h_NC, const at::Tensor& base_NC,
                                 std::span<const tenon_span> spans) const {
  tenon_input in{};
  in.struct_size = sizeof in;
  in.span_count = static_cast<std::uint32_t>(spans.size());
  in.h_NC = &h_NC;
  in.base_NC = uses_base_output() ? &base_NC : nullptr;
  in.spans = spans.data();
  at::Tensor y_NC;
  checked("forward", [&](tenon_message* message) { return table_->forward(expert_, &in, &y_NC, nullptr, message); });
  if (!y_NC.defined() || y_NC.sizes() != h_NC.sizes() || y_NC.scalar_type() != at::kFloat)
    throw Error(Code::plugin, spec_.title,
                "forward returned " + (y_NC.defined() ? shape_text(y_NC) : "nothing") + ", need " + shape_text(h_NC));
  return y_NC;
}

} // namespace tenon
