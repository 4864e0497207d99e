/**
 * @file internal.h
 * What the parts of the SDK share. Handlers use wattle.h.
 *
 * @code
 *   call.c      events in, outputs and failures out          memory.c    the memory of a call and of an event
 *   json.c      reading, writer.c: writing                   state.c     buckets, settings.c: configuration
 *   ------------------------------------------------------------------------------------------------------------
 *   wattle_host_*: contract/wasm.c, over the bus; or test/wattle_test.c, over a bus in memory
 * @endcode
 */
#ifndef WATTLE_INTERNAL_H
#define WATTLE_INTERNAL_H

#include "wattle.h"

#include <stdarg.h>

/** @name Memory
 * @{ */

/** Memory that is freed all at once. */
typedef struct wattle_arena {
  struct wattle_chunk *chunks;
  size_t used;
} wattle_arena;

/** What belongs to a call: its events, its outputs. */
extern wattle_arena wattle_call_memory;
/** What belongs to the current event. */
extern wattle_arena wattle_event_memory;
/** Where that goes which the host hands over: one of the two. */
extern wattle_arena *wattle_host_memory;

/** Memory of an arena, aligned for any type; there is a zero byte after it. Ends the plugin where there is none. */
void *wattle_arena_take(wattle_arena *arena, size_t size);
/** As realloc, with less copying where it was the last that was taken. */
void *wattle_arena_grow(wattle_arena *arena, void *old, size_t old_size, size_t size);
wattle_str wattle_arena_copy(wattle_arena *arena, wattle_str text);
wattle_str wattle_arena_format(wattle_arena *arena, const char *format, va_list arguments);
bool wattle_arena_holds(const wattle_arena *arena, const char *data);
/** Frees everything, and keeps a chunk for the next time. */
void wattle_arena_reset(wattle_arena *arena);
/** @} */

/** @name Calls
 * @{ */

/** The consequence of a failure. */
typedef enum wattle_action { WATTLE_REJECTED, WATTLE_RETRIED, WATTLE_RETRIED_AFTER } wattle_action;

/** An output as the contract has it. */
typedef struct wattle_sent {
  uint32_t event, port;
  bool has_key;
  wattle_str key, type, content_type, attributes, data;
} wattle_sent;

struct wattle_bucket {
  wattle_out *out;
  int32_t handle;
  wattle_bucket *opened_before;
};

struct wattle_out {
  /** Outputs of all events that were handled, in the memory of the call. */
  wattle_sent *sent;
  size_t len, capacity;
  /** How many of them belong to events before the current one. */
  size_t len_before;
  uint32_t event;
  bool is_in_event, has_failed;
  wattle_action action;
  uint64_t delay_ms;
  wattle_str reason;
  /** The attributes of the current event, once they were asked for. */
  wattle_str attributes;
  /** Buckets that the current event opened. */
  wattle_bucket *buckets;
};

struct wattle_batch {
  const wattle_event *events;
  uint32_t len, next;
  wattle_out *out;
};

/** Calls the handler for a batch. */
void wattle_run(wattle_batch *batch, wattle_out *out);
/** Fails the current event, unless it failed before. The reason is copied. */
void wattle_fail(wattle_out *out, wattle_action action, uint64_t delay_ms, wattle_str reason);
/** @} */

/** @name JSON
 * @{ */

/** Reads a text. What does not fit it has an action and a first part of its reason. */
const wattle_value *wattle_json_read(wattle_out *out, wattle_str text, wattle_action action, wattle_str about);
/** A value that is not there, of nothing. */
const wattle_value *wattle_json_missing(wattle_out *out, wattle_action action, wattle_str about);
wattle_str wattle_json_raw(const wattle_value *value);
bool wattle_number_u64(wattle_str text, uint64_t *number);
bool wattle_number_i64(wattle_str text, int64_t *number);
bool wattle_number_double(wattle_str text, double *number);
/** @} */

/** @name UTF-8
 * @{ */

/** How many bytes the character at the start of a text has; 0 where it is not UTF-8. */
size_t wattle_utf8_character(const char *text, size_t len);
bool wattle_utf8_valid(wattle_str text);
/** Replaces bytes that are not UTF-8 by `?`. */
void wattle_utf8_mend(char *text, size_t len);
/** @} */

/** @name The host
 * What these functions give is in wattle_host_memory.
 * @{ */

/** Begins an event: everything else is about that one from here on. */
void wattle_host_current(uint32_t event);
wattle_str wattle_host_attributes(void);
/** The ports that the topology connects; they live for ever. */
size_t wattle_host_ports(const wattle_str **ports);
bool wattle_host_config(wattle_str name, wattle_str *value);
/** The levels of wattle_level, and one above. */
void wattle_host_log(int level, wattle_str context, wattle_str line);
/** Ends the plugin. */
#if defined(__GNUC__)
__attribute__((noreturn))
#endif
void wattle_host_trap(void);

/** The functions of wasi:keyvalue. They give whether it worked; if not, why. */
bool wattle_host_open(wattle_str name, int32_t *bucket, wattle_str *why);
void wattle_host_close(int32_t bucket);
bool wattle_host_get(int32_t bucket, wattle_str key, bool *is_there, wattle_str *value, wattle_str *why);
bool wattle_host_set(int32_t bucket, wattle_str key, wattle_str value, wattle_str *why);
bool wattle_host_delete(int32_t bucket, wattle_str key, wattle_str *why);
bool wattle_host_exists(int32_t bucket, wattle_str key, bool *is_there, wattle_str *why);
bool wattle_host_increment(int32_t bucket, wattle_str key, int64_t delta, int64_t *sum, wattle_str *why);
/** The keys after `cursor`, or the first ones where it has no data. `next` has no data after the last page. */
bool wattle_host_keys(
    int32_t bucket, wattle_str cursor, const wattle_str **keys, size_t *len, wattle_str *next, wattle_str *why);
/** @} */

/** The level of a panic, above those of wattle_level. */
#define WATTLE_CRITICAL 5

#endif
