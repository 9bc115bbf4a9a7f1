// No test code: compiling it is the check. What stands here is frozen; tables grow only at their end, and then lines
// are added here, never changed.
#include <tenon/plugin.h>

#include <cstddef>

#define FROZEN(type, member, offset) \
  static_assert(offsetof(type, member) == offset, "frozen layout of " #type "::" #member " changed")

static_assert(sizeof(void*) == 8, "written for 64-bit machines");
static_assert(TENON_ABI_MAJOR == 1, "a new major is a new file of frozen layouts");

static_assert(TENON_OK == 0 && TENON_BAD_ARGUMENT == 1 && TENON_BAD_CONFIG == 2 && TENON_BAD_TENSOR == 3 &&
              TENON_NO_MEMORY == 4 && TENON_FAILED == 5);
static_assert(TENON_LOG_DEBUG == 0 && TENON_LOG_INFO == 1 && TENON_LOG_WARNING == 2);
static_assert(TENON_PARAMETER_TRAINABLE == 1 && TENON_STATE_FIXED == 0 && TENON_STATE_PER_POSITION == 1);
static_assert(TENON_INFERENCE == 0 && TENON_TRAINING == 1);

FROZEN(tenon_text, data, 0);
FROZEN(tenon_text, size, 8);
FROZEN(tenon_message, data, 0);
FROZEN(tenon_message, capacity, 8);
FROZEN(tenon_message, size, 16);

FROZEN(tenon_host, struct_size, 0);
FROZEN(tenon_host, abi_major, 4);
FROZEN(tenon_host, abi_minor, 6);
FROZEN(tenon_host, log, 8);
FROZEN(tenon_host, normal, 16);
FROZEN(tenon_host, parallel_for, 24);
FROZEN(tenon_host, value_integer, 32);
FROZEN(tenon_host, value_number, 40);
FROZEN(tenon_host, value_boolean, 48);
FROZEN(tenon_host, value_text, 56);
FROZEN(tenon_host, value_count, 64);
FROZEN(tenon_host, state_fixed, 72);
FROZEN(tenon_host, state_append, 80);
FROZEN(tenon_host, state_rows, 88);
FROZEN(tenon_host, extension, 96);

FROZEN(tenon_setup, struct_size, 0);
FROZEN(tenon_setup, architecture, 8);
FROZEN(tenon_setup, values, 16);
FROZEN(tenon_setup, h_mean_C, 24);
FROZEN(tenon_setup, h_deviation_C, 32);

FROZEN(tenon_parameter, struct_size, 0);
FROZEN(tenon_parameter, flags, 4);
FROZEN(tenon_parameter, name, 8);
FROZEN(tenon_parameter, shared, 16);
FROZEN(tenon_parameter, tensor, 24);

FROZEN(tenon_state_tensor, struct_size, 0);
FROZEN(tenon_state_tensor, kind, 4);
FROZEN(tenon_state_tensor, name, 8);
FROZEN(tenon_state_tensor, rank, 16);
FROZEN(tenon_state_tensor, shape, 24);

// Passed in arrays: its size is frozen too.
static_assert(sizeof(tenon_span) == 32, "frozen size of tenon_span changed");
FROZEN(tenon_span, offset, 0);
FROZEN(tenon_span, length, 8);
FROZEN(tenon_span, position, 16);
FROZEN(tenon_span, state, 24);

FROZEN(tenon_input, struct_size, 0);
FROZEN(tenon_input, span_count, 4);
FROZEN(tenon_input, h_NC, 8);
FROZEN(tenon_input, base_NC, 16);
FROZEN(tenon_input, spans, 24);

FROZEN(tenon_gradients, struct_size, 0);
FROZEN(tenon_gradients, parameter_count, 4);
FROZEN(tenon_gradients, h_NC, 8);
FROZEN(tenon_gradients, base_NC, 16);
FROZEN(tenon_gradients, parameters, 24);

FROZEN(tenon_expert_table, struct_size, 0);
FROZEN(tenon_expert_table, create, 8);
FROZEN(tenon_expert_table, destroy, 16);
FROZEN(tenon_expert_table, parameters, 24);
FROZEN(tenon_expert_table, state_layout, 32);
FROZEN(tenon_expert_table, initialize, 40);
FROZEN(tenon_expert_table, bind, 48);
FROZEN(tenon_expert_table, prepare, 56);
FROZEN(tenon_expert_table, forward, 64);
FROZEN(tenon_expert_table, vjp, 72);
FROZEN(tenon_expert_table, release_tape, 80);

FROZEN(tenon_observation, struct_size, 0);
FROZEN(tenon_observation, h_NC, 8);
FROZEN(tenon_observation, base_NC, 16);
FROZEN(tenon_observation, gradient_NC, 24);
FROZEN(tenon_observation, targets_N, 32);

FROZEN(tenon_pass_table, struct_size, 0);
FROZEN(tenon_pass_table, begin, 8);
FROZEN(tenon_pass_table, observe, 16);
FROZEN(tenon_pass_table, finish, 24);
FROZEN(tenon_pass_table, scale, 32);

FROZEN(tenon_plugin, struct_size, 0);
FROZEN(tenon_plugin, abi_major, 4);
FROZEN(tenon_plugin, abi_minor, 6);
FROZEN(tenon_plugin, needs_abi_major, 8);
FROZEN(tenon_plugin, needs_abi_minor, 10);
FROZEN(tenon_plugin, init, 16);
FROZEN(tenon_plugin, extension, 24);
