/* State: buckets over the host's. What goes wrong tries the event again. */
#include "internal.h"

/* The key itself may be too long. */
#define SHOWN_BYTES 64

struct wattle_keys {
  wattle_bucket *bucket;
  const wattle_str *page;
  size_t len, next;
  /* The key after which the next page begins. */
  wattle_str cursor;
  bool is_last;
};

static const wattle_str NOTHING = { "", 0 };

static void trouble(wattle_out *out, const char *doing, wattle_str what, wattle_str why) {
  int shown = what.len > SHOWN_BYTES ? SHOWN_BYTES : (int)what.len;
  wattle_str reason = wattle_format(out, "state: %s \"%.*s\": %.*s", doing, shown, what.data, WATTLE_ARG(why));
  wattle_fail(out, WATTLE_RETRIED, 0, reason);
}

static wattle_bucket *opened(wattle_out *out, const char *name) {
  if (!out->is_in_event) WATTLE_PANIC("there is no state outside of an event");
  wattle_bucket *bucket = (wattle_bucket *)wattle_arena_take(&wattle_event_memory, sizeof *bucket);
  bucket->out = out;
  bucket->handle = -1;
  bucket->opened_before = NULL;
  wattle_str why = WATTLE_STR("the name is not UTF-8"), of = wattle_str_of(name);
  if (!wattle_utf8_valid(of) || !wattle_host_open(of, &bucket->handle, &why)) {
    bucket->handle = -1;
    trouble(out, "opening", of, why);
  }
  return bucket;
}

wattle_bucket *wattle_state(wattle_out *out) {
  /* Open for as long as the instance lives: it is a name, and means the state of whatever event is current. */
  static int32_t handle = -1;
  static uint32_t generation;
  if (handle < 0 || generation != wattle_config_generation()) {
    handle = opened(out, "")->handle;
    generation = wattle_config_generation();
  }
  wattle_bucket *bucket = (wattle_bucket *)wattle_arena_take(&wattle_event_memory, sizeof *bucket);
  bucket->out = out;
  bucket->handle = handle;
  bucket->opened_before = NULL;
  return bucket;
}

wattle_bucket *wattle_bucket_open(wattle_out *out, const char *name) {
  wattle_bucket *bucket = opened(out, name);
  if (bucket->handle >= 0) {
    bucket->opened_before = out->buckets;
    out->buckets = bucket;
  }
  return bucket;
}

/* Whether something can be done at all: nothing is written for an event that failed. */
static bool is_open(const wattle_bucket *bucket) { return bucket->handle >= 0 && !bucket->out->has_failed; }

static bool is_usable(const wattle_bucket *bucket, const char *doing, wattle_str key) {
  if (!is_open(bucket)) return false;
  if (wattle_utf8_valid(key)) return true;
  trouble(bucket->out, doing, key, WATTLE_STR("the key is not UTF-8"));
  return false;
}

bool wattle_state_get(wattle_bucket *bucket, wattle_str key, wattle_str *value) {
  bool is_there = false;
  wattle_str why = NOTHING;
  *value = NOTHING;
  if (is_usable(bucket, "reading", key) && !wattle_host_get(bucket->handle, key, &is_there, value, &why)) {
    trouble(bucket->out, "reading", key, why);
    is_there = false;
  }
  if (!is_there) *value = NOTHING;
  return is_there;
}

const wattle_value *wattle_state_json(wattle_bucket *bucket, wattle_str key) {
  int shown = key.len > SHOWN_BYTES ? SHOWN_BYTES : (int)key.len;
  wattle_str about =
      wattle_format(bucket->out, "state: what is under \"%.*s\" is not what this plugin reads", shown, key.data);
  wattle_str value;
  if (!wattle_state_get(bucket, key, &value)) return wattle_json_missing(bucket->out, WATTLE_RETRIED, about);
  return wattle_json_read(bucket->out, value, WATTLE_RETRIED, about);
}

bool wattle_state_exists(wattle_bucket *bucket, wattle_str key) {
  bool is_there = false;
  wattle_str why = NOTHING;
  if (is_usable(bucket, "reading", key) && !wattle_host_exists(bucket->handle, key, &is_there, &why)) {
    trouble(bucket->out, "reading", key, why);
    is_there = false;
  }
  return is_there;
}

void wattle_state_set(wattle_bucket *bucket, wattle_str key, wattle_str value) {
  wattle_str why = NOTHING;
  if (is_usable(bucket, "writing", key) && !wattle_host_set(bucket->handle, key, value, &why))
    trouble(bucket->out, "writing", key, why);
}

void wattle_state_delete(wattle_bucket *bucket, wattle_str key) {
  wattle_str why = NOTHING;
  if (is_usable(bucket, "deleting", key) && !wattle_host_delete(bucket->handle, key, &why))
    trouble(bucket->out, "deleting", key, why);
}

int64_t wattle_state_increment(wattle_bucket *bucket, wattle_str key, int64_t delta) {
  int64_t sum = 0;
  wattle_str why = NOTHING;
  if (is_usable(bucket, "incrementing", key) && !wattle_host_increment(bucket->handle, key, delta, &sum, &why)) {
    trouble(bucket->out, "incrementing", key, why);
    sum = 0;
  }
  return sum;
}

wattle_keys *wattle_state_keys(wattle_bucket *bucket) {
  wattle_keys *keys = (wattle_keys *)wattle_arena_take(&wattle_event_memory, sizeof *keys);
  memset(keys, 0, sizeof *keys);
  keys->bucket = bucket;
  return keys;
}

bool wattle_keys_next(wattle_keys *keys, wattle_str *key) {
  *key = NOTHING;
  if (!is_open(keys->bucket)) return false;
  /* A page may have no keys and not be the last. */
  while (keys->next == keys->len) {
    if (keys->is_last) return false;
    wattle_str why = NOTHING, cursor = keys->cursor;
    keys->next = keys->len = 0;
    if (!wattle_host_keys(keys->bucket->handle, cursor, &keys->page, &keys->len, &keys->cursor, &why)) {
      trouble(keys->bucket->out, "listing behind", cursor.data ? cursor : NOTHING, why);
      keys->len = 0;
      return false;
    }
    keys->is_last = keys->cursor.data == NULL;
  }
  *key = keys->page[keys->next++];
  return true;
}
