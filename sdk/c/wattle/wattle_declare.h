/**
 * @file wattle_declare.h
 * Declarations of a plugin: custom sections of the component, which the bus reads before anything runs.
 * Part of wattle.h.
 *
 * @code
 * #define SETTINGS(DEFAULT, REQUIRED, OPTIONAL)                              \
 *   DEFAULT(string, word, "Hello", "What a greeting begins with.")           \
 *   DEFAULT(u32, times, 1, "How often.")                                     \
 *   OPTIONAL(string, end, "What it ends with.")                              \
 *   REQUIRED(string, language, "The language of the greeting.")
 * WATTLE_CONFIG(settings, SETTINGS)
 *
 * static void handle(const wattle_event *event, wattle_out *out) {
 *   const settings *config = settings_get(out);
 *   …
 * }
 * @endcode
 */
#ifndef WATTLE_DECLARE_H
#define WATTLE_DECLARE_H

/** Declares the version of the state that the handler keeps, as one decimal number. Without it the version is 0.
 *
 * Raise it when a handler of the version before could not read what this one writes. When a deploy goes from one
 * version of the state to another and the new handler fails, the bus does not go back by itself: it halts and asks. */
#define WATTLE_STATE_VERSION(version) WATTLE_SECTION_("wattle:state-version", WATTLE_ASCII_(WATTLE_TEXT_OF_(version)))

/** Declares the configuration of the plugin: a struct of this name, and a function `NAME_get(out)` that gives it. A
 * plugin declares one.
 *
 * The settings are a list of
 * - `DEFAULT(type, name, value, about)`: the value where the topology says none,
 * - `REQUIRED(type, name, about)`: the topology has to say it,
 * - `OPTIONAL(type, name, about)`: the field is a pointer, NULL where the topology does not say it.
 *
 * The type is `string` (wattle_str), `boolean` (bool), `i32`, `u32`, `i64`, `u64` or `number` (double). The value is a
 * literal of C that JSON has too, and `about` one string literal.
 *
 * The component has it as a JSON Schema: `wattle check`, `plan`, `apply`, `test`, `dev` and a deploy hold the topology
 * against it. What does not fit nevertheless tries the event again, because a corrected topology makes it work; the
 * fields are zero then. */
#define WATTLE_CONFIG(name, SETTINGS)                                                                                  \
  typedef struct name {                                                                                                \
    SETTINGS(WATTLE_FIELD_DEFAULT_, WATTLE_FIELD_, WATTLE_FIELD_OPTIONAL_)                                             \
  } name;                                                                                                              \
  static inline const name *name##_get(wattle_out *out) {                                                              \
    static name read_;                                                                                                 \
    static uint32_t generation_;                                                                                       \
    if (generation_ != wattle_config_generation()) {                                                                   \
      bool fits_ = true;                                                                                               \
      memset(&read_, 0, sizeof read_);                                                                                 \
      SETTINGS(WATTLE_READ_DEFAULT_, WATTLE_READ_REQUIRED_, WATTLE_READ_OPTIONAL_)                                     \
      if (fits_) generation_ = wattle_config_generation();                                                             \
    }                                                                                                                  \
    return &read_;                                                                                                     \
  }                                                                                                                    \
  WATTLE_SECTION_("wattle:config-schema",                                                                              \
      WATTLE_ASCII_("{\"$schema\":\"https://json-schema.org/draft/2020-12/schema\",\"type\":\"object\","               \
                    "\"additionalProperties\":false,\"properties\":{") WATTLE_LIST_ SETTINGS(WATTLE_PROPERTY_DEFAULT_, \
          WATTLE_PROPERTY_, WATTLE_PROPERTY_) WATTLE_ASCII_("},\"required\":[")                                        \
          WATTLE_LIST_ SETTINGS(WATTLE_NOTHING_, WATTLE_NAMED_, WATTLE_NOTHING_) WATTLE_ASCII_("]}"))

/** @cond The parts of these macros. */

/** Counts the configurations of this process: one in a component, one per case in a test. */
uint32_t wattle_config_generation(void);
/** Reads a setting.
 * @return whether the topology says it. */
bool wattle_setting_string(wattle_out *out, const char *name, bool is_required, bool *fits, wattle_str *value);
bool wattle_setting_boolean(wattle_out *out, const char *name, bool is_required, bool *fits, bool *value);
bool wattle_setting_i32(wattle_out *out, const char *name, bool is_required, bool *fits, int32_t *value);
bool wattle_setting_u32(wattle_out *out, const char *name, bool is_required, bool *fits, uint32_t *value);
bool wattle_setting_i64(wattle_out *out, const char *name, bool is_required, bool *fits, int64_t *value);
bool wattle_setting_u64(wattle_out *out, const char *name, bool is_required, bool *fits, uint64_t *value);
bool wattle_setting_number(wattle_out *out, const char *name, bool is_required, bool *fits, double *value);

#define WATTLE_FIELD_(type, name, about) WATTLE_TYPE_##type name;
#define WATTLE_FIELD_DEFAULT_(type, name, value, about) WATTLE_TYPE_##type name;
#define WATTLE_FIELD_OPTIONAL_(type, name, about) const WATTLE_TYPE_##type *name;
#define WATTLE_TYPE_string wattle_str
#define WATTLE_TYPE_boolean bool
#define WATTLE_TYPE_i32 int32_t
#define WATTLE_TYPE_u32 uint32_t
#define WATTLE_TYPE_i64 int64_t
#define WATTLE_TYPE_u64 uint64_t
#define WATTLE_TYPE_number double

#define WATTLE_READ_REQUIRED_(type, name, about) wattle_setting_##type(out, #name, true, &fits_, &read_.name);
#define WATTLE_READ_DEFAULT_(type, name, value, about) \
  if (!wattle_setting_##type(out, #name, false, &fits_, &read_.name)) read_.name = WATTLE_VALUE_##type(value);
#define WATTLE_READ_OPTIONAL_(type, name, about)                                             \
  {                                                                                          \
    static WATTLE_TYPE_##type value_;                                                        \
    read_.name = wattle_setting_##type(out, #name, false, &fits_, &value_) ? &value_ : NULL; \
  }
#define WATTLE_VALUE_string(value) WATTLE_STR(value)
#define WATTLE_VALUE_boolean(value) value
#define WATTLE_VALUE_i32(value) value
#define WATTLE_VALUE_u32(value) value
#define WATTLE_VALUE_i64(value) value
#define WATTLE_VALUE_u64(value) value
#define WATTLE_VALUE_number(value) value

/* Only the assembler makes custom sections. The comma between the items of a list is a macro that is empty at the
 * first. */
#define WATTLE_TEXT_OF__(...) #__VA_ARGS__
#define WATTLE_TEXT_OF_(...) WATTLE_TEXT_OF__(__VA_ARGS__)
#define WATTLE_ASCII_(text) ".ascii " WATTLE_TEXT_OF_(text) "\n"
#define WATTLE_LIST_ ".purgem wattle_comma\n.macro wattle_comma\n.endm\n"
#define WATTLE_COMMA_ "wattle_comma\n.purgem wattle_comma\n.macro wattle_comma\n.ascii \",\"\n.endm\n"
#define WATTLE_NOTHING_(...)
#define WATTLE_NAMED_(type, name, about) WATTLE_COMMA_ WATTLE_ASCII_("\"" #name "\"")
#define WATTLE_PROPERTY_(type, name, about) WATTLE_PROPERTY_BEGIN_(type, name, about) WATTLE_ASCII_("}")
#define WATTLE_PROPERTY_DEFAULT_(type, name, value, about) \
  WATTLE_PROPERTY_BEGIN_(type, name, about) WATTLE_ASCII_(",\"default\":") WATTLE_ASCII_(#value) WATTLE_ASCII_("}")
#define WATTLE_PROPERTY_BEGIN_(type, name, about) \
  WATTLE_COMMA_ WATTLE_ASCII_("\"" #name "\":{" WATTLE_SCHEMA_##type ",\"description\":") WATTLE_ASCII_(#about)
#define WATTLE_SCHEMA_string "\"type\":\"string\""
#define WATTLE_SCHEMA_boolean "\"type\":\"boolean\""
#define WATTLE_SCHEMA_i32 "\"type\":\"integer\",\"minimum\":-2147483648,\"maximum\":2147483647"
#define WATTLE_SCHEMA_u32 "\"type\":\"integer\",\"minimum\":0,\"maximum\":4294967295"
#define WATTLE_SCHEMA_i64 "\"type\":\"integer\",\"minimum\":-9223372036854775808,\"maximum\":9223372036854775807"
#define WATTLE_SCHEMA_u64 "\"type\":\"integer\",\"minimum\":0,\"maximum\":18446744073709551615"
#define WATTLE_SCHEMA_number "\"type\":\"number\""

#ifdef __wasm__
#define WATTLE_SECTION_(name, content)                                                         \
  __asm__(".section \".custom_section." name "\",\"\",@\n.macro wattle_comma\n.endm\n" content \
          ".purgem wattle_comma\n.section .text,\"\",@\n");
#else
#define WATTLE_SECTION_(name, content)
#endif

/** @endcond */
#endif
