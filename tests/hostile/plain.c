/* A plugin in plain C that loads, and by one -D each, the ways in which it should not. It computes nothing. */
#include <tenon/plugin.h>

#ifndef BUILT_MINOR
#define BUILT_MINOR TENON_ABI_MINOR
#endif

static tenon_status create(const tenon_setup* setup, tenon_expert** out, tenon_message* message) {
  return TENON_FAILED;
}
static void destroy(tenon_expert* expert) {}
static tenon_status parameters(tenon_expert* expert, void (*visit)(void*, const tenon_parameter*), void* context,
                               tenon_message* message) {
  return TENON_OK;
}
static tenon_status state_layout(tenon_expert* expert, void (*visit)(void*, const tenon_state_tensor*), void* context,
                                 tenon_message* message) {
  return TENON_OK;
}
static tenon_status initialize(tenon_expert* expert, uint64_t seed, tenon_message* message) { return TENON_OK; }
static tenon_status bind(tenon_expert* expert, const char* name, tenon_tensor tensor, tenon_message* message) {
  return TENON_BAD_ARGUMENT;
}
static tenon_status prepare(tenon_expert* expert, tenon_mode mode, tenon_message* message) { return TENON_OK; }
static tenon_status forward(tenon_expert* expert, const tenon_input* in, tenon_tensor_out y, void** tape,
                            tenon_message* message) {
  return TENON_FAILED;
}

#ifdef REGISTERS
extern void register_def(void) __asm__("_ZN3c1010Dispatcher11registerDefENS_14FunctionSchemaE");
void (*const keep_registration)(void) __attribute__((used)) = register_def;
#endif
#ifdef UNDEFINED
extern void missing(void) __asm__("a_symbol_that_nobody_has");
void (*const keep_missing)(void) __attribute__((used)) = missing;
#endif
#ifdef SECOND_EXPORT
TENON_EXPORT int second_export(void) { return 1; }
#endif

static const tenon_expert_table experts = {sizeof experts,
                                           0,
                                           create,
                                           destroy,
                                           parameters,
                                           state_layout,
                                           initialize,
                                           bind,
                                           prepare,
#ifdef EMPTY_FUNCTION
                                           0,
#else
                                           forward,
#endif
                                           0,
                                           0};

static tenon_status init(const tenon_host* host, tenon_message* message) {
#ifdef INIT_FAILS
  const char text[] = "no licence found";
  message->size = sizeof text - 1;
  for (uint64_t i = 0; i < message->size; ++i) message->data[i] = text[i];
  return TENON_FAILED;
#endif
  return TENON_OK;
}

static const void* extension(const char* id) {
#ifdef NO_TIER
  return 0;
#else
  return &experts;
#endif
}

static const tenon_plugin plugin = {sizeof plugin, TENON_ABI_MAJOR, BUILT_MINOR, TENON_ABI_MAJOR, 0, init, extension};

#ifdef NO_ENTRY
TENON_EXPORT const tenon_plugin* tenon_another_entry(void) { return &plugin; }
#else
TENON_EXPORT const tenon_plugin* tenon_plugin_entry(void) { return &plugin; }
#endif
