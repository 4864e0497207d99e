/**
 * @file wattle.h
 * Write a handler for the Wattle event bus in C: a function from one event to the events that follow from it.
 *
 * @code
 * #include "wattle.h"
 *
 * static void handle(const wattle_event *event, wattle_out *out) {
 *   const wattle_value *visit = wattle_event_json(event, out);   // not JSON: the event is rejected
 *   wattle_str name = wattle_string(visit, "name");              // missing or no text: rejected, with the path
 *   wattle_writer *json = wattle_json_begin(out);
 *   wattle_object_begin(json, NULL);
 *   wattle_write_string(json, "text", wattle_format(out, "Hello, %.*s!", WATTLE_ARG(name)));
 *   wattle_object_end(json);
 *   wattle_send_json(out, json, (wattle_output){ .port = "greeted" });
 * }
 * WATTLE_PLUGIN(handle, "greeted")
 * @endcode
 *
 * A handler is called for one event after the other and should depend on nothing else, except for its
 * state: static variables are a cache that may be gone at the next event. Time is the event's time,
 * `rand` and `getentropy` follow from the event, and `printf` writes a log line.
 *
 * Failures. The first failure of an event counts, and nothing that was sent for it: wattle_reject() and wattle_retry(),
 * and every function here that takes `out` or a value read from the event. After a failure these functions do nothing
 * and give empty values, so that a handler may look once, with wattle_failed(), before it acts on these values.
 *
 * Memory. What these functions give lives until the event is over; the SDK frees it. `malloc` and `free` work as usual
 * for what the handler keeps itself.
 */
#ifndef WATTLE_H
#define WATTLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/** @name Texts
 * Texts have a length and no zero byte at the end. They are UTF-8, except for the data of events, which may be
 * anything.
 * @{ */

/** A text, or any bytes, owned by its creator. `data` is NULL only where a comment says what that means. */
typedef struct wattle_str {
  const char *data;
  size_t len;
} wattle_str;

/** A text of a string literal. */
#ifdef __cplusplus
#define WATTLE_STR(literal) (wattle_str{ "" literal, sizeof(literal) - 1 })
#else
#define WATTLE_STR(literal) ((wattle_str){ "" literal, sizeof(literal) - 1 })
#endif

/** The two arguments of `%.*s`. */
#define WATTLE_ARG(text) (int)(text).len, (text).data

/** A text of a C string. */
static inline wattle_str wattle_str_of(const char *text) {
  wattle_str str = { text, strlen(text) };
  return str;
}

/** Whether two texts have the same bytes. */
static inline bool wattle_equal(wattle_str a, wattle_str b) {
  return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/** Whether a text is that of a C string. */
static inline bool wattle_is(wattle_str a, const char *b) { return wattle_equal(a, wattle_str_of(b)); }

#if defined(__GNUC__)
#define WATTLE_FORMAT_(text, first) __attribute__((__format__(__printf__, text, first)))
#else
#define WATTLE_FORMAT_(text, first)
#endif
/** @} */

/** @name Events
 * @{ */

/** One event. Its texts live as long as it does. */
typedef struct wattle_event {
  /** The topic that it comes from. */
  wattle_str topic;
  /** The partition of the topic. */
  uint32_t partition;
  /** The content type of the data; "" when the producer gave none. */
  wattle_str content_type;
  /** The ordering key. */
  wattle_str key;
  /** The CloudEvents type. */
  wattle_str type;
  /** When it was appended to its topic, in nanoseconds since 1970. All clocks start here. */
  uint64_t time_ns;
  /** Which attempt at it this is, from 1. */
  uint32_t attempt;
  /** The payload, as it was published. */
  wattle_str data;
} wattle_event;

/** What becomes of the current event: its outputs, or its failure. */
typedef struct wattle_out wattle_out;

/** The data of the event as a text. Rejects the event when it is not UTF-8. */
wattle_str wattle_event_text(const wattle_event *event, wattle_out *out);

/** One of the CloudEvents attributes of the current event: `id`, `source`, `subject`, `time` or an extension.
 * @return whether the event has it. */
bool wattle_attribute(wattle_out *out, const char *name, wattle_str *value);

/** All CloudEvents attributes of the current event beyond the fields of wattle_event, as "name=value\n" lines. */
wattle_str wattle_attributes(wattle_out *out);
/** @} */

/** @name Outputs
 * @{ */

/** An event for a port. Its id, source and time are given by the bus. Fields that are left out are zero, which means:
 */
typedef struct wattle_output {
  /** The port's name, one of those of WATTLE_PLUGIN(). */
  const char *port;
  /** The payload; left out: no bytes. */
  wattle_str data;
  /** The CloudEvents type; left out: the name of the port. */
  wattle_str type;
  /** The content type of the data; left out: that of the event that it answers. */
  wattle_str content_type;
  /** The ordering key; left out (`data` is NULL): that of the event that it answers. A new key starts a new order. */
  wattle_str key;
} wattle_output;

/** Sends an event to a port: `wattle_send(out, (wattle_output){ .port = "accepted", .data = event->data })`. Everything
 * in it is copied. A port that is not the plugin's ends the handler, as WATTLE_PANIC() does. */
#define wattle_send(out, ...) wattle_send_at(__FILE__, __LINE__, out, __VA_ARGS__)
void wattle_send_at(const char *file, int line, wattle_out *out, wattle_output output);

/** Adds a CloudEvents attribute to the last output: `subject`, `dataschema`, or an extension, whose name is
 * lower-case letters and digits. The bus rejects the event when it is none of these, or when the value has control
 * characters. */
void wattle_send_attribute(wattle_out *out, const char *name, wattle_str value);
/** @} */

/** @name Failures
 * @{ */

/** It will never work: the event becomes a dead letter with this reason. */
void wattle_reject(wattle_out *out, const char *format, ...) WATTLE_FORMAT_(2, 3);

/** It may work later: the event is tried again, when the topology says. */
void wattle_retry(wattle_out *out, const char *format, ...) WATTLE_FORMAT_(2, 3);

/** It may work later: the event is tried again after a delay. */
void wattle_retry_after(wattle_out *out, uint64_t delay_ms, const char *format, ...) WATTLE_FORMAT_(3, 4);

/** Whether the event failed. */
bool wattle_failed(const wattle_out *out);

/** Takes a failure back, so that the event is handled: for a handler that can do without what failed. `reason` may be
 * NULL.
 * @return whether the event had failed. */
bool wattle_recover(wattle_out *out, wattle_str *reason);

/** Ends the handler with a message, the author's file and the line, which become the reason of the failure. As every
 * trap it loses the event's outputs and writes, and the event is tried again; a wrong event is rejected instead.
 * `assert` does the same. */
#define WATTLE_PANIC(...) wattle_panic(__FILE__, __LINE__, __VA_ARGS__)

/** WATTLE_PANIC() with a place of one's own. */
#if defined(__GNUC__)
__attribute__((noreturn))
#endif
void wattle_panic(const char *file, int line, const char *format, ...) WATTLE_FORMAT_(3, 4);
/** @} */

/** @name Memory of one event
 * @{ */

/** Memory until the event is over, for any type, not cleared. It never gives NULL. */
void *wattle_alloc(wattle_out *out, size_t size);

/** Makes a text as printf does. A zero byte comes after it, so that it may be used as a C string. */
wattle_str wattle_format(wattle_out *out, const char *format, ...) WATTLE_FORMAT_(2, 3);

/** The text with a zero byte after it. */
const char *wattle_c_str(wattle_out *out, wattle_str text);
/** @} */

/** @name Log lines
 * `printf` (level info) and `fprintf(stderr, …)` (level warn) work too; their line is complete with '\n' and `fflush`.
 * @{ */

/** How much a log line matters. */
typedef enum wattle_level { WATTLE_TRACE, WATTLE_DEBUG, WATTLE_INFO, WATTLE_WARN, WATTLE_ERROR } wattle_level;

/** Writes a log line, which carries the current event. */
void wattle_log(wattle_level level, const char *format, ...) WATTLE_FORMAT_(2, 3);
#define wattle_debug(...) wattle_log(WATTLE_DEBUG, __VA_ARGS__)
#define wattle_info(...) wattle_log(WATTLE_INFO, __VA_ARGS__)
#define wattle_warn(...) wattle_log(WATTLE_WARN, __VA_ARGS__)
#define wattle_error(...) wattle_log(WATTLE_ERROR, __VA_ARGS__)
/** @} */

/** @name Reading JSON
 * A value that does not fit fails the event with the path of the field, such as `items[3].qty`. Of names that occur
 * twice in an object the last one counts, as for the bus. Where a function takes a name, it reads the member of that
 * name of an object; NULL reads the value itself.
 * @{ */

/** A JSON value. Functions take every value, also a missing one. */
typedef struct wattle_value wattle_value;

/** What a JSON value is. */
typedef enum wattle_kind {
  WATTLE_MISSING,
  WATTLE_NULL,
  WATTLE_BOOLEAN,
  WATTLE_NUMBER,
  WATTLE_TEXT,
  WATTLE_ARRAY,
  WATTLE_OBJECT
} wattle_kind;

/** The data of the event as JSON. Rejects the event when it is not JSON. */
const wattle_value *wattle_event_json(const wattle_event *event, wattle_out *out);

/** Any text as JSON. `what` names it in the reason for which the event is rejected, such as "the template". */
const wattle_value *wattle_parse(wattle_out *out, const char *what, wattle_str text);

/** What a value is. */
wattle_kind wattle_kind_of(const wattle_value *value);
/** Whether there is a member of this name that is not null. */
bool wattle_has(const wattle_value *object, const char *name);
/** A member of an object, of any kind. */
const wattle_value *wattle_get(const wattle_value *object, const char *name);
/** A member that is an object. */
const wattle_value *wattle_object(const wattle_value *object, const char *name);
/** A member that is an array. */
const wattle_value *wattle_array(const wattle_value *object, const char *name);
/** How many items an array or members an object has. */
size_t wattle_length(const wattle_value *array);
/** The first item of an array or member of an object; NULL when there is none. */
const wattle_value *wattle_first(const wattle_value *array);
/** The next one; NULL after the last. `for (item = wattle_first(items); item; item = wattle_next(item))` */
const wattle_value *wattle_next(const wattle_value *item);
/** The name of a member of an object. */
wattle_str wattle_name(const wattle_value *member);

wattle_str wattle_string(const wattle_value *value, const char *name);
bool wattle_bool(const wattle_value *value, const char *name);
/** A whole number without fraction and exponent, exact over all 64 bits; likewise those below. */
int64_t wattle_i64(const wattle_value *value, const char *name);
uint64_t wattle_u64(const wattle_value *value, const char *name);
int32_t wattle_i32(const wattle_value *value, const char *name);
uint32_t wattle_u32(const wattle_value *value, const char *name);
double wattle_double(const wattle_value *value, const char *name);

/** As wattle_string(), with a value for a member that is missing or null; likewise those below. */
wattle_str wattle_string_or(const wattle_value *value, const char *name, wattle_str otherwise);
bool wattle_bool_or(const wattle_value *value, const char *name, bool otherwise);
int64_t wattle_i64_or(const wattle_value *value, const char *name, int64_t otherwise);
uint64_t wattle_u64_or(const wattle_value *value, const char *name, uint64_t otherwise);
double wattle_double_or(const wattle_value *value, const char *name, double otherwise);

/** Fails the event as a value that does not fit does: the path of the value, and these words. For checks of one's own.
 */
void wattle_unfit(const wattle_value *value, const char *format, ...) WATTLE_FORMAT_(2, 3);
/** @} */

/** @name Writing JSON
 * Names are those of members of an object; NULL in an array and for the whole.
 * @{ */

/** A JSON text that is being written. */
typedef struct wattle_writer wattle_writer;

/** Begins a JSON text. Several may be written at once. */
wattle_writer *wattle_json_begin(wattle_out *out);
void wattle_object_begin(wattle_writer *json, const char *name);
void wattle_object_end(wattle_writer *json);
void wattle_array_begin(wattle_writer *json, const char *name);
void wattle_array_end(wattle_writer *json);
/** Bytes that are not UTF-8 are written as U+FFFD. */
void wattle_write_string(wattle_writer *json, const char *name, wattle_str text);
void wattle_write_i64(wattle_writer *json, const char *name, int64_t number);
void wattle_write_u64(wattle_writer *json, const char *name, uint64_t number);
/** Rejects the event when the number is not finite, which JSON cannot say. */
void wattle_write_double(wattle_writer *json, const char *name, double number);
void wattle_write_bool(wattle_writer *json, const char *name, bool value);
void wattle_write_null(wattle_writer *json, const char *name);
/** A value that was read, as it stood there. */
void wattle_write_value(wattle_writer *json, const char *name, const wattle_value *value);
/** The text. An object or array that is not ended yet ends the plugin, as WATTLE_PANIC() does. */
wattle_str wattle_json_end(wattle_writer *json);
/** wattle_send() of the text, with the content type application/json. */
#define wattle_send_json(out, json, ...) wattle_send_json_at(__FILE__, __LINE__, out, json, __VA_ARGS__)
void wattle_send_json_at(const char *file, int line, wattle_out *out, wattle_writer *json, wattle_output output);
/** @} */

/** @name State
 * What the plugin keeps from one event to the next. Each partition has its own, so that events with the same key always
 * meet the same state, and no other lane writes it. Writes of an event are committed together with its outputs;
 * when the event fails, it is as if it had written nothing.
 *
 * Keys have 1 to 1,024 bytes, values at most 1 MiB; one event may write 4 MiB and 10,000 keys. More than that, or a
 * value that does not fit otherwise, is a failure that tries again: trouble with state may pass.
 * @{ */

/** Keys and values of their own. It lives until the event is over. */
typedef struct wattle_bucket wattle_bucket;

/** The bucket `default`. */
wattle_bucket *wattle_state(wattle_out *out);
/** A bucket with a name of up to 64 bytes. */
wattle_bucket *wattle_bucket_open(wattle_out *out, const char *name);
/** @return whether there is a value under the key. */
bool wattle_state_get(wattle_bucket *bucket, wattle_str key, wattle_str *value);
/** The value under a key as JSON; WATTLE_MISSING where there is none. A value that is no JSON tries again: another
 * version of the plugin may read it, and so does what does not fit later. */
const wattle_value *wattle_state_json(wattle_bucket *bucket, wattle_str key);
bool wattle_state_exists(wattle_bucket *bucket, wattle_str key);
void wattle_state_set(wattle_bucket *bucket, wattle_str key, wattle_str value);
/** Removes a key, if it is there. */
void wattle_state_delete(wattle_bucket *bucket, wattle_str key);
/** Adds to the number under a key, which is 0 where there is none, and gives the sum. It is kept in decimal digits. */
int64_t wattle_state_increment(wattle_bucket *bucket, wattle_str key, int64_t delta);

/** All keys of a bucket, in ascending order of their bytes. They are read 1,000 at once, as far as they are asked for.
 */
typedef struct wattle_keys wattle_keys;
wattle_keys *wattle_state_keys(wattle_bucket *bucket);
/** @return whether there is a further key. */
bool wattle_keys_next(wattle_keys *keys, wattle_str *key);
/** @} */

/** @name The plugin
 * @{ */

/** Events that came in one call. */
typedef struct wattle_batch wattle_batch;

typedef void wattle_handler(const wattle_event *event, wattle_out *out);
typedef void wattle_batch_handler(wattle_batch *batch, wattle_out *out);

/** What WATTLE_PLUGIN() declares. */
struct wattle_plugin {
  wattle_handler *handle;
  wattle_batch_handler *handle_batch;
  /** Ends with NULL. */
  const char *const *ports;
};
extern const struct wattle_plugin wattle_plugin;

#define WATTLE_PLUGIN_(handle, handle_batch, ...)             \
  static const char *const wattle_ports_[] = { __VA_ARGS__ }; \
  const struct wattle_plugin wattle_plugin = { handle, handle_batch, wattle_ports_ };

/** Makes a plugin of a handler and the names of its ports. The bus refuses a topology that does not connect exactly
 * these. Without names, the plugin sends to whatever ports the topology connects. */
#define WATTLE_PLUGIN(...) WATTLE_PLUGIN_EACH_(__VA_ARGS__, (const char *)0)
#define WATTLE_PLUGIN_EACH_(handler, ...) WATTLE_PLUGIN_(handler, (wattle_batch_handler *)0, __VA_ARGS__)

/** As WATTLE_PLUGIN(), for a handler that wants to see the events of a call together:
 * @code
 * static void handle(wattle_batch *batch, wattle_out *out) {
 *   // Look ahead with wattle_batch_event(batch, i), then:
 *   for (const wattle_event *event; (event = wattle_batch_next(batch));) wattle_send(out, …);
 * }
 * @endcode
 * Batches are cut as it suits the bus: an answer must not depend on which events come together. */
#define WATTLE_BATCH_PLUGIN(...) WATTLE_PLUGIN_BATCH_(__VA_ARGS__, (const char *)0)
#define WATTLE_PLUGIN_BATCH_(handler, ...) WATTLE_PLUGIN_((wattle_handler *)0, handler, __VA_ARGS__)

/** Turns to the next event of the batch: state, clocks, random bytes, log lines and outputs are about that one from
 * here on.
 * @return NULL after the last one, and when an event failed. */
const wattle_event *wattle_batch_next(wattle_batch *batch);
/** The number of events. */
uint32_t wattle_batch_length(const wattle_batch *batch);
/** An event by its index from 0, without turning to it. */
const wattle_event *wattle_batch_event(const wattle_batch *batch, uint32_t index);
/** @} */

/** @name Configuration
 * @{ */

/** The text of a setting of the topology, for plugins that declare none.
 * @return whether there is one. */
bool wattle_config(wattle_out *out, const char *name, wattle_str *value);

#include "wattle_declare.h"
/** @} */

#ifdef __cplusplus
}
#endif
#endif
