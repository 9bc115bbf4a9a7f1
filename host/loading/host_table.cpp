// The host's services to plugins, as the C table of tenon/plugin.h. Nothing here throws across the boundary.
#include "host/loading/native.hpp"
#include "host/model/random.hpp"
#include "kernels/threads.hpp"

#include <boost/json/value.hpp>

#include <cstdio>

namespace tenon {
namespace {

const json::value* find(const tenon_values* values, const char* pointer) {
  boost::system::error_code error;
  return reinterpret_cast<const json::value*>(values)->find_pointer(pointer, error);
}

void log(tenon_log_level level, tenon_text text) {
  if (level == TENON_LOG_DEBUG) return;
  std::fprintf(stderr, "plugin: %.*s\n", static_cast<int>(text.size), text.data);
}

void normal(std::uint64_t seed, tenon_text name, float* out, std::uint64_t count) {
  RandomStream(seed, std::string_view(name.data, name.size)).normal({out, count});
}

void parallel_for(std::uint64_t count, std::uint64_t grain, void (*task)(void*, std::uint64_t, std::uint64_t),
                  void* context) {
  tenon::parallel_for(0, static_cast<std::int64_t>(count), static_cast<std::int64_t>(grain),
                      [&](std::int64_t begin, std::int64_t end) { task(context, begin, end); });
}

tenon_status value_integer(const tenon_values* values, const char* pointer, std::int64_t* out) {
  const json::value* value = find(values, pointer);
  if (!value || !value->is_int64()) return TENON_BAD_CONFIG;
  *out = value->get_int64();
  return TENON_OK;
}

tenon_status value_number(const tenon_values* values, const char* pointer, double* out) {
  const json::value* value = find(values, pointer);
  if (!value || !value->is_number()) return TENON_BAD_CONFIG;
  *out = value->to_number<double>();
  return TENON_OK;
}

tenon_status value_boolean(const tenon_values* values, const char* pointer, int* out) {
  const json::value* value = find(values, pointer);
  if (!value || !value->is_bool()) return TENON_BAD_CONFIG;
  *out = value->get_bool() ? 1 : 0;
  return TENON_OK;
}

tenon_status value_text(const tenon_values* values, const char* pointer, tenon_text* out) {
  const json::value* value = find(values, pointer);
  if (!value || !value->is_string()) return TENON_BAD_CONFIG;
  *out = {value->get_string().data(), value->get_string().size()};
  return TENON_OK;
}

tenon_status value_count(const tenon_values* values, const char* pointer, std::uint64_t* out) {
  const json::value* value = find(values, pointer);
  if (value && value->is_array())
    *out = value->get_array().size();
  else if (value && value->is_object())
    *out = value->get_object().size();
  else
    return TENON_BAD_CONFIG;
  return TENON_OK;
}

template <class Body>
tenon_status guarded(Body&& body) noexcept {
  try {
    body();
    return TENON_OK;
  } catch (const std::bad_alloc&) {
    return TENON_NO_MEMORY;
  } catch (...) {
    return TENON_BAD_ARGUMENT;
  }
}

tenon_status state_fixed(tenon_state* state, std::uint32_t slot, tenon_tensor_out out) {
  return guarded([&] { *static_cast<at::Tensor*>(out) = from_handle(state)->fixed(slot); });
}

tenon_status state_append(tenon_state* state, std::uint32_t slot, tenon_tensor rows) {
  return guarded([&] { from_handle(state)->append(slot, *static_cast<const at::Tensor*>(rows)); });
}

tenon_status state_rows(tenon_state* state, std::uint32_t slot, tenon_tensor_out out) {
  return guarded([&] { *static_cast<at::Tensor*>(out) = from_handle(state)->rows(slot); });
}

const void* extension(const char*) { return nullptr; }

} // namespace

const tenon_host* host_table() {
  static const tenon_host table = {sizeof(tenon_host), TENON_ABI_MAJOR, TENON_ABI_MINOR, log,           normal,
                                   parallel_for,       value_integer,   value_number,    value_boolean, value_text,
                                   value_count,        state_fixed,     state_append,    state_rows,    extension};
  return &table;
}

} // namespace tenon
