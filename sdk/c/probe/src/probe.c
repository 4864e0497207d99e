/* The conformance probe in C: sdk/probe/README.md says what each verb does. The type of an event is the verb. */
#include "probe.h"

#include <stdio.h>

WATTLE_STATE_VERSION(3)

#define SETTINGS(DEFAULT, REQUIRED, OPTIONAL) \
  DEFAULT(string, word, "hello", "A text.")   \
  DEFAULT(u32, times, 3, "A whole number.")   \
  DEFAULT(number, ratio, 0.5, "A number.")    \
  DEFAULT(boolean, loud, false, "A switch.")  \
  OPTIONAL(string, end, "A text that may be missing.")
WATTLE_CONFIG(settings, SETTINGS)

void send_text(const wattle_event *event, wattle_out *out, wattle_str text) {
  wattle_send(out, (wattle_output){
                       .port = "out",
                       .data = text,
                       .type = event->type,
                       .content_type = WATTLE_STR("text/plain"),
                   });
}

void send_value(const wattle_event *event, wattle_out *out, wattle_writer *json) {
  wattle_send_json(out, json, (wattle_output){ .port = "out", .type = event->type });
}

/* The number of Unicode characters. */
static void length(const wattle_event *event, wattle_out *out) {
  wattle_str text = wattle_event_text(event, out);
  size_t count = 0;
  for (size_t at = 0; at < text.len; at++) count += ((unsigned char)text.data[at] & 0xc0) != 0x80;
  send_text(event, out, wattle_format(out, "%zu", count));
}

static void echo_json(const wattle_event *event, wattle_out *out) {
  const wattle_value *shape = wattle_event_json(event, out);
  wattle_writer *json = wattle_json_begin(out);
  wattle_object_begin(json, NULL);
  wattle_write_string(json, "text", wattle_string(shape, "text"));
  wattle_write_i64(json, "integer", wattle_i64(shape, "integer"));
  wattle_write_u64(json, "unsigned", wattle_u64(shape, "unsigned"));
  wattle_write_double(json, "real", wattle_double(shape, "real"));
  wattle_write_bool(json, "flag", wattle_bool(shape, "flag"));
  wattle_array_begin(json, "list");
  for (const wattle_value *item = wattle_first(wattle_array(shape, "list")); item; item = wattle_next(item))
    wattle_write_i64(json, NULL, wattle_i64(item, NULL));
  wattle_array_end(json);
  wattle_object_begin(json, "nested");
  wattle_write_string(json, "name", wattle_string(wattle_get(shape, "nested"), "name"));
  wattle_object_end(json);
  if (wattle_has(shape, "maybe"))
    wattle_write_string(json, "maybe", wattle_string(shape, "maybe"));
  else
    wattle_write_null(json, "maybe");
  wattle_object_end(json);
  send_value(event, out, json);
}

static void send_message(const wattle_event *event, wattle_out *out) {
  const wattle_value *message = wattle_event_json(event, out);
  wattle_output output = { .data = wattle_string(message, "data") };
  wattle_str port = wattle_string(message, "port");
  if (wattle_has(message, "key")) output.key = wattle_string(message, "key");
  output.type = wattle_string_or(message, "type", WATTLE_STR(""));
  output.content_type = wattle_string_or(message, "content_type", WATTLE_STR(""));
  output.port = wattle_c_str(out, port);
  if (wattle_failed(out)) return;
  wattle_send(out, output);
  if (wattle_has(message, "subject")) wattle_send_attribute(out, "subject", wattle_string(message, "subject"));
}

static void attribute(const wattle_event *event, wattle_out *out) {
  const wattle_value *of = wattle_event_json(event, out);
  wattle_str name = wattle_string(of, "name"), value = wattle_string(of, "value");
  wattle_send(out, (wattle_output){ .port = "out", .type = event->type });
  wattle_send_attribute(out, wattle_c_str(out, name), value);
}

static void many(const wattle_event *event, wattle_out *out) {
  uint32_t count = wattle_u32(wattle_event_json(event, out), "count");
  for (uint32_t number = 0; number < count; number++)
    wattle_send(out, (wattle_output){
                         .port = number % 2 == 0 ? "out" : "other",
                         .data = wattle_format(out, "%u", (unsigned)number),
                         .type = event->type,
                         .content_type = WATTLE_STR("text/plain"),
                     });
}

static void envelope(const wattle_event *event, wattle_out *out) {
  wattle_writer *json = wattle_json_begin(out);
  wattle_object_begin(json, NULL);
  wattle_write_string(json, "topic", event->topic);
  wattle_write_u64(json, "partition", event->partition);
  wattle_write_string(json, "key", event->key);
  wattle_write_string(json, "type", event->type);
  wattle_write_string(json, "content_type", event->content_type);
  wattle_write_string(json, "time_ns", wattle_format(out, "%llu", (unsigned long long)event->time_ns));
  wattle_write_u64(json, "attempt", event->attempt);
  wattle_object_end(json);
  send_value(event, out, json);
}

static int by_name(const void *a, const void *b) {
  const wattle_str *first = a, *second = b;
  size_t common = first->len < second->len ? first->len : second->len;
  int order = memcmp(first->data, second->data, common);
  return order ? order : (first->len > second->len) - (first->len < second->len);
}

/* The lines, sorted. No name is the start of another with a character below `=` after it. */
static void attributes(const wattle_event *event, wattle_out *out) {
  wattle_str all = wattle_attributes(out), text = WATTLE_STR("");
  size_t count = 0;
  for (size_t at = 0; at < all.len; at++) count += all.data[at] == '\n';
  wattle_str *lines = wattle_alloc(out, count * sizeof *lines);
  const char *start = all.data;
  for (size_t line = 0; line < count; line++) {
    const char *end = memchr(start, '\n', (size_t)(all.data + all.len - start));
    lines[line] = (wattle_str){ start, (size_t)(end - start) };
    start = end + 1;
  }
  qsort(lines, count, sizeof *lines, by_name);
  for (size_t line = 0; line < count; line++)
    text = wattle_format(out, "%.*s%s%.*s", WATTLE_ARG(text), line ? "\n" : "", WATTLE_ARG(lines[line]));
  send_text(event, out, text);
}

static void config(const wattle_event *event, wattle_out *out) {
  const settings *of = settings_get(out);
  wattle_writer *json = wattle_json_begin(out);
  wattle_object_begin(json, NULL);
  wattle_write_string(json, "word", of->word);
  wattle_write_u64(json, "times", of->times);
  wattle_write_double(json, "ratio", of->ratio);
  wattle_write_bool(json, "loud", of->loud);
  if (of->end)
    wattle_write_string(json, "end", *of->end);
  else
    wattle_write_null(json, "end");
  wattle_object_end(json);
  send_value(event, out, json);
}

static void setting(const wattle_event *event, wattle_out *out) {
  wattle_str value, name = wattle_event_text(event, out);
  bool is_there = wattle_config(out, wattle_c_str(out, name), &value);
  send_text(event, out, is_there ? value : WATTLE_STR("none"));
}

__attribute__((noinline)) static void inner(wattle_str text) { WATTLE_PANIC("%.*s", WATTLE_ARG(text)); }
__attribute__((noinline)) static void outer(wattle_str text) { inner(text); }

bool handle_plain(wattle_str verb, const wattle_event *event, wattle_out *out) {
  if (wattle_is(verb, "echo"))
    wattle_send(out, (wattle_output){ .port = "out", .data = event->data, .type = event->type });
  else if (wattle_is(verb, "length"))
    length(event, out);
  else if (wattle_is(verb, "json"))
    echo_json(event, out);
  else if (wattle_is(verb, "send"))
    send_message(event, out);
  else if (wattle_is(verb, "attribute"))
    attribute(event, out);
  else if (wattle_is(verb, "many"))
    many(event, out);
  else if (wattle_is(verb, "event"))
    envelope(event, out);
  else if (wattle_is(verb, "attributes"))
    attributes(event, out);
  else if (wattle_is(verb, "config"))
    config(event, out);
  else if (wattle_is(verb, "setting"))
    setting(event, out);
  else if (wattle_is(verb, "panic"))
    outer(event->data);
  else
    return wattle_is(verb, "nothing");
  return true;
}

static void handle(const wattle_event *event, wattle_out *out) {
  wattle_str verb = event->type, prefix = WATTLE_STR("probe.");
  if (verb.len >= prefix.len && memcmp(verb.data, prefix.data, prefix.len) == 0)
    verb = (wattle_str){ verb.data + prefix.len, verb.len - prefix.len };
  verbs *const all[] = { handle_plain, handle_state, handle_failures, handle_world };
  for (size_t at = 0; at < sizeof all / sizeof *all; at++)
    if (all[at](verb, event, out)) return;
  wattle_reject(out, "no verb %.*s", WATTLE_ARG(verb));
}

WATTLE_PLUGIN(handle, "out", "other")
