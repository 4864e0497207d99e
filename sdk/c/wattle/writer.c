/* Writes JSON: valid whatever the texts are, and the same bytes for the same calls. */
#include "internal.h"

#include <math.h>
#include <stdio.h>

#define DEPTH_MAX 127

struct wattle_writer {
  wattle_out *out;
  char *bytes;
  size_t len, capacity;
  int depth;
  /* For each level: whether it is an object, and whether something is in it. */
  bool is_object[DEPTH_MAX + 1], has_content[DEPTH_MAX + 1];
};

static char *room(wattle_writer *json, size_t bytes) {
  if (json->capacity - json->len < bytes) {
    size_t capacity = json->capacity * 2;
    while (capacity - json->len < bytes) capacity *= 2;
    json->bytes = (char *)wattle_arena_grow(&wattle_event_memory, json->bytes, json->capacity, capacity);
    json->capacity = capacity;
  }
  return json->bytes + json->len;
}

static void put(wattle_writer *json, const char *bytes, size_t len) {
  memcpy(room(json, len), bytes, len);
  json->len += len;
}

static void put_char(wattle_writer *json, char character) {
  *room(json, 1) = character;
  json->len++;
}

static void put_text(wattle_writer *json, wattle_str text) {
  static const char HEX[] = "0123456789abcdef";
  put_char(json, '"');
  for (size_t at = 0; at < text.len;) {
    unsigned char byte = (unsigned char)text.data[at];
    if (byte >= 0x80) {
      size_t len = wattle_utf8_character(text.data + at, text.len - at);
      if (len == 0)
        put(json, "\xef\xbf\xbd", 3);
      else
        put(json, text.data + at, len);
      at += len ? len : 1;
      continue;
    }
    at++;
    const char *escape = byte == '"'    ? "\\\""
                         : byte == '\\' ? "\\\\"
                         : byte == '\b' ? "\\b"
                         : byte == '\f' ? "\\f"
                         : byte == '\n' ? "\\n"
                         : byte == '\r' ? "\\r"
                         : byte == '\t' ? "\\t"
                                        : NULL;
    if (escape) {
      put(json, escape, 2);
    } else if (byte < 0x20) {
      char unit[6] = { '\\', 'u', '0', '0', HEX[byte >> 4], HEX[byte & 15] };
      put(json, unit, sizeof unit);
    } else {
      put_char(json, (char)byte);
    }
  }
  put_char(json, '"');
}

/* The comma and the name before a value. */
static void begin_value(wattle_writer *json, const char *name) {
  bool is_object = json->is_object[json->depth];
  if (json->depth == 0 && json->has_content[0]) WATTLE_PANIC("a JSON text has one value; begin an array for more");
  if (is_object && !name) WATTLE_PANIC("what is in an object needs a name");
  if (!is_object && name) WATTLE_PANIC("`%s` is not in an object, and has no name there", name);
  if (json->has_content[json->depth]) put_char(json, ',');
  json->has_content[json->depth] = true;
  if (name) {
    put_text(json, wattle_str_of(name));
    put_char(json, ':');
  }
}

static void begin(wattle_writer *json, const char *name, bool is_object) {
  begin_value(json, name);
  if (json->depth == DEPTH_MAX) WATTLE_PANIC("the JSON text is nested more than %d times", DEPTH_MAX);
  json->depth++;
  json->is_object[json->depth] = is_object;
  json->has_content[json->depth] = false;
  put_char(json, is_object ? '{' : '[');
}

static void end(wattle_writer *json, bool is_object) {
  if (json->depth == 0 || json->is_object[json->depth] != is_object)
    WATTLE_PANIC("there is no %s to end", is_object ? "object" : "array");
  json->depth--;
  put_char(json, is_object ? '}' : ']');
}

wattle_writer *wattle_json_begin(wattle_out *out) {
  wattle_writer *json = (wattle_writer *)wattle_arena_take(&wattle_event_memory, sizeof *json);
  memset(json, 0, sizeof *json);
  json->out = out;
  json->capacity = 240;
  json->bytes = (char *)wattle_arena_take(&wattle_event_memory, json->capacity);
  return json;
}

void wattle_object_begin(wattle_writer *json, const char *name) { begin(json, name, true); }
void wattle_object_end(wattle_writer *json) { end(json, true); }
void wattle_array_begin(wattle_writer *json, const char *name) { begin(json, name, false); }
void wattle_array_end(wattle_writer *json) { end(json, false); }

void wattle_write_string(wattle_writer *json, const char *name, wattle_str text) {
  begin_value(json, name);
  put_text(json, text);
}

void wattle_write_i64(wattle_writer *json, const char *name, int64_t number) {
  char text[24];
  begin_value(json, name);
  put(json, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)number));
}

void wattle_write_u64(wattle_writer *json, const char *name, uint64_t number) {
  char text[24];
  begin_value(json, name);
  put(json, text, (size_t)snprintf(text, sizeof text, "%llu", (unsigned long long)number));
}

void wattle_write_double(wattle_writer *json, const char *name, double number) {
  if (!isfinite(number)) {
    wattle_reject(
        json->out, "the output cannot be written as JSON: %s is not a finite number", name ? name : "a value");
    number = 0;
  }
  /* The fewest digits that are read as the same number. */
  char text[40];
  int len = 0;
  for (int precision = 1; precision <= 17; precision++) {
    len = snprintf(text, sizeof text, "%.*g", precision, number);
    if (strtod(text, NULL) == number) break;
  }
  begin_value(json, name);
  put(json, text, (size_t)len);
}

void wattle_write_bool(wattle_writer *json, const char *name, bool value) {
  begin_value(json, name);
  put(json, value ? "true" : "false", value ? 4 : 5);
}

void wattle_write_null(wattle_writer *json, const char *name) {
  begin_value(json, name);
  put(json, "null", 4);
}

void wattle_write_value(wattle_writer *json, const char *name, const wattle_value *value) {
  wattle_str raw = wattle_json_raw(value);
  begin_value(json, name);
  if (raw.len)
    put(json, raw.data, raw.len);
  else
    put(json, "null", 4);
}

wattle_str wattle_json_end(wattle_writer *json) {
  if (json->depth > 0) WATTLE_PANIC("an %s is not ended", json->is_object[json->depth] ? "object" : "array");
  if (!json->has_content[0]) WATTLE_PANIC("the JSON text has no value");
  wattle_str text = { json->bytes, json->len };
  return text;
}

void wattle_send_json_at(const char *file, int line, wattle_out *out, wattle_writer *json, wattle_output output) {
  output.data = wattle_json_end(json);
  output.content_type = wattle_str_of("application/json");
  wattle_send_at(file, line, out, output);
}
