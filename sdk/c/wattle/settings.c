/* The configuration of the topology, read once in the life of an instance. */
#include "internal.h"

bool wattle_config(wattle_out *out, const char *name, wattle_str *value) {
  (void)out;
  if (wattle_host_config(wattle_str_of(name), value)) return true;
  value->data = "";
  value->len = 0;
  return false;
}

/* The text of a setting, if there is one. */
static bool said(wattle_out *out, const char *name, bool is_required, bool *fits, wattle_str *text) {
  if (wattle_config(out, name, text)) return true;
  if (is_required) {
    *fits = false;
    wattle_retry(out, "the setting `%s` is missing: add it to this subscriber's `config:`", name);
  }
  return false;
}

/* Without the value, which may be a secret: failures are kept. */
static bool misfit(wattle_out *out, const char *name, bool *fits, const char *wanted) {
  *fits = false;
  wattle_retry(out, "the setting `%s` does not fit: it should be %s", name, wanted);
  return false;
}

bool wattle_setting_string(wattle_out *out, const char *name, bool is_required, bool *fits, wattle_str *value) {
  wattle_str text;
  if (!said(out, name, is_required, fits, &text)) return false;
  /* It outlives the event. */
  static wattle_arena texts;
  static uint32_t generation;
  if (generation != wattle_config_generation()) wattle_arena_reset(&texts);
  generation = wattle_config_generation();
  *value = wattle_arena_copy(&texts, text);
  return true;
}

bool wattle_setting_boolean(wattle_out *out, const char *name, bool is_required, bool *fits, bool *value) {
  wattle_str text;
  if (!said(out, name, is_required, fits, &text)) return false;
  *value = wattle_is(text, "true");
  return *value || wattle_is(text, "false") || misfit(out, name, fits, "true or false");
}

#define WHOLE(type, function, read, wide, is_within, wanted)                                    \
  bool function(wattle_out *out, const char *name, bool is_required, bool *fits, type *value) { \
    wattle_str text;                                                                            \
    wide number = 0;                                                                            \
    if (!said(out, name, is_required, fits, &text)) return false;                               \
    if (!read(text, &number) || !(is_within)) return misfit(out, name, fits, wanted);           \
    *value = (type)number;                                                                      \
    return true;                                                                                \
  }

WHOLE(int32_t, wattle_setting_i32, wattle_number_i64, int64_t, number >= INT32_MIN && number <= INT32_MAX,
    "a whole number of 32 bits")
WHOLE(uint32_t, wattle_setting_u32, wattle_number_u64, uint64_t, number <= UINT32_MAX,
    "a whole number from 0 to 4294967295")
WHOLE(int64_t, wattle_setting_i64, wattle_number_i64, int64_t, true, "a whole number of 64 bits")
WHOLE(uint64_t, wattle_setting_u64, wattle_number_u64, uint64_t, true, "a whole number from 0 to 18446744073709551615")

bool wattle_setting_number(wattle_out *out, const char *name, bool is_required, bool *fits, double *value) {
  wattle_str text;
  if (!said(out, name, is_required, fits, &text)) return false;
  return wattle_number_double(text, value) || misfit(out, name, fits, "a number");
}
