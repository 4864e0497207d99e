/* A bus in memory, for tests of handlers: the host of internal.h, with a savepoint of the state for each event. */
#include "wattle_test.h"

#include "../internal.h"

#include <setjmp.h>
#include <stdio.h>

#define KEY_BYTES_MAX 1024
#define VALUE_BYTES_MAX ((size_t)1 << 20)
#define BUCKET_BYTES_MAX 64
#define PAGE_KEYS 1000
#define NAMES_MAX 64

typedef struct entry {
  int32_t bucket;
  wattle_str key, value;
} entry;

typedef struct pair {
  wattle_str name, value;
} pair;

/* The state, ascending by bucket and key, and as it was before the current event. */
static entry *entries, *savepoint;
static size_t entries_len, savepoint_len;
static wattle_str buckets[NAMES_MAX];
static pair config[NAMES_MAX], attributes[NAMES_MAX];
static size_t buckets_len, config_len, attributes_len, ports_len;
static wattle_str ports[NAMES_MAX];
static uint32_t generation = 1;
/* What belongs to a case; freed by the next one. */
static wattle_arena case_memory, result_memory;
static const char *case_name = "(no case)";
static unsigned cases, failures;
static bool case_failed, is_handling;
static jmp_buf trapped;
static wattle_str panic_words;

static wattle_str kept(wattle_str text) { return wattle_arena_copy(&case_memory, text); }

static void fatal(const char *what) {
  fprintf(stderr, "wattle_test: %s\n", what);
  exit(2);
}

/* ---- The host ---- */

uint32_t wattle_config_generation(void) { return generation; }

void wattle_host_current(uint32_t event) {
  (void)event;
  savepoint = (entry *)wattle_arena_take(&case_memory, entries_len * sizeof *entries);
  if (entries_len) memcpy(savepoint, entries, entries_len * sizeof *entries);
  savepoint_len = entries_len;
}

wattle_str wattle_host_attributes(void) {
  wattle_str lines = { "", 0 };
  for (size_t at = 0; at < attributes_len; at++)
    lines = wattle_format(
        NULL, "%.*s%.*s=%.*s\n", WATTLE_ARG(lines), WATTLE_ARG(attributes[at].name), WATTLE_ARG(attributes[at].value));
  return lines;
}

size_t wattle_host_ports(const wattle_str **into) {
  *into = ports;
  return ports_len;
}

bool wattle_host_config(wattle_str name, wattle_str *value) {
  for (size_t at = 0; at < config_len; at++) {
    if (!wattle_equal(config[at].name, name)) continue;
    *value = config[at].value;
    return true;
  }
  return false;
}

void wattle_host_log(int level, wattle_str context, wattle_str line) {
  static const char *const NAMES[] = { "trace", "debug", "info", "warn", "error", "critical" };
  if (level == WATTLE_CRITICAL && wattle_is(context, "panic")) panic_words = wattle_arena_copy(&result_memory, line);
  fprintf(stderr, "  %s: %.*s\n", NAMES[level], WATTLE_ARG(line));
}

void wattle_host_trap(void) {
  if (is_handling) longjmp(trapped, 1);
  abort();
}

static bool refused(const char *text, wattle_str *why) {
  *why = wattle_str_of(text);
  return false;
}

bool wattle_host_open(wattle_str name, int32_t *bucket, wattle_str *why) {
  if (name.len > BUCKET_BYTES_MAX) return refused("the name of a bucket has at most 64 bytes", why);
  if (name.len == 0) name = wattle_str_of("default");
  for (size_t at = 0; at < buckets_len; at++) {
    *bucket = (int32_t)at;
    if (wattle_equal(buckets[at], name)) return true;
  }
  if (buckets_len == NAMES_MAX) fatal("a test has at most 64 buckets");
  *bucket = (int32_t)buckets_len;
  buckets[buckets_len++] = kept(name);
  return true;
}

void wattle_host_close(int32_t bucket) { (void)bucket; }

static bool is_key(wattle_str key, wattle_str *why) {
  if (key.len == 0) return refused("the key is empty", why);
  if (key.len > KEY_BYTES_MAX) return refused("a key has at most 1024 bytes", why);
  return true;
}

static int order(int32_t bucket, wattle_str key, const entry *other) {
  if (bucket != other->bucket) return bucket < other->bucket ? -1 : 1;
  size_t common = key.len < other->key.len ? key.len : other->key.len;
  int by_bytes = memcmp(key.data, other->key.data, common);
  return by_bytes ? by_bytes : key.len < other->key.len ? -1 : key.len > other->key.len;
}

/* The place of a key, or where it would be. */
static size_t place(int32_t bucket, wattle_str key, bool *is_there) {
  size_t at = 0;
  int found = 1;
  while (at < entries_len && (found = order(bucket, key, &entries[at])) > 0) at++;
  *is_there = at < entries_len && found == 0;
  return at;
}

bool wattle_host_get(int32_t bucket, wattle_str key, bool *is_there, wattle_str *value, wattle_str *why) {
  if (!is_key(key, why)) return false;
  size_t at = place(bucket, key, is_there);
  if (*is_there) *value = wattle_arena_copy(wattle_host_memory, entries[at].value);
  return true;
}

bool wattle_host_set(int32_t bucket, wattle_str key, wattle_str value, wattle_str *why) {
  bool is_there;
  if (!is_key(key, why)) return false;
  if (value.len > VALUE_BYTES_MAX) return refused("a value has at most 1048576 bytes", why);
  size_t at = place(bucket, key, &is_there);
  if (!is_there) {
    entry *more = (entry *)wattle_arena_take(&case_memory, (entries_len + 1) * sizeof *entries);
    if (at) memcpy(more, entries, at * sizeof *entries);
    if (entries_len > at) memcpy(more + at + 1, entries + at, (entries_len - at) * sizeof *entries);
    entries = more;
    entries_len++;
    entries[at].bucket = bucket;
    entries[at].key = kept(key);
  }
  entries[at].value = kept(value);
  return true;
}

bool wattle_host_delete(int32_t bucket, wattle_str key, wattle_str *why) {
  bool is_there;
  if (!is_key(key, why)) return false;
  size_t at = place(bucket, key, &is_there);
  if (!is_there) return true;
  memmove(entries + at, entries + at + 1, (entries_len - at - 1) * sizeof *entries);
  entries_len--;
  return true;
}

bool wattle_host_exists(int32_t bucket, wattle_str key, bool *is_there, wattle_str *why) {
  if (!is_key(key, why)) return false;
  place(bucket, key, is_there);
  return true;
}

bool wattle_host_increment(int32_t bucket, wattle_str key, int64_t delta, int64_t *sum, wattle_str *why) {
  bool is_there;
  int64_t before = 0;
  if (!is_key(key, why)) return false;
  size_t at = place(bucket, key, &is_there);
  if (is_there && !wattle_number_i64(entries[at].value, &before)) return refused("what is there is no number", why);
  bool is_over = delta > 0 ? before > INT64_MAX - delta : before < INT64_MIN - delta;
  if (is_over) return refused("the sum does not fit into 64 bits", why);
  *sum = before + delta;
  char digits[24];
  wattle_str text = { digits, (size_t)snprintf(digits, sizeof digits, "%lld", (long long)*sum) };
  return wattle_host_set(bucket, key, text, why);
}

bool wattle_host_keys(
    int32_t bucket, wattle_str cursor, const wattle_str **keys, size_t *len, wattle_str *next, wattle_str *why) {
  (void)why;
  wattle_str *page = (wattle_str *)wattle_arena_take(wattle_host_memory, PAGE_KEYS * sizeof *page);
  *len = 0;
  next->data = NULL;
  for (size_t at = 0; at < entries_len; at++) {
    bool is_behind = !cursor.data || order(bucket, cursor, &entries[at]) < 0;
    if (entries[at].bucket != bucket || !is_behind) continue;
    if (*len == PAGE_KEYS) {
      *next = page[PAGE_KEYS - 1];
      break;
    }
    page[(*len)++] = wattle_arena_copy(wattle_host_memory, entries[at].key);
  }
  *keys = page;
  return true;
}

/* ---- Cases ---- */

void wattle_test(const char *name) {
  case_name = name;
  case_failed = false;
  cases++;
  generation++;
  wattle_arena_reset(&case_memory);
  entries = NULL;
  entries_len = buckets_len = config_len = attributes_len = 0;
}

static void add(pair *to, size_t *len, const char *name, const char *value) {
  if (*len == NAMES_MAX) fatal("a test has at most 64 settings, and 64 attributes");
  to[*len].name = kept(wattle_str_of(name));
  to[(*len)++].value = kept(wattle_str_of(value));
}

void wattle_test_config(const char *name, const char *value) {
  add(config, &config_len, name, value);
  generation++;
}

void wattle_test_attribute(const char *name, const char *value) { add(attributes, &attributes_len, name, value); }

const wattle_result *wattle_test_batch(const wattle_event *events, uint32_t len) {
  static wattle_result result;
  static wattle_out out;
  static wattle_batch batch;
  memset(&result, 0, sizeof result);
  memset(&out, 0, sizeof out);
  wattle_arena_reset(&result_memory);
  wattle_arena_reset(&wattle_event_memory);
  wattle_arena_reset(&wattle_call_memory);
  wattle_host_memory = &wattle_call_memory;
  batch.events = events;
  batch.len = len;
  batch.next = 0;
  is_handling = true;
  if (setjmp(trapped) == 0) {
    wattle_run(&batch, &out);
  } else {
    result.panicked = true;
    result.reason = panic_words;
    out.len = out.len_before;
  }
  is_handling = false;
  if (out.has_failed && !result.panicked) {
    result.rejected = out.action == WATTLE_REJECTED;
    result.retried = !result.rejected;
    result.delay_ms = out.delay_ms;
    result.reason = wattle_arena_copy(&result_memory, out.reason);
  }
  if (out.has_failed || result.panicked) {
    entries = savepoint;
    entries_len = savepoint_len;
  }
  wattle_test_output *outputs = (wattle_test_output *)wattle_arena_take(&result_memory, out.len * sizeof *outputs);
  for (size_t at = 0; at < out.len; at++) {
    const wattle_sent *sent = &out.sent[at];
    wattle_test_output *output = &outputs[at];
    output->port = wattle_plugin.ports[0] ? wattle_plugin.ports[sent->port] : ports[sent->port].data;
    output->key = sent->has_key ? wattle_arena_copy(&result_memory, sent->key) : (wattle_str){ NULL, 0 };
    output->type = wattle_arena_copy(&result_memory, sent->type);
    output->content_type = wattle_arena_copy(&result_memory, sent->content_type);
    output->data = wattle_arena_copy(&result_memory, sent->data);
    output->attributes = wattle_arena_copy(&result_memory, sent->attributes);
  }
  result.outputs = outputs;
  result.len = out.len;
  return &result;
}

const wattle_result *wattle_test_handle(wattle_event event) {
  wattle_str *texts[] = { &event.topic, &event.content_type, &event.key, &event.type, &event.data };
  for (size_t at = 0; at < sizeof texts / sizeof *texts; at++)
    if (!texts[at]->data) *texts[at] = wattle_str_of("");
  if (!event.attempt) event.attempt = 1;
  return wattle_test_batch(&event, 1);
}

const wattle_result *wattle_test_json(const char *data) {
  wattle_event event;
  memset(&event, 0, sizeof event);
  event.key = wattle_str_of("k");
  event.type = wattle_str_of("t");
  event.content_type = wattle_str_of("application/json");
  event.data = wattle_str_of(data);
  return wattle_test_handle(event);
}

wattle_str wattle_test_state(const char *key) {
  bool is_there;
  for (size_t bucket = 0; bucket < buckets_len; bucket++) {
    if (!wattle_is(buckets[bucket], "default")) continue;
    size_t at = place((int32_t)bucket, wattle_str_of(key), &is_there);
    if (is_there) return entries[at].value;
  }
  return (wattle_str){ NULL, 0 };
}

static void unmet(const char *file, int line) {
  if (!case_failed) fprintf(stderr, "FAILED: %s\n", case_name);
  case_failed = true;
  failures++;
  fprintf(stderr, "%s:%d: ", file, line);
}

void wattle_test_expect(bool holds, const char *condition, const char *file, int line) {
  if (holds) return;
  unmet(file, line);
  fprintf(stderr, "%s\n", condition);
}

void wattle_test_expect_text(wattle_str actual, const char *expected, const char *file, int line) {
  if (actual.data && wattle_is(actual, expected)) return;
  unmet(file, line);
  fprintf(stderr, "\n  expected %s\n  but got  %.*s\n", expected, actual.data ? (int)actual.len : 4,
      actual.data ? actual.data : "NULL");
}

int wattle_test_end(void) {
  if (failures)
    fprintf(stderr, "%u expectations of %u cases were not met\n", failures, cases);
  else
    fprintf(stderr, "%u cases, all as expected\n", cases);
  return failures ? 1 : 0;
}
