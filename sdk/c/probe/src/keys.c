/* The verbs of the state. */
#include "probe.h"

static void get(const wattle_event *event, wattle_out *out) {
  wattle_str value;
  bool is_there = wattle_state_get(wattle_state(out), wattle_event_text(event, out), &value);
  send_text(event, out, is_there ? value : WATTLE_STR("none"));
}

static void set(const wattle_event *event, wattle_out *out) {
  const wattle_value *entry = wattle_event_json(event, out);
  wattle_str key = wattle_string(entry, "key"), value = wattle_string(entry, "value");
  wattle_state_set(wattle_state(out), key, value);
  send_text(event, out, WATTLE_STR("ok"));
}

static void set_large(const wattle_event *event, wattle_out *out) {
  const wattle_value *large = wattle_event_json(event, out);
  wattle_str key = wattle_string(large, "key");
  size_t size = wattle_u32(large, "size");
  char *value = wattle_alloc(out, size);
  memset(value, 'x', size);
  wattle_state_set(wattle_state(out), key, (wattle_str){ value, size });
  send_text(event, out, WATTLE_STR("ok"));
}

static void increment(const wattle_event *event, wattle_out *out) {
  const wattle_value *of = wattle_event_json(event, out);
  wattle_str key = wattle_string(of, "key");
  int64_t by = wattle_i64(of, "by"), sum = wattle_state_increment(wattle_state(out), key, by);
  send_text(event, out, wattle_format(out, "%lld", (long long)sum));
}

static void fill(const wattle_event *event, wattle_out *out) {
  uint32_t count = wattle_u32(wattle_event_json(event, out), "count");
  for (uint32_t number = 0; number < count; number++) {
    wattle_str key = wattle_format(out, "fill/%05u", (unsigned)number);
    wattle_state_set(wattle_state(out), key, WATTLE_STR("1"));
  }
  send_text(event, out, WATTLE_STR("ok"));
}

static void keys(const wattle_event *event, wattle_out *out) {
  wattle_keys *all = wattle_state_keys(wattle_state(out));
  size_t len = 0, capacity = 1024;
  char *text = malloc(capacity);
  for (wattle_str key; text && wattle_keys_next(all, &key);) {
    if (capacity < len + key.len + 1) text = realloc(text, capacity = 2 * capacity + key.len);
    if (!text) break;
    if (len) text[len++] = '\n';
    memcpy(text + len, key.data, key.len);
    len += key.len;
  }
  if (!text) WATTLE_PANIC("out of memory");
  send_text(event, out, (wattle_str){ text, len });
  free(text);
}

static void write_value(wattle_writer *json, const char *name, wattle_bucket *bucket, wattle_str key) {
  wattle_str value;
  if (wattle_state_get(bucket, key, &value))
    wattle_write_string(json, name, value);
  else
    wattle_write_null(json, name);
}

static void bucket(const wattle_event *event, wattle_out *out) {
  const wattle_value *of = wattle_event_json(event, out);
  wattle_str name = wattle_string(of, "bucket"), key = wattle_string(of, "key"), value = wattle_string(of, "value");
  if (wattle_failed(out)) return;
  wattle_bucket *there = wattle_bucket_open(out, wattle_c_str(out, name));
  wattle_state_set(there, key, value);
  wattle_writer *json = wattle_json_begin(out);
  wattle_object_begin(json, NULL);
  write_value(json, "there", there, key);
  write_value(json, "default", wattle_state(out), key);
  wattle_object_end(json);
  send_value(event, out, json);
}

static void visit(const wattle_event *event, wattle_out *out) {
  wattle_str name = wattle_event_text(event, out), key = WATTLE_STR("visit");
  const wattle_value *visits = wattle_state_json(wattle_state(out), key);
  uint64_t count = wattle_kind_of(visits) == WATTLE_MISSING ? 0 : wattle_u64(visits, "count");
  wattle_writer *json = wattle_json_begin(out);
  wattle_object_begin(json, NULL);
  wattle_write_u64(json, "count", count + 1);
  wattle_write_string(json, "last", name);
  wattle_object_end(json);
  wattle_state_set(wattle_state(out), key, wattle_json_end(json));
  send_value(event, out, json);
}

static void bad_key_caught(const wattle_event *event, wattle_out *out) {
  wattle_state_set(wattle_state(out), WATTLE_STR(""), WATTLE_STR("x"));
  /* Before it is sent: outputs of an event that failed are dropped. */
  bool was_refused = wattle_recover(out, NULL);
  send_text(event, out, was_refused ? WATTLE_STR("refused") : WATTLE_STR("taken"));
}

bool handle_state(wattle_str verb, const wattle_event *event, wattle_out *out) {
  wattle_bucket *state = wattle_state(out);
  if (wattle_is(verb, "get"))
    get(event, out);
  else if (wattle_is(verb, "set"))
    set(event, out);
  else if (wattle_is(verb, "set-large"))
    set_large(event, out);
  else if (wattle_is(verb, "increment"))
    increment(event, out);
  else if (wattle_is(verb, "fill"))
    fill(event, out);
  else if (wattle_is(verb, "keys"))
    keys(event, out);
  else if (wattle_is(verb, "bucket"))
    bucket(event, out);
  else if (wattle_is(verb, "visit"))
    visit(event, out);
  else if (wattle_is(verb, "bad-key-caught"))
    bad_key_caught(event, out);
  else if (wattle_is(verb, "bad-key"))
    wattle_state_set(state, WATTLE_STR(""), WATTLE_STR("x"));
  else if (wattle_is(verb, "delete")) {
    wattle_state_delete(state, event->data);
    send_text(event, out, WATTLE_STR("ok"));
  } else if (wattle_is(verb, "exists")) {
    bool is_there = wattle_state_exists(state, event->data);
    send_text(event, out, is_there ? WATTLE_STR("true") : WATTLE_STR("false"));
  } else if (wattle_is(verb, "set-then-reject") || wattle_is(verb, "set-then-retry") ||
             wattle_is(verb, "set-then-panic")) {
    wattle_state_set(state, event->data, WATTLE_STR("undone"));
    if (wattle_is(verb, "set-then-reject"))
      wattle_reject(out, "on purpose");
    else if (wattle_is(verb, "set-then-retry"))
      wattle_retry(out, "on purpose");
    else
      WATTLE_PANIC("on purpose");
  } else
    return false;
  return true;
}
