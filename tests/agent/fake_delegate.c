/* An external TFLite delegate that takes the first MOST_NODES nodes of a graph and computes nothing,
   or, if CRASHES is 1, ends the process when it should compute.
   The structures are those that runtimes hand to any delegate; what is never touched is a pointer. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int size; int data[64]; } ints_t;

typedef struct context_t context_t;
typedef struct delegate_t delegate_t;

typedef struct {
  void *(*init)(context_t *, const char *, size_t);
  void (*free)(context_t *, void *);
  int (*prepare)(context_t *, void *node);
  int (*invoke)(context_t *, void *node);
  const char *(*profiling_string)(const context_t *, const void *node);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  void *newer_fields[8];
} registration_t;

struct context_t {
  size_t n_tensors;
  int (*get_execution_plan)(context_t *, ints_t **);
  void *tensors, *implementation;
  void *resize_tensor, *report_error, *add_tensors, *get_node_and_registration;
  int (*replace_nodes)(context_t *, registration_t, const ints_t *, delegate_t *);
};

struct delegate_t {
  void *data;
  int (*prepare)(context_t *, delegate_t *);
  void *copy_from_buffer, *copy_to_buffer, *free_buffer;
  int64_t flags;
  void *newer_field;
};

static int prepare(context_t *context, void *node) { return 0; }

static int invoke(context_t *context, void *node) {
  if (CRASHES) abort();
  return 0;
}

static int take_nodes(context_t *context, delegate_t *delegate) {
  ints_t *plan, taken = {0};
  registration_t kernel;
  if (context->get_execution_plan(context, &plan)) return 1;
  for (int i = 0; i < plan->size && i < MOST_NODES; i++) taken.data[taken.size++] = plan->data[i];
  memset(&kernel, 0, sizeof kernel);
  kernel.prepare = prepare;
  kernel.invoke = invoke;
  kernel.custom_name = "fake";
  kernel.version = 1;
  return taken.size ? context->replace_nodes(context, kernel, &taken, delegate) : 0;
}

static delegate_t the_delegate = {.prepare = take_nodes};

void *tflite_plugin_create_delegate(char **keys, char **values, size_t n, void (*say)(char *)) {
  return &the_delegate;
}

void tflite_plugin_destroy_delegate(void *delegate) {}
