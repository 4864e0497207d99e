/* The verbs that fail, and those of the surroundings of a plugin. */
#include "probe.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000u
#define MS_NS 1000000u

static void retry(const wattle_event *event, wattle_out *out) {
  const wattle_value *of = wattle_event_json(event, out);
  uint32_t attempts = wattle_u32(of, "attempts");
  bool has_delay = wattle_has(of, "after_ms");
  uint64_t after_ms = wattle_u64_or(of, "after_ms", 0);
  if (event->attempt >= attempts)
    send_text(event, out, wattle_format(out, "%u", (unsigned)event->attempt));
  else if (has_delay)
    wattle_retry_after(out, after_ms, "not yet");
  else
    wattle_retry(out, "not yet");
}

static void spin(void) {
  for (volatile unsigned turns = 0;; turns++) {
  }
}

static void grow(void) {
  for (;;) {
    volatile char *more = malloc(1 << 20);
    if (!more) WATTLE_PANIC("out of memory");
    for (int at = 0; at < 1 << 20; at += 4096) more[at] = 1;
  }
}

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Winfinite-recursion"
__attribute__((noinline)) static unsigned recurse(unsigned depth) {
  volatile unsigned frame[64];
  frame[depth % 64] = depth;
  return recurse(depth + 1) + frame[depth % 64];
}
#pragma clang diagnostic pop

bool handle_failures(wattle_str verb, const wattle_event *event, wattle_out *out) {
  if (wattle_is(verb, "reject"))
    wattle_reject(out, "%.*s", WATTLE_ARG(event->data));
  else if (wattle_is(verb, "retry"))
    retry(event, out);
  else if (wattle_is(verb, "exit"))
    exit(3);
  else if (wattle_is(verb, "loop"))
    spin();
  else if (wattle_is(verb, "grow"))
    grow();
  else if (wattle_is(verb, "recurse"))
    send_text(event, out, wattle_format(out, "%u", recurse(1)));
  else
    return false;
  return true;
}

static void logged(const wattle_event *event, wattle_out *out) {
  wattle_str text = wattle_event_text(event, out);
  for (int level = WATTLE_TRACE; level <= WATTLE_ERROR; level++)
    wattle_log((wattle_level)level, "%.*s", WATTLE_ARG(text));
  printf("%.*s\n", WATTLE_ARG(text));
  fflush(stdout);
  fprintf(stderr, "%.*s\n", WATTLE_ARG(text));
  send_text(event, out, WATTLE_STR("ok"));
}

static uint64_t now_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static void clock_of_wall(const wattle_event *event, wattle_out *out) {
  uint64_t wall_ms = now_ns(CLOCK_REALTIME) / MS_NS, appended_ms = event->time_ns / MS_NS;
  if (wall_ms == appended_ms)
    send_text(event, out, WATTLE_STR("same"));
  else
    send_text(
        event, out, wattle_format(out, "%llu %llu", (unsigned long long)wall_ms, (unsigned long long)appended_ms));
}

static void sleep_for(const wattle_event *event, wattle_out *out) {
  uint64_t time_ms = strtoull(wattle_c_str(out, event->data), NULL, 10), time_ns = time_ms * MS_NS;
  uint64_t begin = now_ns(CLOCK_MONOTONIC), begin_of_wall = now_ns(CLOCK_REALTIME);
  struct timespec time = { (time_t)(time_ns / SECOND_NS), (long)(time_ns % SECOND_NS) };
  nanosleep(&time, NULL);
  uint64_t moved = now_ns(CLOCK_MONOTONIC) - begin, moved_of_wall = now_ns(CLOCK_REALTIME) - begin_of_wall;
  if (moved_of_wall < moved) moved = moved_of_wall;
  if (moved >= time_ns)
    send_text(event, out, WATTLE_STR("moved"));
  else
    send_text(event, out, wattle_format(out, "%llu", (unsigned long long)(moved / MS_NS)));
}

static void files(const wattle_event *event, wattle_out *out) {
  FILE *file = fopen(wattle_c_str(out, event->data), "r");
  send_text(event, out, file ? WATTLE_STR("opened") : WATTLE_STR("refused"));
  if (file) fclose(file);
}

static void random_numbers(const wattle_event *event, wattle_out *out) {
  unsigned long long bytes = 0;
  if (getentropy(&bytes, sizeof bytes)) wattle_retry(out, "random bytes");
  int first = rand(), second = rand();
  send_text(event, out, wattle_format(out, "%x %x %llx", (unsigned)first, (unsigned)second, bytes));
}

bool handle_world(wattle_str verb, const wattle_event *event, wattle_out *out) {
  if (wattle_is(verb, "log"))
    logged(event, out);
  else if (wattle_is(verb, "clock"))
    clock_of_wall(event, out);
  else if (wattle_is(verb, "sleep"))
    sleep_for(event, out);
  else if (wattle_is(verb, "files"))
    files(event, out);
  else if (wattle_is(verb, "random"))
    random_numbers(event, out);
  /* C has no map; the order is that of the program. */
  else if (wattle_is(verb, "hash"))
    send_text(event, out, WATTLE_STR("z b 1 a 0"));
  else
    return false;
  return true;
}
