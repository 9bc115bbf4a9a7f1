// TENON_PLUGIN: turns classes derived from tenon::Expert into the C table "tenon.native/1".
// Include it in exactly one source file of the plugin. Every thunk is noexcept: an exception becomes a status and a
// text.
#pragma once

#include <tenon/pass.hpp>
#include <tenon/run.hpp>

#include <cstring>
#include <memory>
#include <type_traits>

namespace tenon {

struct Architecture {
  const char* name;
  std::shared_ptr<Expert> (*make)(const Setup&);
};

// The architecture `name`, made of class E, which is constructible from a Setup.
template <class E>
Architecture architecture(const char* name) {
  static_assert(std::is_base_of_v<Expert, E>, "an architecture's class derives from tenon::Expert");
  static_assert(!std::is_abstract_v<E>, "an architecture's class computes: override forward(const tenon::Input&)");
  static_assert(std::is_constructible_v<E, const Setup&>, "an architecture's class is made from const tenon::Setup&");
  return {name, [](const Setup& setup) -> std::shared_ptr<Expert> { return std::make_shared<E>(setup); }};
}

namespace native {

struct Handle {
  std::shared_ptr<Expert> expert;
};

inline Expert& expert(tenon_expert* handle) { return *reinterpret_cast<Handle*>(handle)->expert; }
inline const Tensor& tensor(tenon_tensor raw) { return *static_cast<const Tensor*>(raw); }

inline void say(tenon_message* message, const char* text) noexcept {
  if (!message || !message->data) return;
  const std::uint64_t size = std::strlen(text);
  message->size = size < message->capacity ? size : message->capacity;
  std::memcpy(message->data, text, message->size);
}

template <class Body>
tenon_status guarded(tenon_message* message, Body&& body) noexcept {
  try {
    body();
    return TENON_OK;
  } catch (const Failure& failure) {
    say(message, failure.what());
    return failure.status;
  } catch (const std::bad_alloc&) {
    say(message, "out of memory");
    return TENON_NO_MEMORY;
  } catch (const c10::Error& error) {
    say(message, error.what_without_backtrace());
    // LibTorch has no type of its own for this.
    return std::strstr(error.what_without_backtrace(), "can't allocate memory") ? TENON_NO_MEMORY : TENON_FAILED;
  } catch (const std::exception& error) {
    say(message, error.what());
    return TENON_FAILED;
  } catch (...) {
    say(message, "threw something that is no std::exception");
    return TENON_FAILED;
  }
}

template <const Architecture* (*architectures)(std::size_t*)>
tenon_status create(const tenon_setup* in, tenon_expert** out, tenon_message* message) {
  return guarded(message, [&] {
    std::size_t count = 0;
    const Architecture* all = architectures(&count);
    for (std::size_t i = 0; i < count; ++i) {
      if (std::strcmp(all[i].name, in->architecture) != 0) continue;
      const Setup setup{Config(in->values, "/config"), Config(in->values, "/model"), Config(in->values, "/base"),
                        tensor(in->h_mean_C), tensor(in->h_deviation_C)};
      *out = reinterpret_cast<tenon_expert*>(new Handle{all[i].make(setup)});
      return;
    }
    throw Failure(TENON_BAD_ARGUMENT, std::string("this plugin has no architecture ") + in->architecture);
  });
}

inline void destroy(tenon_expert* handle) { delete reinterpret_cast<Handle*>(handle); }

inline tenon_status parameters(tenon_expert* handle, void (*visit)(void*, const tenon_parameter*), void* context,
                               tenon_message* message) {
  return guarded(message, [&] {
    for (auto& item : expert(handle).named_parameters()) {
      const auto found = expert(handle).shared().find(item.key());
      const bool shared = found != expert(handle).shared().end();
      tenon_parameter parameter{};
      parameter.struct_size = sizeof parameter;
      parameter.flags = item.value().requires_grad() ? TENON_PARAMETER_TRAINABLE : 0;
      parameter.name = item.key().c_str();
      parameter.shared = shared ? found->second.c_str() : nullptr;
      parameter.tensor = &item.value();
      visit(context, &parameter);
    }
  });
}

inline tenon_status state_layout(tenon_expert* handle, void (*visit)(void*, const tenon_state_tensor*), void* context,
                                 tenon_message* message) {
  return guarded(message, [&] {
    const StateLayout layout = expert(handle).state_layout();
    for (const StateLayout::Entry& entry : layout.entries()) {
      const tenon_state_tensor out{sizeof out, entry.kind, entry.name.c_str(),
                                   static_cast<std::uint32_t>(entry.shape.size()), entry.shape.data()};
      visit(context, &out);
    }
  });
}

inline tenon_status initialize(tenon_expert* handle, std::uint64_t seed, tenon_message* message) {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    expert(handle).initialize(Random(seed));
  });
}

inline tenon_status bind(tenon_expert* handle, const char* name, tenon_tensor raw, tenon_message* message) {
  return guarded(message, [&] {
    auto parameters = expert(handle).named_parameters();
    Tensor* parameter = parameters.find(name);
    if (!parameter) throw Failure(TENON_BAD_ARGUMENT, std::string("no parameter ") + name);
    const Tensor& value = tensor(raw);
    if (value.sizes() != parameter->sizes() || value.scalar_type() != parameter->scalar_type())
      throw Failure(TENON_BAD_TENSOR, std::string("parameter ") + name + " has another shape or type");
    parameter->set_data(value);
  });
}

inline tenon_status prepare(tenon_expert* handle, tenon_mode mode, tenon_message* message) {
  return guarded(message, [&] { expert(handle).train(mode == TENON_TRAINING); });
}

inline tenon_status forward(tenon_expert* handle, const tenon_input* in, tenon_tensor_out y, void**,
                            tenon_message* message) {
  return guarded(message, [&] {
    const Input input{tensor(in->h_NC), in->base_NC ? tensor(in->base_NC) : Tensor(), {in->spans, in->span_count}};
    *static_cast<Tensor*>(y) = expert(handle).forward(input);
  });
}

inline PassExpert& pass_expert(tenon_expert* handle) {
  if (auto* expert = dynamic_cast<PassExpert*>(&native::expert(handle))) return *expert;
  throw Failure(TENON_BAD_ARGUMENT, "this architecture does not learn in a pass: derive it from tenon::PassExpert");
}

template <class Body>
tenon_status pass_step(tenon_expert* handle, tenon_message* message, Body&& body) noexcept {
  return guarded(message, [&] {
    at::NoGradGuard no_grad;
    body(pass_expert(handle));
  });
}

inline tenon_status begin(tenon_expert* handle, std::uint64_t seed, std::uint64_t positions, tenon_message* message) {
  return pass_step(handle, message,
                   [&](PassExpert& expert) { expert.begin(seed, static_cast<std::int64_t>(positions)); });
}

inline tenon_status observe(tenon_expert* handle, const tenon_observation* in, tenon_message* message) {
  return pass_step(handle, message, [&](PassExpert& expert) {
    expert.observe({tensor(in->h_NC), tensor(in->base_NC), tensor(in->gradient_NC), tensor(in->targets_N)});
  });
}

inline tenon_status finish(tenon_expert* handle, tenon_message* message) {
  return pass_step(handle, message, [](PassExpert& expert) { expert.finish(); });
}

inline tenon_status scale(tenon_expert* handle, double factor, tenon_message* message) {
  return pass_step(handle, message, [&](PassExpert& expert) { expert.scale(factor); });
}

inline const tenon_pass_table* pass_table() {
  static const tenon_pass_table table = {sizeof table, 0, begin, observe, finish, scale};
  return &table;
}

inline tenon_status run(tenon_expert* handle, void* blocks, std::uint32_t* slot, tenon_message* message) {
  return guarded(message, [&] {
    auto* expert = dynamic_cast<RunExpert*>(&native::expert(handle));
    const std::optional<Run> found = expert ? expert->run() : std::nullopt;
    if (!found) return;
    *static_cast<Packed*>(blocks) = found->blocks;
    *slot = found->slot;
  });
}

inline const tenon_run_table* run_table() {
  static const tenon_run_table table = {sizeof table, 0, run};
  return &table;
}

inline tenon_status init(const tenon_host* table, tenon_message* message) {
  return guarded(message, [&] {
    if (!table || table->struct_size < sizeof(tenon_host))
      throw Failure(TENON_BAD_ARGUMENT, "the host's table is older than this plugin needs");
    detail::host = table;
  });
}

} // namespace native
} // namespace tenon

#define TENON_PLUGIN(...)                                                                                          \
  namespace {                                                                                                      \
  const tenon::Architecture* tenon_architectures(std::size_t* count) {                                             \
    static const tenon::Architecture all[] = {__VA_ARGS__};                                                        \
    *count = sizeof all / sizeof all[0];                                                                           \
    return all;                                                                                                    \
  }                                                                                                                \
  const void* tenon_extension(const char* id) {                                                                    \
    static const tenon_expert_table table = {sizeof table,                                                         \
                                             0,                                                                    \
                                             tenon::native::create<tenon_architectures>,                           \
                                             tenon::native::destroy,                                               \
                                             tenon::native::parameters,                                            \
                                             tenon::native::state_layout,                                          \
                                             tenon::native::initialize,                                            \
                                             tenon::native::bind,                                                  \
                                             tenon::native::prepare,                                               \
                                             tenon::native::forward,                                               \
                                             nullptr,                                                              \
                                             nullptr};                                                             \
    if (std::strcmp(id, "tenon.pass/1") == 0) return tenon::native::pass_table();                                  \
    if (std::strcmp(id, "tenon.run/1") == 0) return tenon::native::run_table();                                    \
    return std::strcmp(id, "tenon.native/1") == 0 ? &table : nullptr;                                              \
  }                                                                                                                \
  }                                                                                                                \
  extern "C" TENON_EXPORT const tenon_plugin* tenon_plugin_entry(void) {                                           \
    static const tenon_plugin plugin = {sizeof plugin,       TENON_ABI_MAJOR, TENON_ABI_MINOR, TENON_ABI_MAJOR, 0, \
                                        tenon::native::init, tenon_extension};                                     \
    return &plugin;                                                                                                \
  }                                                                                                                \
  static_assert(true)
