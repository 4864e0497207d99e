/* Arenas: chunks that double in size, and are freed together. */
#include "internal.h"

#include <stdio.h>

/* Memory is aligned for any type. */
#define ALIGNMENT 16
#define FIRST_CHUNK_BYTES ((size_t)16 << 10)
/* What an instance keeps from one event to the next: a single large event should not hold its memory for ever. */
#define KEPT_CHUNK_BYTES ((size_t)1 << 20)

typedef struct wattle_chunk {
  struct wattle_chunk *next;
  size_t size;
} chunk;

#define HEAD_BYTES ((sizeof(chunk) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT)

wattle_arena wattle_call_memory;
wattle_arena wattle_event_memory;
wattle_arena *wattle_host_memory = &wattle_call_memory;

static char *start(const chunk *of) { return (char *)(uintptr_t)of + HEAD_BYTES; }

static size_t rounded(size_t size) {
  /* One more for the zero byte. */
  if (size >= SIZE_MAX - ALIGNMENT - HEAD_BYTES) WATTLE_PANIC("out of memory: %zu bytes", size);
  return (size + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
}

void *wattle_arena_take(wattle_arena *arena, size_t size) {
  size_t bytes = rounded(size);
  chunk *last = arena->chunks;
  if (!last || last->size - arena->used < bytes) {
    size_t want = last && last->size < KEPT_CHUNK_BYTES ? last->size * 2 : last ? last->size : FIRST_CHUNK_BYTES;
    if (want < bytes) want = bytes;
    chunk *more = (chunk *)malloc(HEAD_BYTES + want);
    if (!more) WATTLE_PANIC("out of memory: %zu bytes", want);
    more->next = last;
    more->size = want;
    arena->chunks = last = more;
    arena->used = 0;
  }
  char *taken = start(last) + arena->used;
  arena->used += bytes;
  taken[size] = 0;
  return taken;
}

void *wattle_arena_grow(wattle_arena *arena, void *old, size_t old_size, size_t size) {
  chunk *last = arena->chunks;
  size_t old_bytes = old ? rounded(old_size) : 0, bytes = rounded(size);
  bool is_last = old && last && (char *)old + old_bytes == start(last) + arena->used;
  if (is_last && last->size - (arena->used - old_bytes) >= bytes) {
    arena->used = arena->used - old_bytes + bytes;
    ((char *)old)[size] = 0;
    return old;
  }
  void *taken = wattle_arena_take(arena, size);
  if (old) memcpy(taken, old, old_size < size ? old_size : size);
  return taken;
}

wattle_str wattle_arena_copy(wattle_arena *arena, wattle_str text) {
  wattle_str copy = { (const char *)wattle_arena_take(arena, text.len), text.len };
  if (text.len) memcpy((char *)(uintptr_t)copy.data, text.data, text.len);
  return copy;
}

wattle_str wattle_arena_format(wattle_arena *arena, const char *format, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  int len = vsnprintf(NULL, 0, format, arguments);
  wattle_str text = { "", 0 };
  if (len > 0) {
    char *data = (char *)wattle_arena_take(arena, (size_t)len);
    vsnprintf(data, (size_t)len + 1, format, again);
    text.data = data;
    text.len = (size_t)len;
  }
  va_end(again);
  return text;
}

bool wattle_arena_holds(const wattle_arena *arena, const char *data) {
  for (const chunk *each = arena->chunks; each; each = each->next)
    if (data >= start(each) && data < start(each) + each->size) return true;
  return false;
}

void wattle_arena_reset(wattle_arena *arena) {
  chunk *kept = NULL;
  for (chunk *each = arena->chunks, *next; each; each = next) {
    next = each->next;
    /* The newest chunk is the largest that may be kept. */
    if (!kept && each->size <= KEPT_CHUNK_BYTES) {
      kept = each;
      each->next = NULL;
    } else {
      free(each);
    }
  }
  arena->chunks = kept;
  arena->used = 0;
}

void *wattle_alloc(wattle_out *out, size_t size) {
  (void)out;
  return wattle_arena_take(&wattle_event_memory, size);
}

wattle_str wattle_format(wattle_out *out, const char *format, ...) {
  (void)out;
  va_list arguments;
  va_start(arguments, format);
  wattle_str text = wattle_arena_format(&wattle_event_memory, format, arguments);
  va_end(arguments);
  return text;
}

const char *wattle_c_str(wattle_out *out, wattle_str text) {
  (void)out;
  return wattle_arena_copy(&wattle_event_memory, text).data;
}
