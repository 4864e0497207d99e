/* One event after the other: its outputs, its failure. */
#include "internal.h"

#include <stdio.h>

static const wattle_str NOTHING = { "", 0 };

/* Ends the current event: its outputs stay, or are dropped if it failed; its buckets and its memory are freed. */
static void end_event(wattle_out *out) {
  if (!out->is_in_event) return;
  if (out->has_failed) out->len = out->len_before;
  for (wattle_bucket *each = out->buckets; each; each = each->opened_before) wattle_host_close(each->handle);
  out->buckets = NULL;
  out->is_in_event = false;
  wattle_host_memory = &wattle_call_memory;
  wattle_arena_reset(&wattle_event_memory);
}

const wattle_event *wattle_batch_next(wattle_batch *batch) {
  wattle_out *out = batch->out;
  end_event(out);
  if (out->has_failed || batch->next == batch->len) return NULL;
  out->event = batch->next++;
  out->is_in_event = true;
  out->len_before = out->len;
  out->attributes.data = NULL;
  wattle_host_current(out->event);
  wattle_host_memory = &wattle_event_memory;
  return &batch->events[out->event];
}

uint32_t wattle_batch_length(const wattle_batch *batch) { return batch->len; }

const wattle_event *wattle_batch_event(const wattle_batch *batch, uint32_t index) {
  if (index >= batch->len)
    WATTLE_PANIC("there is no event %u: the batch has %u", (unsigned)index, (unsigned)batch->len);
  return &batch->events[index];
}

void wattle_run(wattle_batch *batch, wattle_out *out) {
  batch->out = out;
  if (wattle_plugin.handle) {
    for (const wattle_event *event; (event = wattle_batch_next(batch));) wattle_plugin.handle(event, out);
    return;
  }
  wattle_plugin.handle_batch(batch, out);
  end_event(out);
  /* The bus would take the rest for handled. */
  if (!out->has_failed && batch->next < batch->len)
    WATTLE_PANIC("the handler returned before event %u of %u", (unsigned)batch->next, (unsigned)batch->len);
}

/* The number of a port in the list that the bus has. */
static uint32_t port_number(const char *file, int line, const char *name) {
  const char *const *declared = wattle_plugin.ports;
  if (name && declared[0]) {
    for (uint32_t number = 0; declared[number]; number++)
      if (strcmp(declared[number], name) == 0) return number;
  } else if (name) {
    const wattle_str *ports;
    size_t len = wattle_host_ports(&ports);
    for (size_t number = 0; number < len; number++)
      if (wattle_is(ports[number], name)) return (uint32_t)number;
  }
  wattle_panic(file, line, "the plugin has no port `%s`", name ? name : "");
}

static wattle_str kept(wattle_str text) {
  /* The data of events is often passed on as it is. */
  if (text.len == 0) return NOTHING;
  return wattle_arena_holds(&wattle_call_memory, text.data) ? text : wattle_arena_copy(&wattle_call_memory, text);
}

static void must_be_in_event(const wattle_out *out, const char *what) {
  if (!out->is_in_event) WATTLE_PANIC("%s outside of an event: turn to one with wattle_batch_next", what);
}

void wattle_send_at(const char *file, int line, wattle_out *out, wattle_output output) {
  must_be_in_event(out, "wattle_send");
  if (out->has_failed) return;
  if (out->len == out->capacity) {
    size_t capacity = out->capacity ? out->capacity * 2 : 64;
    out->sent = (wattle_sent *)wattle_arena_grow(
        &wattle_call_memory, out->sent, out->len * sizeof *out->sent, capacity * sizeof *out->sent);
    out->capacity = capacity;
  }
  const wattle_str texts[] = { output.key, output.type, output.content_type };
  for (size_t at = 0; at < sizeof texts / sizeof *texts; at++)
    if (!wattle_utf8_valid(texts[at]))
      wattle_panic(file, line, "what is sent to `%s` has a text that is not UTF-8", output.port);
  wattle_sent *sent = &out->sent[out->len];
  sent->event = out->event;
  sent->port = port_number(file, line, output.port);
  sent->has_key = output.key.data != NULL;
  sent->key = kept(output.key);
  sent->type = kept(output.type);
  sent->content_type = kept(output.content_type);
  sent->attributes = NOTHING;
  sent->data = kept(output.data);
  out->len++;
}

/* A line end would begin a further attribute, which could be anything, such as `delay`. Instead it becomes a zero byte,
 * which is what the bus refuses, and names. */
static char *one_line(char *to, wattle_str text, bool is_name) {
  for (size_t at = 0; at < text.len; at++) {
    char byte = text.data[at];
    *to++ = byte == '\n' || byte == '\r' || (is_name && byte == '=') ? '\0' : byte;
  }
  return to;
}

void wattle_send_attribute(wattle_out *out, const char *name, wattle_str value) {
  must_be_in_event(out, "wattle_send_attribute");
  if (out->has_failed) return;
  if (out->len == out->len_before) WATTLE_PANIC("wattle_send_attribute(\"%s\") before anything was sent", name);
  wattle_sent *sent = &out->sent[out->len - 1];
  wattle_str before = sent->attributes, of = wattle_str_of(name);
  size_t len = before.len + of.len + value.len + 2;
  char *lines = (char *)wattle_arena_take(&wattle_call_memory, len), *end = lines;
  if (before.len) memcpy(lines, before.data, before.len);
  end = one_line(end + before.len, of, true);
  *end++ = '=';
  end = one_line(end, value, false);
  *end = '\n';
  wattle_utf8_mend(lines + before.len, len - before.len);
  sent->attributes.data = lines;
  sent->attributes.len = len;
}

void wattle_fail(wattle_out *out, wattle_action action, uint64_t delay_ms, wattle_str reason) {
  must_be_in_event(out, "a failure");
  if (out->has_failed) return;
  out->has_failed = true;
  out->action = action;
  out->delay_ms = delay_ms;
  out->reason = wattle_arena_copy(&wattle_call_memory, reason);
  wattle_utf8_mend((char *)(uintptr_t)out->reason.data, reason.len);
}

#define FAIL(action, delay_ms)                                                      \
  va_list arguments;                                                                \
  va_start(arguments, format);                                                      \
  wattle_str reason = wattle_arena_format(&wattle_event_memory, format, arguments); \
  va_end(arguments);                                                                \
  wattle_fail(out, action, delay_ms, reason);

void wattle_reject(wattle_out *out, const char *format, ...) { FAIL(WATTLE_REJECTED, 0) }
void wattle_retry(wattle_out *out, const char *format, ...) { FAIL(WATTLE_RETRIED, 0) }
void wattle_retry_after(wattle_out *out, uint64_t delay_ms, const char *format, ...) {
  FAIL(WATTLE_RETRIED_AFTER, delay_ms)
}

bool wattle_recover(wattle_out *out, wattle_str *reason) {
  if (reason) *reason = out->has_failed ? out->reason : NOTHING;
  bool had_failed = out->has_failed;
  out->has_failed = false;
  return had_failed;
}

bool wattle_failed(const wattle_out *out) { return out->has_failed; }

wattle_str wattle_attributes(wattle_out *out) {
  must_be_in_event(out, "wattle_attributes");
  if (!out->attributes.data) {
    out->attributes = wattle_host_attributes();
    if (!out->attributes.data) out->attributes = NOTHING;
  }
  return out->attributes;
}

wattle_str wattle_event_text(const wattle_event *event, wattle_out *out) {
  for (size_t at = 0, len; at < event->data.len; at += len) {
    len = wattle_utf8_character(event->data.data + at, event->data.len - at);
    if (len > 0) continue;
    wattle_reject(out, "the data is not UTF-8: byte %zu begins no character", at);
    return NOTHING;
  }
  return event->data;
}

bool wattle_attribute(wattle_out *out, const char *name, wattle_str *value) {
  wattle_str lines = wattle_attributes(out);
  size_t name_len = strlen(name);
  const char *line = lines.data, *end = lines.data + lines.len;
  while (line < end) {
    const char *line_end = (const char *)memchr(line, '\n', (size_t)(end - line));
    if (!line_end) line_end = end;
    size_t len = (size_t)(line_end - line);
    if (len > name_len && line[name_len] == '=' && memcmp(line, name, name_len) == 0) {
      value->data = line + name_len + 1;
      value->len = len - name_len - 1;
      return true;
    }
    line = line_end + 1;
  }
  *value = NOTHING;
  return false;
}

/* A line has at most as much as the bus keeps of one; longer ones are cut. */
#define LINE_BYTES_MAX 8192

static void log_line(int level, const char *context, const char *format, va_list arguments) {
  char line[LINE_BYTES_MAX];
  int len = vsnprintf(line, sizeof line, format, arguments);
  wattle_str text = { line, len < 0 ? 0 : (size_t)len < sizeof line ? (size_t)len : sizeof line - 1 };
  wattle_utf8_mend(line, text.len);
  wattle_host_log(level, wattle_str_of(context), text);
}

void wattle_log(wattle_level level, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  log_line((int)level, "", format, arguments);
  va_end(arguments);
}

void wattle_panic(const char *file, int line, const char *format, ...) {
  /* No arena: memory may be exhausted. */
  char what[2048];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(what, sizeof what, format, arguments);
  va_end(arguments);
  char text[sizeof what + 512];
  int len = snprintf(text, sizeof text, "panicked at %.400s:%d: %s", file, line, what);
  wattle_str said = { text, len < 0 ? 0 : (size_t)len < sizeof text ? (size_t)len : sizeof text - 1 };
  /* In one line. */
  for (size_t at = 0; at < said.len; at++)
    if (text[at] == '\n' || text[at] == '\r') text[at] = ' ';
  wattle_utf8_mend(text, said.len);
  wattle_host_log(WATTLE_CRITICAL, WATTLE_STR("panic"), said);
  wattle_host_trap();
}
