/**
 * @file wattle_test.h
 * Unit tests of a handler on the author's machine, without a bus: the handler is compiled by the compiler of this
 * machine, together with a bus in memory that has state, settings and attributes.
 *
 * @code
 * #include "wattle_test.h"
 *
 * int main(void) {
 *   wattle_test("a visitor is greeted");
 *   wattle_test_config("word", "Welcome");
 *   const wattle_result *result = wattle_test_json("{\"name\":\"Ada\"}");
 *   WATTLE_EXPECT(result->len == 1);
 *   WATTLE_EXPECT_TEXT(result->outputs[0].data, "{\"text\":\"Welcome, Ada!\"}");
 *   return wattle_test_end();
 * }
 * @endcode
 *
 * The bus runs the handler in a sandbox, with limits and clocks of its own; `wattle test` tries it there.
 */
#ifndef WATTLE_TEST_H
#define WATTLE_TEST_H

#include "../wattle.h"

#ifdef __cplusplus
extern "C" {
#endif

/** An event that the handler sent. */
typedef struct wattle_test_output {
  const char *port;
  /** `key.data` is NULL where the handler set none. */
  wattle_str key;
  wattle_str type, content_type, data;
  /** "name=value\n" lines. */
  wattle_str attributes;
} wattle_test_output;

/** What became of an event. It lives until the next one. */
typedef struct wattle_result {
  /** None where the event failed. */
  const wattle_test_output *outputs;
  size_t len;
  bool rejected, retried, panicked;
  /** After how long it is retried; 0: as the topology says. */
  uint64_t delay_ms;
  /** Why it failed. */
  wattle_str reason;
} wattle_result;

/** Begins a case: without state, configuration and attributes. */
void wattle_test(const char *name);
/** Sets the configuration, one setting at a time. */
void wattle_test_config(const char *name, const char *value);
/** Sets an attribute of the events that follow. */
void wattle_test_attribute(const char *name, const char *value);
/** Handles an event. Its writes into the state stay, unless it fails. */
const wattle_result *wattle_test_handle(wattle_event event);
/** Handles an event with this data, the key "k", the type "t" and the content type application/json. */
const wattle_result *wattle_test_json(const char *data);
/** Handles several events in one call. The outputs are those of all; on a failure, those of the events before it. */
const wattle_result *wattle_test_batch(const wattle_event *events, uint32_t len);
/** The value under a key of the bucket `default`; `data` is NULL where there is none. */
wattle_str wattle_test_state(const char *key);
/** Says how many expectations were not met.
 * @return what `main` should return. */
int wattle_test_end(void);

/** Checks a condition; if it does not hold, reports the place and continues. */
#define WATTLE_EXPECT(condition) wattle_test_expect((condition), #condition, __FILE__, __LINE__)
/** Holds that a text is equal to a C string; if not, shows both. */
#define WATTLE_EXPECT_TEXT(actual, expected) wattle_test_expect_text((actual), (expected), __FILE__, __LINE__)

void wattle_test_expect(bool holds, const char *condition, const char *file, int line);
void wattle_test_expect_text(wattle_str actual, const char *expected, const char *file, int line);

#ifdef __cplusplus
}
#endif
#endif
