/* What the library promises, tried on this machine: `make test` runs it, under the sanitizers. The verbs of the plugin
 * under test are types of events. */
#include "../wattle/test/wattle_test.h"

#include <stdio.h>

#define SETTINGS(DEFAULT, REQUIRED, OPTIONAL)               \
  DEFAULT(string, word, "hello", "A text.")                 \
  DEFAULT(u32, times, 2, "A whole number.")                 \
  DEFAULT(i64, least, -9223372036854775807, "A large one.") \
  DEFAULT(number, ratio, 0.5, "A number.")                  \
  DEFAULT(boolean, loud, true, "A switch.")                 \
  OPTIONAL(string, end, "A text that may be missing.")      \
  OPTIONAL(u64, most, "A number that may be missing.")
WATTLE_CONFIG(settings, SETTINGS)

#define REQUIRED_SETTINGS(DEFAULT, REQUIRED, OPTIONAL) REQUIRED(string, language, "There is no default.")
WATTLE_CONFIG(required, REQUIRED_SETTINGS)

static void send_text(wattle_out *out, wattle_str text) {
  wattle_send(out, (wattle_output){ .port = "first", .data = text });
}

static void order(const wattle_event *event, wattle_out *out) {
  const wattle_value *of = wattle_event_json(event, out);
  wattle_str id = wattle_string(of, "id");
  uint64_t sum = 0;
  const wattle_value *items = wattle_array(of, "items");
  for (const wattle_value *item = wattle_first(items); item; item = wattle_next(item)) sum += wattle_u32(item, "qty");
  wattle_str name = wattle_string(wattle_object(of, "customer"), "name");
  send_text(out, wattle_format(out, "%.*s %llu %.*s", WATTLE_ARG(id), (unsigned long long)sum, WATTLE_ARG(name)));
}

static void numbers(const wattle_event *event, wattle_out *out) {
  const wattle_value *of = wattle_event_json(event, out);
  wattle_writer *json = wattle_json_begin(out);
  wattle_array_begin(json, NULL);
  wattle_write_i64(json, NULL, wattle_i64(of, "i64"));
  wattle_write_u64(json, NULL, wattle_u64(of, "u64"));
  wattle_write_i64(json, NULL, wattle_i32(of, "i32"));
  wattle_write_u64(json, NULL, wattle_u32(of, "u32"));
  wattle_write_double(json, NULL, wattle_double(of, "double"));
  wattle_write_u64(json, NULL, wattle_u64_or(of, "none", 7));
  wattle_array_end(json);
  wattle_send_json(out, json, (wattle_output){ .port = "second" });
}

static void write_all(const wattle_event *event, wattle_out *out) {
  wattle_writer *json = wattle_json_begin(out);
  wattle_object_begin(json, NULL);
  wattle_write_string(json, "a\"b", event->data);
  wattle_array_begin(json, "list");
  wattle_write_null(json, NULL);
  wattle_write_bool(json, NULL, true);
  wattle_object_begin(json, NULL);
  wattle_object_end(json);
  for (int number = 0; number < 1000; number++) wattle_write_i64(json, NULL, number);
  wattle_array_end(json);
  wattle_object_end(json);
  wattle_send_json(out, json, (wattle_output){ .port = "first" });
}

static void keys(wattle_out *out) {
  wattle_bucket *bucket = wattle_bucket_open(out, "own");
  for (int number = 2499; number >= 0; number--)
    wattle_state_set(bucket, wattle_format(out, "%05d", number), WATTLE_STR(""));
  wattle_state_delete(bucket, WATTLE_STR("00000"));
  wattle_keys *all = wattle_state_keys(bucket);
  size_t count = 0;
  wattle_str key, first = WATTLE_STR("");
  while (wattle_keys_next(all, &key))
    if (count++ == 0) first = key;
  send_text(out, wattle_format(out, "%zu %.*s", count, WATTLE_ARG(first)));
}

static void handle_event(const wattle_event *event, wattle_out *out) {
  wattle_str verb = event->type;
  wattle_bucket *state = wattle_state(out);
  if (wattle_is(verb, "order"))
    order(event, out);
  else if (wattle_is(verb, "numbers"))
    numbers(event, out);
  else if (wattle_is(verb, "write"))
    write_all(event, out);
  else if (wattle_is(verb, "keys"))
    keys(out);
  else if (wattle_is(verb, "text"))
    send_text(out, wattle_event_text(event, out));
  else if (wattle_is(verb, "nan"))
    wattle_write_double(wattle_json_begin(out), NULL, strtod("nan", NULL));
  else if (wattle_is(verb, "no-port"))
    wattle_send(out, (wattle_output){ .port = "third" });
  else if (wattle_is(verb, "later"))
    wattle_retry_after(out, 1500, "not %s", "yet");
  else if (wattle_is(verb, "no"))
    wattle_reject(out, "%.*s", WATTLE_ARG(event->data));
  else if (wattle_is(verb, "language"))
    send_text(out, required_get(out)->language);
  else if (wattle_is(verb, "count")) {
    int64_t sum = wattle_state_increment(state, event->key, 3);
    send_text(out, wattle_format(out, "%lld", (long long)sum));
  } else if (wattle_is(verb, "bad-key")) {
    wattle_state_set(state, WATTLE_STR("before"), WATTLE_STR("x"));
    wattle_state_set(state, WATTLE_STR(""), WATTLE_STR("x"));
  } else if (wattle_is(verb, "half")) {
    send_text(out, event->data);
    wattle_reject(out, "no");
  } else if (wattle_is(verb, "bytes")) {
    wattle_state_set(state, event->data, WATTLE_STR("x"));
  } else if (wattle_is(verb, "panic")) {
    WATTLE_PANIC("%.*s", WATTLE_ARG(event->data));
  } else if (wattle_is(verb, "type")) {
    wattle_send(out, (wattle_output){ .port = "first", .type = event->data });
  } else if (wattle_is(verb, "recovered")) {
    wattle_str reason;
    wattle_state_set(state, WATTLE_STR(""), WATTLE_STR("x"));
    if (wattle_recover(out, &reason)) send_text(out, reason);
  } else if (wattle_is(verb, "seen")) {
    const wattle_value *seen = wattle_state_json(state, WATTLE_STR("seen"));
    if (wattle_kind_of(seen) != WATTLE_MISSING) send_text(out, wattle_string(seen, "last"));
    wattle_state_set(state, WATTLE_STR("seen"), WATTLE_STR("{}"));
  } else if (wattle_is(verb, "config")) {
    const settings *of = settings_get(out);
    send_text(out, wattle_format(out, "%.*s %u %lld %g %d %s %llu", WATTLE_ARG(of->word), (unsigned)of->times,
                       (long long)of->least, of->ratio, of->loud, of->end ? of->end->data : "-",
                       of->most ? (unsigned long long)*of->most : 0));
  } else if (wattle_is(verb, "attributes")) {
    wattle_str subject;
    bool is_there = wattle_attribute(out, "subject", &subject);
    bool is_sub_there = wattle_attribute(out, "sub", &(wattle_str){ NULL, 0 });
    wattle_send(out, (wattle_output){ .port = "first", .key = WATTLE_STR("") });
    wattle_send_attribute(out, "su=b", subject);
    wattle_send_attribute(out, "dataschema", is_there && !is_sub_there ? WATTLE_STR("x\ndelay=30d") : WATTLE_STR("?"));
  }
}

static void handle(wattle_batch *batch, wattle_out *out) {
  if (wattle_batch_length(batch) > 1 && wattle_is(wattle_batch_event(batch, 1)->type, "early")) return;
  for (const wattle_event *event; (event = wattle_batch_next(batch));) handle_event(event, out);
}

WATTLE_BATCH_PLUGIN(handle, "first", "second")

static wattle_event of(const char *type, wattle_str data) {
  return (wattle_event){ .key = WATTLE_STR("k"), .type = wattle_str_of(type), .data = data };
}

static const wattle_result *try_it(const char *type, const char *data) {
  return wattle_test_handle(of(type, wattle_str_of(data)));
}

#define OUTPUT(result, at) ((result)->len > (at) ? (result)->outputs[at].data : (wattle_str){ NULL, 0 })

/* The reason without what all of them begin with. */
static void expect_unfit(const char *type, const char *data, const char *reason) {
  const wattle_result *result = try_it(type, data);
  char whole[512];
  snprintf(whole, sizeof whole, "the data is not what this plugin reads: %s", reason);
  WATTLE_EXPECT(result->rejected);
  WATTLE_EXPECT_TEXT(result->reason, whole);
}

static void reading(void) {
  wattle_test("what fits is read, and of names that occur twice the last one counts");
  WATTLE_EXPECT_TEXT(
      OUTPUT(try_it("order", " {\"id\":\"x\",\"id\":\"o-1\",\"items\":[{\"qty\":1},{\"qty\":4294967295}],"
                             "\"customer\":{\"name\":\"\\u00e9\\ud83e\\udd80\\n\\/\"},\"more\":[[{}]]}\n"),
          0),
      "o-1 4294967296 é🦀\n/");

  wattle_test("what does not fit is rejected with its path");
  expect_unfit("order", "{}", "id is missing");
  expect_unfit("order", "[]", "it is an array, and should be an object");
  expect_unfit("order", "{\"id\":7}", "id is a number, and should be a text");
  expect_unfit("order", "{\"id\":null}", "id is null, and should be a text");
  expect_unfit("order", "{\"id\":\"x\",\"items\":{}}", "items is an object, and should be an array");
  expect_unfit("order", "{\"id\":\"x\",\"items\":[{\"qty\":1},{}]}", "items[1].qty is missing");
  expect_unfit("order", "{\"id\":\"x\",\"items\":[7]}", "items[0] is a number, and should be an object");
  expect_unfit(
      "order", "{\"id\":\"x\",\"items\":[{\"qty\":-1}]}", "items[0].qty is not a whole number from 0 to 4294967295");
  expect_unfit(
      "order", "{\"id\":\"x\",\"items\":[{\"qty\":1.0}]}", "items[0].qty is not a whole number from 0 to 4294967295");
  expect_unfit("order", "{\"id\":\"x\",\"items\":[]}", "customer is missing");
  expect_unfit("order", "{\"id\":\"x\",\"items\":[],\"customer\":{\"name\":[]}}",
      "customer.name is an array, and should be a text");

  wattle_test("what is no JSON is rejected with the place");
  expect_unfit("order", "", "it is not JSON: a value is needed at line 1, column 1");
  expect_unfit("order", "{\n \"é\" 1", "it is not JSON: `:` is needed after the name of a member at line 2, column 6");
  expect_unfit("order", "[1,]", "it is not JSON: no value begins so at line 1, column 4");
  expect_unfit("order", "[01]", "it is not JSON: `,` or `]` is needed at line 1, column 3");
  expect_unfit(
      "order", "{\"a\":1,}", "it is not JSON: the name of a member is needed, in double quotes at line 1, column 8");
  expect_unfit("order", "1 2", "it is not JSON: there is more after the value at line 1, column 3");
  expect_unfit("order", "\"\\ud800\"", "it is not JSON: half of a surrogate pair at line 1, column 8");
  expect_unfit("order", "\"\\ud800\\u0041\"", "it is not JSON: half of a surrogate pair at line 1, column 14");
  expect_unfit("order", "\"\xc0\x80\"", "it is not JSON: the text is not UTF-8 at line 1, column 2");
  expect_unfit(
      "order", "\"\\n\x01\"", "it is not JSON: a control character in a text needs an escape at line 1, column 4");
  expect_unfit("order", "\"\\x\"", "it is not JSON: no such escape at line 1, column 4");
  expect_unfit("order", "\"a", "it is not JSON: the text has no end at line 1, column 3");
  expect_unfit("order", "\"a\\", "it is not JSON: the text has no end at line 1, column 4");
  expect_unfit("order", "nul", "it is not JSON: no value begins so at line 1, column 1");
  expect_unfit("order", "-", "it is not JSON: a digit is needed at line 1, column 2");
  char deep[257];
  memset(deep, '[', 128);
  memset(deep + 128, ']', 128);
  deep[256] = '\0';
  expect_unfit("order", deep, "it is not JSON: nested too deeply at line 1, column 129");
  expect_unfit("order", deep + 1, "it is not JSON: there is more after the value at line 1, column 255");

  wattle_test("numbers are exact, or refused");
  WATTLE_EXPECT_TEXT(
      OUTPUT(try_it("numbers", "{\"i64\":-9223372036854775808,\"u64\":18446744073709551615,\"i32\":-2147483648,"
                               "\"u32\":0,\"double\":0.30000000000000004,\"none\":null}"),
          0),
      "[-9223372036854775808,18446744073709551615,-2147483648,0,0.30000000000000004,7]");
  expect_unfit("numbers", "{\"i64\":9223372036854775808}", "i64 is not a whole number of 64 bits");
  expect_unfit("numbers", "{\"i64\":-9223372036854775809}", "i64 is not a whole number of 64 bits");
  expect_unfit("numbers", "{\"i64\":1e2}", "i64 is not a whole number of 64 bits");
  expect_unfit("numbers", "{\"i64\":1,\"u64\":18446744073709551616}",
      "u64 is not a whole number from 0 to 18446744073709551615");
  expect_unfit("numbers", "{\"i64\":1,\"u64\":1,\"i32\":2147483648}", "i32 is not a whole number of 32 bits");
  expect_unfit("numbers", "{\"i64\":1,\"u64\":1,\"i32\":1,\"u32\":1,\"double\":1e400}", "double is too large");
  expect_unfit("numbers", "{\"i64\":1,\"u64\":1,\"i32\":1,\"u32\":4294967296}",
      "u32 is not a whole number from 0 to 4294967295");

  wattle_test("a text that is not UTF-8 is rejected");
  WATTLE_EXPECT_TEXT(try_it("text", "a\xed\xa0\x80")->reason, "the data is not UTF-8: byte 1 begins no character");
  WATTLE_EXPECT_TEXT(OUTPUT(try_it("text", "é🦀"), 0), "é🦀");
}

static void writing(void) {
  wattle_test("what is written is valid whatever the texts are");
  const wattle_result *result = wattle_test_handle(of("write", WATTLE_STR("\"\\\n\x01\x7f\xffé\0")));
  WATTLE_EXPECT(result->len == 1);
  const char start[] = "{\"a\\\"b\":\"\\\"\\\\\\n\\u0001\x7f\xef\xbf\xbdé\\u0000\",\"list\":[null,true,{},0,1,2,";
  WATTLE_EXPECT(OUTPUT(result, 0).len > sizeof start && memcmp(OUTPUT(result, 0).data, start, sizeof start - 1) == 0);
  WATTLE_EXPECT_TEXT(result->outputs[0].content_type, "application/json");
  WATTLE_EXPECT(try_it("nan", "")->rejected);

  wattle_test("a line end in an attribute cannot begin another one");
  wattle_test_attribute("subject", "a=b");
  result = try_it("attributes", "");
  WATTLE_EXPECT(result->len == 1 && result->outputs[0].key.data != NULL && result->outputs[0].key.len == 0);
  const char lines[] = "su\0b=a=b\ndataschema=x\0delay=30d\n";
  WATTLE_EXPECT(wattle_equal(result->outputs[0].attributes, (wattle_str){ lines, sizeof lines - 1 }));

  wattle_test("a port that is not the plugin's ends it, with the name");
  result = try_it("no-port", "");
  WATTLE_EXPECT(result->panicked && strstr(result->reason.data, "library_test.c:") &&
                strstr(result->reason.data, ": the plugin has no port `third`"));
}

static void failing(void) {
  wattle_test("a failure says what becomes of the event, and drops what was sent");
  const wattle_result *result = try_it("later", "");
  WATTLE_EXPECT(result->retried && result->delay_ms == 1500 && result->len == 0);
  WATTLE_EXPECT_TEXT(result->reason, "not yet");
  result = try_it("half", "x");
  WATTLE_EXPECT(result->rejected && result->len == 0);
  result = try_it("bad-key", "");
  WATTLE_EXPECT(result->retried && wattle_test_state("before").data == NULL);
  WATTLE_EXPECT_TEXT(result->reason, "state: writing \"\": the key is empty");
  WATTLE_EXPECT_TEXT(OUTPUT(try_it("recovered", ""), 0), "state: writing \"\": the key is empty");

  wattle_test("of a batch, what came before a failure stays");
  wattle_str none = WATTLE_STR("");
  wattle_event events[] = { of("count", none), of("count", none), of("no", WATTLE_STR("no")), of("count", none) };
  result = wattle_test_batch(events, 4);
  WATTLE_EXPECT(result->len == 2 && result->rejected);
  WATTLE_EXPECT_TEXT(OUTPUT(result, 1), "6");
  WATTLE_EXPECT_TEXT(wattle_test_state("k"), "6");
  events[1].type = WATTLE_STR("early");
  result = wattle_test_batch(events, 2);
  WATTLE_EXPECT(result->panicked && strstr(result->reason.data, "returned before event 0 of 2"));
}

static void texts(void) {
  wattle_test("what is no text goes nowhere where a text has to be");
  WATTLE_EXPECT_TEXT(try_it("no", "a\xffz")->reason, "a?z");
  WATTLE_EXPECT_TEXT(try_it("bytes", "a\xff")->reason, "state: writing \"a?\": the key is not UTF-8");
  const wattle_result *result = try_it("type", "\xff");
  WATTLE_EXPECT(
      result->panicked && strstr(result->reason.data, "what is sent to `first` has a text that is not UTF-8"));
  result = try_it("panic", "two\nlines \xff");
  WATTLE_EXPECT(result->panicked && strstr(result->reason.data, ": two lines ?"));
}

static void remembering(void) {
  wattle_test("state is read as strictly as events, and tries again");
  WATTLE_EXPECT(try_it("seen", "")->len == 0);
  const wattle_result *result = try_it("seen", "");
  WATTLE_EXPECT(result->retried);
  WATTLE_EXPECT_TEXT(result->reason, "state: what is under \"seen\" is not what this plugin reads: last is missing");

  wattle_test("keys are listed in order over several pages");
  WATTLE_EXPECT_TEXT(OUTPUT(try_it("keys", ""), 0), "2499 00001");
}

static void configured(void) {
  wattle_test("settings have their defaults, or what the topology says");
  WATTLE_EXPECT_TEXT(OUTPUT(try_it("config", ""), 0), "hello 2 -9223372036854775807 0.5 1 - 0");
  wattle_test_config("times", "4294967295");
  wattle_test_config("ratio", "1e3");
  wattle_test_config("loud", "false");
  wattle_test_config("end", "!");
  wattle_test_config("most", "18446744073709551615");
  WATTLE_EXPECT_TEXT(
      OUTPUT(try_it("config", ""), 0), "hello 4294967295 -9223372036854775807 1000 0 ! 18446744073709551615");

  wattle_test("a setting that does not fit tries again, without its value");
  wattle_test_config("times", "secret");
  WATTLE_EXPECT(try_it("config", "")->retried);
  WATTLE_EXPECT_TEXT(try_it("config", "")->reason,
      "the setting `times` does not fit: it should be a whole number from 0 to 4294967295");
  WATTLE_EXPECT_TEXT(
      try_it("language", "")->reason, "the setting `language` is missing: add it to this subscriber's `config:`");
}

static void switched(void) {
  wattle_test("a switch is true or false");
  wattle_test_config("loud", "yes");
  WATTLE_EXPECT_TEXT(try_it("config", "")->reason, "the setting `loud` does not fit: it should be true or false");
}

int main(void) {
  reading();
  writing();
  failing();
  texts();
  remembering();
  configured();
  switched();
  return wattle_test_end();
}
