/* The boundary between the host and a plugin: plain C, append-only tables, one exported function.
 *
 * A plugin exports tenon_plugin_entry() and nothing else. It returns a tenon_plugin; everything further is an
 * extension asked for by a revisioned id:
 *
 *   "tenon.native/1"    tenon_expert_table; a tensor is an at::Tensor, autograd flows through, exact platform needed
 *   "tenon.portable/1"  reserved, no host runs it yet: the same table, where a tensor is a DLTensor and the host, which
 *                       owns the autograd node, calls vjp
 *   "tenon.pass/1"      tenon_pass_table; for architectures whose facts say "learns": "pass"
 *   "tenon.run/1"       tenon_run_table; for experts whose inference is one run of blocks
 *
 * Rules for every function here
 *   Tables   begin with struct_size and only ever grow at the end. Read a member only if struct_size covers it.
 *   Tensors  tenon_tensor is `const at::Tensor*` (native) or `const DLTensor*` (portable); tenon_tensor_out the same
 *            without const. Borrowed for the call unless said otherwise.
 *   Text     UTF-8, borrowed, not NUL-terminated; names (`const char*`) are NUL-terminated.
 *   Errors   a status other than TENON_OK, with the reason written into tenon_message; outputs are then untouched.
 *            No exception, C++ type or allocator ever crosses.
 *   Threads  one call at a time per expert; different experts may run at once. The host table is [any-thread].
 *   Life     [loaded] after init; [created] after create; [bound] once every parameter has its tensor; [ready] after
 *            prepare. A library is never unloaded, so code and static data stay valid until the process ends.
 */
#ifndef TENON_PLUGIN_H
#define TENON_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TENON_ABI_MAJOR 1
#define TENON_ABI_MINOR 0
#define TENON_EXPORT __attribute__((visibility("default")))

typedef const void* tenon_tensor;
typedef void* tenon_tensor_out;

typedef enum tenon_status {
  TENON_OK = 0,
  TENON_BAD_ARGUMENT = 1, /* caller: a null, an unknown name, a wrong lifecycle state */
  TENON_BAD_CONFIG = 2,   /* package: a configuration this architecture cannot be built from */
  TENON_BAD_TENSOR = 3,   /* package: a tensor of the wrong shape or type */
  TENON_NO_MEMORY = 4,    /* environment */
  TENON_FAILED = 5        /* plugin: it threw */
} tenon_status;

typedef struct tenon_text {
  const char* data;
  uint64_t size;
} tenon_text;

/* A host-owned buffer for the reason of a failure. Write at most capacity bytes, set size. */
typedef struct tenon_message {
  char* data;
  uint64_t capacity;
  uint64_t size;
} tenon_message;

typedef struct tenon_expert tenon_expert; /* the plugin's */
typedef struct tenon_values tenon_values; /* the host's: a JSON document, read by JSON pointer */
typedef struct tenon_state tenon_state;   /* the host's: what one sequence remembers for one expert */

typedef enum tenon_log_level { TENON_LOG_DEBUG, TENON_LOG_INFO, TENON_LOG_WARNING } tenon_log_level;

/* What the host offers. Owned by the host, valid until the process ends. [any-thread] */
typedef struct tenon_host {
  uint32_t struct_size;
  uint16_t abi_major, abi_minor;

  void (*log)(tenon_log_level level, tenon_text text);

  /* Fills out[0..count) with standard normal numbers of the stream (seed, name), element i always the same: counter
   * based, so that no order of calls and no other stream changes them. */
  void (*normal)(uint64_t seed, tenon_text name, float* out, uint64_t count);

  /* Calls task(context, begin, end) over [0, count) in pieces of at least `grain`, the caller's thread included.
   * Returns when all are done. The task must not throw; it may run on other threads, where LibTorch's modes of the
   * caller's (no gradient, autocast) do not hold. */
  void (*parallel_for)(uint64_t count, uint64_t grain, void (*task)(void* context, uint64_t begin, uint64_t end),
                       void* context);

  /* Configuration values by JSON pointer ("/config/rank"). TENON_BAD_CONFIG where absent or of another type.
   * Text is borrowed as long as the values are. count: members of an array or object. */
  tenon_status (*value_integer)(const tenon_values* values, const char* pointer, int64_t* out);
  tenon_status (*value_number)(const tenon_values* values, const char* pointer, double* out);
  tenon_status (*value_boolean)(const tenon_values* values, const char* pointer, int* out);
  tenon_status (*value_text)(const tenon_values* values, const char* pointer, tenon_text* out);
  tenon_status (*value_count)(const tenon_values* values, const char* pointer, uint64_t* out);

  /* State of one sequence, slots in the order of state_layout. `tier` tensors. [ready, inside forward]
   * fixed   a view to read and write in place: shape as declared.
   * append  adds rows (n, ...) after those already there.
   * rows    all rows so far, (length, ...); valid until the next append. */
  tenon_status (*state_fixed)(tenon_state* state, uint32_t slot, tenon_tensor_out out);
  tenon_status (*state_append)(tenon_state* state, uint32_t slot, tenon_tensor rows);
  tenon_status (*state_rows)(tenon_state* state, uint32_t slot, tenon_tensor_out out);

  /* Anything further, by revisioned id; NULL where this host lacks it. */
  const void* (*extension)(const char* id);
} tenon_host;

/* What a new expert is told. Borrowed for the call, except `values`, which outlive the expert. */
typedef struct tenon_setup {
  uint32_t struct_size;
  const char* architecture;   /* "acme.memory": one of those in the plugin's facts */
  const tenon_values* values; /* /config: the expert's, checked against its schema, defaults filled in
                                 /model:  {"width": C, "first": A, "last": Z, "dtype": "float32"}
                                 /base:   {"architecture": ..., "config": ...}; absent when this is the base */
  tenon_tensor h_mean_C;      /* mean and deviation of h over general text, for n(h) = (h - mean) / deviation */
  tenon_tensor h_deviation_C;
} tenon_setup;

enum { TENON_PARAMETER_TRAINABLE = 1u };

/* One named tensor of an expert. `tensor` is borrowed and lives as long as the expert. */
typedef struct tenon_parameter {
  uint32_t struct_size;
  uint32_t flags;
  const char* name;
  const char* shared; /* NULL, or the base's tensor that is bound here read-only */
  tenon_tensor tensor;
} tenon_parameter;

enum { TENON_STATE_FIXED = 0, TENON_STATE_PER_POSITION = 1 };

/* One named tensor of state, float32. Shape: fixed, as is; per position, of one position. */
typedef struct tenon_state_tensor {
  uint32_t struct_size;
  uint32_t kind;
  const char* name;
  uint32_t rank;
  const int64_t* shape;
} tenon_state_tensor;

/* Rows [offset, offset + length) of h belong to one sequence, at positions position, position + 1, ...
 * state is NULL in training and in scoring: the span then is a whole sequence from position 0 or a token's row.
 * In one call either every span has a state, each sequence at most once, or none has.
 * context window(n): a span may begin at any position without state, or with one that is as new; the outputs of its
 * first n - 1 rows are then thrown away, and those after them must be as if all earlier rows had been seen. */
typedef struct tenon_span {
  int64_t offset, length, position;
  tenon_state* state;
} tenon_span;

typedef struct tenon_input {
  uint32_t struct_size;
  uint32_t span_count;
  tenon_tensor h_NC;
  tenon_tensor base_NC; /* NULL unless the architecture declares "uses": ["base.output"] */
  const tenon_span* spans;
} tenon_input;

typedef enum tenon_mode { TENON_INFERENCE = 0, TENON_TRAINING = 1 } tenon_mode;

/* Where vjp adds its results. parameters: one per parameters() call, in that order; NULL where not wanted. */
typedef struct tenon_gradients {
  uint32_t struct_size;
  uint32_t parameter_count;
  tenon_tensor_out h_NC;
  tenon_tensor_out base_NC;
  tenon_tensor_out* parameters;
} tenon_gradients;

/* "tenon.native/1" and "tenon.portable/1". */
typedef struct tenon_expert_table {
  uint32_t struct_size;
  uint32_t reserved;

  /* *out is owned by the host until destroy. Tensors need not be initialised yet. [loaded] */
  tenon_status (*create)(const tenon_setup* setup, tenon_expert** out, tenon_message* message);
  void (*destroy)(tenon_expert* expert);

  /* Calls visit once per parameter, always in the same order. [created] */
  tenon_status (*parameters)(tenon_expert* expert, void (*visit)(void* context, const tenon_parameter* parameter),
                             void* context, tenon_message* message);
  tenon_status (*state_layout)(tenon_expert* expert, void (*visit)(void* context, const tenon_state_tensor* tensor),
                               void* context, tenon_message* message);

  /* Gives every trainable parameter its value at birth, from host->normal(seed, its name). [created] */
  tenon_status (*initialize)(tenon_expert* expert, uint64_t seed, tenon_message* message);
  /* Makes the named parameter use this tensor's memory, which outlives the expert. Shape and type must match.
   * [created] */
  tenon_status (*bind)(tenon_expert* expert, const char* name, tenon_tensor tensor, tenon_message* message);
  /* Inference: weights are final, packed handles may be made. Training: they may change. [bound] */
  tenon_status (*prepare)(tenon_expert* expert, tenon_mode mode, tenon_message* message);

  /* y_NC = E(h_NC). native: *y is assigned; tape is NULL. portable: *y is the host's memory, filled; where tape is
   * not NULL, *tape receives what vjp needs. [ready] */
  tenon_status (*forward)(tenon_expert* expert, const tenon_input* in, tenon_tensor_out y_NC, void** tape,
                          tenon_message* message);

  /* portable only (NULL in native). vjp adds; release_tape is called exactly once per tape. [ready] */
  tenon_status (*vjp)(tenon_expert* expert, void* tape, tenon_tensor grad_y_NC, const tenon_gradients* gradients,
                      tenon_message* message);
  void (*release_tape)(tenon_expert* expert, void* tape);
} tenon_expert_table;

/* What one stretch of a training text says about the base, position by position: N rows of one sequence, in order,
 * its first and last position left out. Tensors are borrowed for the call. */
typedef struct tenon_observation {
  uint32_t struct_size;
  uint32_t reserved;
  tenon_tensor h_NC;        /* float32: the residual stream at the lower cut */
  tenon_tensor base_NC;     /* float32: what the base says */
  tenon_tensor gradient_NC; /* float32, nats: of the sequence's summed next-token loss towards the output of the middle,
                               taken where that is the base's; a step against it lowers the loss. Finite */
  tenon_tensor targets_N;   /* int64: the token that follows each position */
} tenon_observation;

/* "tenon.pass/1", optional: an expert that learns in one pass over its text instead of by gradient steps. It stands on
 * the base, E(h) = base + correction(h), and begin, observe (any number of times) and finish give the correction. All
 * of it is a function of seed and observations: the same ones give the same bytes. */
typedef struct tenon_pass_table {
  uint32_t struct_size;
  uint32_t reserved;

  /* Forgets everything; then `positions` rows follow, in all. The correction is zero until finish. [bound, prepared for
   * training] */
  tenon_status (*begin)(tenon_expert* expert, uint64_t seed, uint64_t positions, tenon_message* message);
  /* [between begin and finish] */
  tenon_status (*observe)(tenon_expert* expert, const tenon_observation* observation, tenon_message* message);
  /* The parameters now hold what was learnt; their shapes are those of [created]. */
  tenon_status (*finish)(tenon_expert* expert, tenon_message* message);
  /* Multiplies the correction by `factor`: the host knows the step length from held-back text. [after finish, prepared
   * for training] */
  tenon_status (*scale)(tenon_expert* expert, double factor, tenon_message* message);
} tenon_pass_table;

/* "tenon.run/1", optional: experts whose forward in inference is one run of blocks over h, `tenon::run_v1` of this
 * handle with states from `slot` on. The host may run several of them in one call instead, so that weights which they
 * share with the base are read once, and leave rows unfinished that nobody reads. */
typedef struct tenon_run_table {
  uint32_t struct_size;
  uint32_t reserved;

  /* blocks: a c10::IValue*, assigned a handle of pack_run_v1, which borrows the expert's tensors; left as it is where
   * this expert is no such run. [ready for inference] */
  tenon_status (*run)(tenon_expert* expert, void* blocks, uint32_t* slot, tenon_message* message);
} tenon_run_table;

/* What tenon_plugin_entry returns: static, immutable. */
typedef struct tenon_plugin {
  uint32_t struct_size;
  uint16_t abi_major, abi_minor;             /* built with */
  uint16_t needs_abi_major, needs_abi_minor; /* needs at least */

  /* Called once, before anything else; keep the host table. [any-thread] */
  tenon_status (*init)(const tenon_host* host, tenon_message* message);
  /* NULL where this plugin lacks it. [any-thread & loaded] */
  const void* (*extension)(const char* id);
} tenon_plugin;

typedef const tenon_plugin* (*tenon_plugin_entry_function)(void);

#ifdef __cplusplus
}
#endif

#endif
