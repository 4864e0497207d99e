/* The host of internal.h over the bus: the plugin contract (wit/plugin.wit) as the canonical ABI of components has it.
 *
 * Everything that the host hands over comes through `cabi_realloc` and is in an arena, so that nothing of it has to be
 * freed one by one. Results are read by the host until it calls the `cabi_post_…` of the function. */
#ifdef __wasm__

#include "internal.h"

#include <unistd.h>

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))
#define CONTEXT "wattle:plugin/context@0.1.0"
#define HANDLER "wattle:plugin/handler@0.1.0"
#define LOGGING "wasi:logging/logging@0.1.0-draft"
#define CONFIG "wasi:config/store@0.2.0-rc.1"
#define STORE "wasi:keyvalue/store@0.2.0-draft2"
#define ATOMICS "wasi:keyvalue/atomics@0.2.0-draft2"

/* ---- Layouts ---- */

/* string, list<u8> */
typedef wattle_str text;

typedef struct list {
  const void *data;
  size_t len;
} list;

typedef struct option {
  uint8_t is_some;
  text value;
} option;

/* variant error { no-such-store, access-denied, other(string) } */
typedef struct error {
  uint8_t tag;
  text other;
} error;

/* result<T, error>, for each T */
typedef struct unit_result {
  uint8_t is_error;
  error error;
} unit_result;

typedef struct option_result {
  uint8_t is_error;
  union {
    option ok;
    error error;
  };
} option_result;

typedef struct handle_result {
  uint8_t is_error;
  union {
    int32_t ok;
    error error;
  };
} handle_result;

typedef struct bool_result {
  uint8_t is_error;
  union {
    uint8_t ok;
    error error;
  };
} bool_result;

typedef struct s64_result {
  uint8_t is_error;
  union {
    int64_t ok;
    error error;
  };
} s64_result;

typedef struct keys_result {
  uint8_t is_error;
  union {
    struct {
      list keys;
      option cursor;
    } ok;
    error error;
  };
} keys_result;

/* types.event */
typedef struct event {
  text key, type;
  uint64_t time;
  uint32_t attempt;
  text data;
} event;

/* types.output */
typedef struct output {
  uint32_t event, port;
  option key;
  text type, content_type, attributes, data;
} output;

/* types.handled, with types.failure and types.action */
typedef struct handled {
  list outputs;
  uint8_t has_failed;
  struct {
    uint32_t event;
    struct {
      uint8_t tag;
      struct {
        uint8_t is_some;
        uint64_t ms;
      } retry;
    } action;
    text reason;
  } failure;
} handled;

_Static_assert(sizeof(text) == 8 && sizeof(option) == 12 && sizeof(error) == 12, "the layout of the canonical ABI");
_Static_assert(sizeof(option_result) == 16 && offsetof(option_result, ok) == 4, "the layout of the canonical ABI");
_Static_assert(sizeof(handle_result) == 16 && sizeof(bool_result) == 16, "the layout of the canonical ABI");
_Static_assert(sizeof(s64_result) == 24 && offsetof(s64_result, error) == 8, "the layout of the canonical ABI");
_Static_assert(sizeof(keys_result) == 24 && offsetof(keys_result, ok.cursor) == 12, "the layout of the canonical ABI");
_Static_assert(sizeof(event) == 40 && offsetof(event, data) == 28, "the layout of the canonical ABI");
_Static_assert(sizeof(output) == 52 && offsetof(output, type) == 20, "the layout of the canonical ABI");
_Static_assert(sizeof(handled) == 56 && offsetof(handled, failure) == 16, "the layout of the canonical ABI");
_Static_assert(offsetof(handled, failure.action) == 24 && offsetof(handled, failure.action.retry.ms) == 40,
    "the layout of the canonical ABI");
_Static_assert(offsetof(handled, failure.reason) == 48, "the layout of the canonical ABI");

/* ---- Imports ---- */

IMPORT(CONTEXT, "current") void import_current(uint32_t index);
IMPORT(CONTEXT, "attributes") void import_attributes(text *lines);
IMPORT(CONTEXT, "ports") void import_ports(list *ports);
IMPORT(LOGGING, "log")
void import_log(int32_t level, const char *context, size_t context_len, const char *line, size_t line_len);
IMPORT(CONFIG, "get") void import_config(const char *name, size_t name_len, option_result *value);
IMPORT(STORE, "open") void import_open(const char *name, size_t name_len, handle_result *bucket);
IMPORT(STORE, "[resource-drop]bucket") void import_close(int32_t bucket);
IMPORT(STORE, "[method]bucket.get")
void import_get(int32_t bucket, const char *key, size_t key_len, option_result *value);
IMPORT(STORE, "[method]bucket.set")
void import_set(
    int32_t bucket, const char *key, size_t key_len, const char *value, size_t value_len, unit_result *result);
IMPORT(STORE, "[method]bucket.delete")
void import_delete(int32_t bucket, const char *key, size_t key_len, unit_result *result);
IMPORT(STORE, "[method]bucket.exists")
void import_exists(int32_t bucket, const char *key, size_t key_len, bool_result *result);
IMPORT(STORE, "[method]bucket.list-keys")
void import_keys(int32_t bucket, int32_t has_cursor, const char *cursor, size_t cursor_len, keys_result *result);
IMPORT(ATOMICS, "increment")
void import_increment(int32_t bucket, const char *key, size_t key_len, int64_t delta, s64_result *result);

uint32_t wattle_config_generation(void) { return 1; }

/* Whether the generators of the C library were seeded for the current event. */
static bool is_seeded;

void wattle_host_current(uint32_t event) {
  import_current(event);
  is_seeded = false;
}

wattle_str wattle_host_attributes(void) {
  text lines;
  import_attributes(&lines);
  return lines;
}

size_t wattle_host_ports(const wattle_str **ports) {
  /* They outlive the call in which they were asked for. */
  static wattle_arena memory;
  static wattle_str *kept;
  static size_t len;
  if (!kept) {
    list given;
    import_ports(&given);
    len = given.len;
    kept = (wattle_str *)wattle_arena_take(&memory, len * sizeof *kept);
    for (size_t at = 0; at < len; at++) kept[at] = wattle_arena_copy(&memory, ((const text *)given.data)[at]);
  }
  *ports = kept;
  return len;
}

bool wattle_host_config(wattle_str name, wattle_str *value) {
  option_result result;
  import_config(name.data, name.len, &result);
  if (result.is_error || !result.ok.is_some) return false;
  *value = result.ok.value;
  return true;
}

void wattle_host_log(int level, wattle_str context, wattle_str line) {
  import_log(level, context.data, context.len, line.data, line.len);
}

void wattle_host_trap(void) { __builtin_trap(); }

static wattle_str words(const error *of) {
  switch (of->tag) {
    case 0: return wattle_str_of("there is no such bucket");
    case 1: return wattle_str_of("it is not this plugin's");
    default: return of->other;
  }
}

/* Whether a result is one; if not, why. */
#define CHECKED(result, why) (!(result).is_error || (*(why) = words(&(result).error), false))

bool wattle_host_open(wattle_str name, int32_t *bucket, wattle_str *why) {
  handle_result result;
  import_open(name.data, name.len, &result);
  if (!CHECKED(result, why)) return false;
  *bucket = result.ok;
  return true;
}

void wattle_host_close(int32_t bucket) { import_close(bucket); }

bool wattle_host_get(int32_t bucket, wattle_str key, bool *is_there, wattle_str *value, wattle_str *why) {
  option_result result;
  import_get(bucket, key.data, key.len, &result);
  if (!CHECKED(result, why)) return false;
  *is_there = result.ok.is_some;
  if (*is_there) *value = result.ok.value;
  return true;
}

bool wattle_host_set(int32_t bucket, wattle_str key, wattle_str value, wattle_str *why) {
  unit_result result;
  import_set(bucket, key.data, key.len, value.data, value.len, &result);
  return CHECKED(result, why);
}

bool wattle_host_delete(int32_t bucket, wattle_str key, wattle_str *why) {
  unit_result result;
  import_delete(bucket, key.data, key.len, &result);
  return CHECKED(result, why);
}

bool wattle_host_exists(int32_t bucket, wattle_str key, bool *is_there, wattle_str *why) {
  bool_result result;
  import_exists(bucket, key.data, key.len, &result);
  if (!CHECKED(result, why)) return false;
  *is_there = result.ok;
  return true;
}

bool wattle_host_increment(int32_t bucket, wattle_str key, int64_t delta, int64_t *sum, wattle_str *why) {
  s64_result result;
  import_increment(bucket, key.data, key.len, delta, &result);
  if (!CHECKED(result, why)) return false;
  *sum = result.ok;
  return true;
}

bool wattle_host_keys(
    int32_t bucket, wattle_str cursor, const wattle_str **keys, size_t *len, wattle_str *next, wattle_str *why) {
  keys_result result;
  import_keys(bucket, cursor.data != NULL, cursor.data, cursor.len, &result);
  if (!CHECKED(result, why)) return false;
  *keys = (const wattle_str *)result.ok.keys.data;
  *len = result.ok.keys.len;
  *next = result.ok.cursor.value;
  if (!result.ok.cursor.is_some) next->data = NULL;
  return true;
}

/* ---- Exports ---- */

EXPORT("cabi_realloc") void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
  (void)align; /* An arena aligns for any type. */
  return wattle_arena_grow(wattle_host_memory, old, old_size, size);
}

EXPORT(HANDLER "#describe") list *describe(void) {
  static list ports;
  text *names;
  size_t len = 0;
  while (wattle_plugin.ports[len]) len++;
  names = (text *)wattle_arena_take(&wattle_call_memory, len * sizeof *names);
  for (size_t at = 0; at < len; at++) names[at] = wattle_str_of(wattle_plugin.ports[at]);
  ports.data = names;
  ports.len = len;
  return &ports;
}

EXPORT("cabi_post_" HANDLER "#describe") void after_describe(list *ports) {
  (void)ports;
  wattle_arena_reset(&wattle_call_memory);
}

static list outputs_of(const wattle_out *out) {
  output *outputs = (output *)wattle_arena_take(&wattle_call_memory, out->len * sizeof *outputs);
  for (size_t at = 0; at < out->len; at++) {
    const wattle_sent *sent = &out->sent[at];
    outputs[at] = (output){
      .event = sent->event,
      .port = sent->port,
      .key = { sent->has_key, sent->key },
      .type = sent->type,
      .content_type = sent->content_type,
      .attributes = sent->attributes,
      .data = sent->data,
    };
  }
  return (list){ outputs, out->len };
}

EXPORT(HANDLER "#handle")
handled *handle(const char *topic, size_t topic_len, uint32_t partition, const char *content_type,
    size_t content_type_len, const event *events, size_t len) {
  static handled answer;
  wattle_out out;
  wattle_batch batch;
  memset(&out, 0, sizeof out);
  memset(&batch, 0, sizeof batch);
  memset(&answer, 0, sizeof answer);
  wattle_event *given = (wattle_event *)wattle_arena_take(&wattle_call_memory, len * sizeof *given);
  for (size_t at = 0; at < len; at++)
    given[at] = (wattle_event){
      .topic = { topic, topic_len },
      .partition = partition,
      .content_type = { content_type, content_type_len },
      .key = events[at].key,
      .type = events[at].type,
      .time_ns = events[at].time,
      .attempt = events[at].attempt,
      .data = events[at].data,
    };
  batch.events = given;
  batch.len = (uint32_t)len;
  wattle_run(&batch, &out);
  answer.outputs = outputs_of(&out);
  answer.has_failed = out.has_failed;
  if (out.has_failed) {
    answer.failure.event = out.event;
    answer.failure.action.tag = out.action == WATTLE_REJECTED;
    answer.failure.action.retry.is_some = out.action == WATTLE_RETRIED_AFTER;
    answer.failure.action.retry.ms = out.delay_ms;
    answer.failure.reason = out.reason;
  }
  return &answer;
}

EXPORT("cabi_post_" HANDLER "#handle") void after_handle(handled *answer) {
  (void)answer;
  wattle_arena_reset(&wattle_call_memory);
}

/* ---- Functions of the C library ---- */

/* Its generators are seeded once for each instance. These are seeded for each event, when they are first asked:
 * SplitMix64. */
static uint64_t random_state;

static uint64_t next_random(void) {
  if (!is_seeded && getentropy(&random_state, sizeof random_state) != 0) __builtin_trap();
  is_seeded = true;
  uint64_t mixed = random_state += 0x9e3779b97f4a7c15u;
  mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9u;
  mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebu;
  return mixed ^ mixed >> 31;
}

static void seed(unsigned of) {
  random_state = of;
  is_seeded = true;
}

int rand(void) { return (int)(next_random() >> 33); }
void srand(unsigned of) { seed(of); }
long random(void) { return (long)(next_random() >> 33); }
void srandom(unsigned of) { seed(of); }

/* What `assert` calls. */
void __assert_fail(const char *condition, const char *file, int line, const char *function) {
  (void)function;
  wattle_panic(file, line, "%s does not hold", condition);
}

#endif
