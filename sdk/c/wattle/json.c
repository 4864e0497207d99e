/* Reads JSON (RFC 8259) into values that know their place, so that what does not fit is named by its path. */
#include "internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

/* As deep as the bus reads. */
#define DEPTH_MAX 127
/* What of a path or a name is shown. */
#define SHOWN_BYTES 200

/* What all values of one text share. */
typedef struct document {
  wattle_out *out;
  wattle_action action;
  /* The first part of the reason of a failure. */
  wattle_str about;
} document;

struct wattle_value {
  const document *of;
  const wattle_value *parent;
  wattle_value *first, *last, *next;
  wattle_kind kind;
  /* Its place in an array. */
  uint32_t index;
  /* How many items or members it has. */
  uint32_t len;
  /* Its name in an object; `data` is NULL in an array. */
  wattle_str name;
  /* The characters of a text; the digits of a number. */
  wattle_str text;
  /* As it stood there. */
  wattle_str raw;
};

static const wattle_str NOTHING = { "", 0 };

/* ---- Failures ---- */

/* The path of a value, such as `items[3].qty`, from its end to its beginning. */
static char *path_to(const wattle_value *value, char *start, char *end) {
  *--end = '\0';
  for (; value->parent; value = value->parent) {
    char part[SHOWN_BYTES + 8];
    int len;
    if (!value->name.data) {
      len = snprintf(part, sizeof part, "[%u]", (unsigned)value->index);
    } else {
      const char *dot = value->parent->parent ? "." : "";
      int shown = value->name.len > SHOWN_BYTES ? SHOWN_BYTES : (int)value->name.len;
      len = snprintf(part, sizeof part, "%s%.*s", dot, shown, value->name.data);
    }
    if (end - start < len + 4) {
      memcpy(end -= 3, "...", 3);
      break;
    }
    memcpy(end -= len, part, (size_t)len);
  }
  return end;
}

static void unfit(const wattle_value *value, wattle_str what) {
  char path[1024];
  const char *at = path_to(value, path, path + sizeof path);
  if (!*at) at = "it";
  wattle_str reason =
      wattle_format(value->of->out, "%.*s: %s %.*s", WATTLE_ARG(value->of->about), at, WATTLE_ARG(what));
  wattle_fail(value->of->out, value->of->action, 0, reason);
}

void wattle_unfit(const wattle_value *value, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  unfit(value, wattle_arena_format(&wattle_event_memory, format, arguments));
  va_end(arguments);
}

static const char *kind_name(wattle_kind kind) {
  static const char *const NAMES[] = { "missing", "null", "a boolean", "a number", "a text", "an array", "an object" };
  return NAMES[kind];
}

/* It is of another kind. Its content is not shown: it may be a secret, and reasons are kept. */
static void unfit_kind(const wattle_value *value, const char *wanted) {
  if (value->kind == WATTLE_MISSING)
    wattle_unfit(value, "is missing");
  else
    wattle_unfit(value, "is %s, and should be %s", kind_name(value->kind), wanted);
}

/* ---- The parser ---- */

typedef struct parser {
  const document *of;
  const char *at, *start, *end;
  const char *problem;
} parser;

static bool problem(parser *p, const char *what) {
  if (!p->problem) p->problem = what;
  return false;
}

static void skip_blanks(parser *p) {
  while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r')) p->at++;
}

static bool hex4(parser *p, uint32_t *unit) {
  if (p->end - p->at < 4) return problem(p, "four hexadecimal digits are needed after \\u");
  *unit = 0;
  for (int i = 0; i < 4; i++) {
    char digit = *p->at++;
    uint32_t of = digit >= '0' && digit <= '9'   ? (uint32_t)(digit - '0')
                  : digit >= 'a' && digit <= 'f' ? (uint32_t)(digit - 'a' + 10)
                  : digit >= 'A' && digit <= 'F' ? (uint32_t)(digit - 'A' + 10)
                                                 : 16;
    if (of == 16) return problem(p, "four hexadecimal digits are needed after \\u");
    *unit = *unit * 16 + of;
  }
  return true;
}

/* What follows `\u`, as UTF-8. */
static bool escaped_character(parser *p, char **to) {
  uint32_t unit, low;
  if (!hex4(p, &unit)) return false;
  if (unit >= 0xd800 && unit < 0xe000) {
    bool is_pair = unit < 0xdc00 && p->end - p->at >= 2 && p->at[0] == '\\' && p->at[1] == 'u';
    if (!is_pair) return problem(p, "half of a surrogate pair");
    p->at += 2;
    if (!hex4(p, &low)) return false;
    if (low < 0xdc00 || low >= 0xe000) return problem(p, "half of a surrogate pair");
    unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
  }
  char *out = *to;
  if (unit < 0x80) {
    *out++ = (char)unit;
  } else if (unit < 0x800) {
    *out++ = (char)(0xc0 | unit >> 6);
    *out++ = (char)(0x80 | (unit & 0x3f));
  } else if (unit < 0x10000) {
    *out++ = (char)(0xe0 | unit >> 12);
    *out++ = (char)(0x80 | (unit >> 6 & 0x3f));
    *out++ = (char)(0x80 | (unit & 0x3f));
  } else {
    *out++ = (char)(0xf0 | unit >> 18);
    *out++ = (char)(0x80 | (unit >> 12 & 0x3f));
    *out++ = (char)(0x80 | (unit >> 6 & 0x3f));
    *out++ = (char)(0x80 | (unit & 0x3f));
  }
  *to = out;
  return true;
}

/* From behind the first quote, at an escape, to after the last one: the text before it, and the rest without escapes.
 */
static bool text_with_escapes(parser *p, const char *start, wattle_str *text) {
  /* Escapes never become longer. */
  size_t bytes_max = (size_t)(p->end - start);
  const char *last = p->at;
  while (last < p->end && *last != '"') last += *last == '\\' && last + 1 < p->end ? 2 : 1;
  if (last < p->end) bytes_max = (size_t)(last - start);
  char *copy = (char *)wattle_arena_take(&wattle_event_memory, bytes_max), *to = copy;
  memcpy(to, start, (size_t)(p->at - start));
  to += p->at - start;
  while (p->at < p->end && *p->at != '"') {
    if (*p->at != '\\') {
      size_t len = wattle_utf8_character(p->at, (size_t)(p->end - p->at));
      if (len == 0) return problem(p, "the text is not UTF-8");
      if ((unsigned char)*p->at < 0x20) return problem(p, "a control character in a text needs an escape");
      memcpy(to, p->at, len);
      to += len;
      p->at += len;
      continue;
    }
    if (++p->at == p->end) break;
    static const char SHORT[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
    char kind = *p->at++;
    const char *found = kind ? strchr(SHORT, kind) : NULL;
    if (kind == 'u') {
      if (!escaped_character(p, &to)) return false;
    } else if (found && (found - SHORT) % 2 == 0) {
      *to++ = found[1];
    } else {
      return problem(p, "no such escape");
    }
  }
  if (p->at == p->end) return problem(p, "the text has no end");
  p->at++;
  text->data = copy;
  text->len = (size_t)(to - copy);
  *to = '\0';
  return true;
}

/* From behind the first quote to behind the last one. */
static bool text(parser *p, wattle_str *into) {
  const char *start = p->at;
  while (p->at < p->end) {
    unsigned char byte = (unsigned char)*p->at;
    if (byte == '"') {
      into->data = start;
      into->len = (size_t)(p->at - start);
      p->at++;
      return true;
    }
    if (byte == '\\') return text_with_escapes(p, start, into);
    if (byte < 0x20) return problem(p, "a control character in a text needs an escape");
    size_t len = byte < 0x80 ? 1 : wattle_utf8_character(p->at, (size_t)(p->end - p->at));
    if (len == 0) return problem(p, "the text is not UTF-8");
    p->at += len;
  }
  return problem(p, "the text has no end");
}

static bool is_digit(const parser *p) { return p->at < p->end && *p->at >= '0' && *p->at <= '9'; }

static bool digits(parser *p) {
  if (!is_digit(p)) return problem(p, "a digit is needed");
  while (is_digit(p)) p->at++;
  return true;
}

static bool number(parser *p, wattle_str *into) {
  const char *start = p->at;
  if (*p->at == '-') p->at++;
  if (p->at < p->end && *p->at == '0')
    p->at++;
  else if (!digits(p))
    return false;
  if (p->at < p->end && *p->at == '.') {
    p->at++;
    if (!digits(p)) return false;
  }
  if (p->at < p->end && (*p->at == 'e' || *p->at == 'E')) {
    p->at++;
    if (p->at < p->end && (*p->at == '+' || *p->at == '-')) p->at++;
    if (!digits(p)) return false;
  }
  into->data = start;
  into->len = (size_t)(p->at - start);
  return true;
}

static bool word(parser *p, const char *expected) {
  size_t len = strlen(expected);
  if ((size_t)(p->end - p->at) < len || memcmp(p->at, expected, len) != 0) return problem(p, "no value begins so");
  p->at += len;
  return true;
}

static wattle_value *new_value(const document *of, const wattle_value *parent) {
  wattle_value *value = (wattle_value *)wattle_arena_take(&wattle_event_memory, sizeof *value);
  memset(value, 0, sizeof *value);
  value->of = of;
  value->parent = parent;
  value->text = value->raw = NOTHING;
  return value;
}

static void append(wattle_value *parent, wattle_value *child) {
  child->index = parent->len++;
  if (parent->last)
    parent->last->next = child;
  else
    parent->first = child;
  parent->last = child;
}

/* The name and the colon before a member. */
static bool member_name(parser *p, wattle_value *member) {
  skip_blanks(p);
  if (p->at == p->end || *p->at != '"') return problem(p, "the name of a member is needed, in double quotes");
  p->at++;
  if (!text(p, &member->name)) return false;
  skip_blanks(p);
  if (p->at == p->end || *p->at != ':') return problem(p, "`:` is needed after the name of a member");
  p->at++;
  return true;
}

/* A value without its items or members. */
static bool begin_value(parser *p, wattle_value *value) {
  skip_blanks(p);
  if (p->at == p->end) return problem(p, "a value is needed");
  value->raw.data = p->at;
  bool fits = true;
  switch (*p->at) {
    case '{':
      value->kind = WATTLE_OBJECT;
      p->at++;
      return true;
    case '[':
      value->kind = WATTLE_ARRAY;
      p->at++;
      return true;
    case '"':
      value->kind = WATTLE_TEXT;
      p->at++;
      fits = text(p, &value->text);
      break;
    case 't':
      value->kind = WATTLE_BOOLEAN;
      fits = word(p, "true");
      break;
    case 'f':
      value->kind = WATTLE_BOOLEAN;
      fits = word(p, "false");
      break;
    case 'n':
      value->kind = WATTLE_NULL;
      fits = word(p, "null");
      break;
    default:
      if (*p->at != '-' && !is_digit(p)) return problem(p, "no value begins so");
      value->kind = WATTLE_NUMBER;
      fits = number(p, &value->text);
  }
  value->raw.len = (size_t)(p->at - value->raw.data);
  return fits;
}

/* Without recursion: the depth is that of data, which a stranger may have made. */
static wattle_value *parse(parser *p) {
  wattle_value *root = new_value(p->of, NULL), *in = NULL;
  int depth = 0;
  if (!begin_value(p, root)) return NULL;
  if (root->kind >= WATTLE_ARRAY) in = root, depth = 1;
  while (in) {
    bool is_object = in->kind == WATTLE_OBJECT;
    char close = is_object ? '}' : ']';
    skip_blanks(p);
    if (p->at == p->end) return problem(p, is_object ? "the object has no end" : "the array has no end"), NULL;
    if (*p->at == close) {
      p->at++;
      in->raw.len = (size_t)(p->at - in->raw.data);
      /* A parent is const for readers only. */
      in = (wattle_value *)(uintptr_t)in->parent;
      depth--;
      continue;
    }
    if (in->first) {
      if (*p->at != ',') return problem(p, is_object ? "`,` or `}` is needed" : "`,` or `]` is needed"), NULL;
      p->at++;
    }
    wattle_value *child = new_value(p->of, in);
    if ((is_object && !member_name(p, child)) || !begin_value(p, child)) return NULL;
    append(in, child);
    if (child->kind >= WATTLE_ARRAY) {
      if (++depth > DEPTH_MAX) return problem(p, "nested too deeply"), NULL;
      in = child;
    }
  }
  skip_blanks(p);
  if (p->at != p->end) return problem(p, "there is more after the value"), NULL;
  return root;
}

static const document *new_document(wattle_out *out, wattle_action action, wattle_str about) {
  document *of = (document *)wattle_arena_take(&wattle_event_memory, sizeof *of);
  of->out = out;
  of->action = action;
  of->about = about;
  return of;
}

const wattle_value *wattle_json_missing(wattle_out *out, wattle_action action, wattle_str about) {
  return new_value(new_document(out, action, about), NULL);
}

const wattle_value *wattle_json_read(wattle_out *out, wattle_str json, wattle_action action, wattle_str about) {
  const document *of = new_document(out, action, about);
  parser p = { of, json.data, json.data, json.data + json.len, NULL };
  wattle_value *root = parse(&p);
  if (root) return root;
  unsigned line = 1, column = 1;
  for (const char *at = p.start; at < p.at; at++) {
    if (*at == '\n')
      line++, column = 1;
    else
      column += ((unsigned char)*at & 0xc0) != 0x80;
  }
  wattle_value *missing = new_value(of, NULL);
  wattle_unfit(missing, "is not JSON: %s at line %u, column %u", p.problem, line, column);
  return missing;
}

const wattle_value *wattle_event_json(const wattle_event *event, wattle_out *out) {
  return wattle_json_read(out, event->data, WATTLE_REJECTED, WATTLE_STR("the data is not what this plugin reads"));
}

const wattle_value *wattle_parse(wattle_out *out, const char *what, wattle_str json) {
  wattle_str about = wattle_format(out, "%s is not what this plugin reads", what);
  return wattle_json_read(out, json, WATTLE_REJECTED, about);
}

/* ---- Values ---- */

wattle_kind wattle_kind_of(const wattle_value *value) { return value->kind; }

wattle_str wattle_json_raw(const wattle_value *value) { return value->raw; }

const wattle_value *wattle_get(const wattle_value *object, const char *name) {
  if (!name) return object;
  const wattle_value *found = NULL;
  if (object->kind == WATTLE_OBJECT) {
    size_t len = strlen(name);
    for (const wattle_value *each = object->first; each; each = each->next)
      if (each->name.len == len && memcmp(each->name.data, name, len) == 0) found = each;
  } else if (object->kind != WATTLE_MISSING) {
    unfit_kind(object, "an object");
  }
  if (found) return found;
  wattle_value *missing = new_value(object->of, object);
  missing->name = wattle_str_of(name);
  return missing;
}

bool wattle_has(const wattle_value *object, const char *name) { return wattle_get(object, name)->kind > WATTLE_NULL; }

static const wattle_value *of_kind(const wattle_value *object, const char *name, wattle_kind kind) {
  const wattle_value *value = wattle_get(object, name);
  if (value->kind != kind) unfit_kind(value, kind_name(kind));
  return value;
}

const wattle_value *wattle_object(const wattle_value *object, const char *name) {
  return of_kind(object, name, WATTLE_OBJECT);
}

const wattle_value *wattle_array(const wattle_value *object, const char *name) {
  return of_kind(object, name, WATTLE_ARRAY);
}

size_t wattle_length(const wattle_value *array) { return array->len; }
const wattle_value *wattle_first(const wattle_value *array) { return array->first; }
const wattle_value *wattle_next(const wattle_value *item) { return item->next; }
wattle_str wattle_name(const wattle_value *member) { return member->name.data ? member->name : NOTHING; }

wattle_str wattle_string(const wattle_value *value, const char *name) {
  value = of_kind(value, name, WATTLE_TEXT);
  return value->kind == WATTLE_TEXT ? value->text : NOTHING;
}

bool wattle_bool(const wattle_value *value, const char *name) {
  value = of_kind(value, name, WATTLE_BOOLEAN);
  return value->kind == WATTLE_BOOLEAN && value->raw.data[0] == 't';
}

bool wattle_number_u64(wattle_str digits, uint64_t *into) {
  uint64_t sum = 0;
  if (digits.len == 0) return false;
  for (size_t at = 0; at < digits.len; at++) {
    if (digits.data[at] < '0' || digits.data[at] > '9') return false;
    uint64_t digit = (uint64_t)(digits.data[at] - '0');
    if (sum > (UINT64_MAX - digit) / 10) return false;
    sum = sum * 10 + digit;
  }
  *into = sum;
  return true;
}

bool wattle_number_i64(wattle_str digits, int64_t *into) {
  bool is_negative = digits.len > 0 && digits.data[0] == '-';
  if (is_negative) digits.data++, digits.len--;
  uint64_t size;
  if (!wattle_number_u64(digits, &size) || size > (uint64_t)INT64_MAX + is_negative) return false;
  *into = is_negative ? (int64_t)(~size + 1) : (int64_t)size;
  return true;
}

bool wattle_number_double(wattle_str digits, double *into) {
  char *end, *copy = (char *)(uintptr_t)wattle_arena_copy(&wattle_event_memory, digits).data;
  *into = strtod(copy, &end);
  return digits.len > 0 && end == copy + digits.len && isfinite(*into);
}

#define WHOLE(type, function, read, wide, is_within, range)    \
  type function(const wattle_value *value, const char *name) { \
    wide number = 0;                                           \
    value = of_kind(value, name, WATTLE_NUMBER);               \
    if (value->kind != WATTLE_NUMBER) return 0;                \
    if (!read(value->text, &number) || !(is_within)) {         \
      wattle_unfit(value, "is not a whole number " range);     \
      return 0;                                                \
    }                                                          \
    return (type)number;                                       \
  }

WHOLE(int64_t, wattle_i64, wattle_number_i64, int64_t, true, "of 64 bits")
WHOLE(uint64_t, wattle_u64, wattle_number_u64, uint64_t, true, "from 0 to 18446744073709551615")
WHOLE(int32_t, wattle_i32, wattle_number_i64, int64_t, number >= INT32_MIN && number <= INT32_MAX, "of 32 bits")
WHOLE(uint32_t, wattle_u32, wattle_number_u64, uint64_t, number <= UINT32_MAX, "from 0 to 4294967295")

double wattle_double(const wattle_value *value, const char *name) {
  double number = 0;
  value = of_kind(value, name, WATTLE_NUMBER);
  if (value->kind == WATTLE_NUMBER && !wattle_number_double(value->text, &number)) {
    wattle_unfit(value, "is too large");
    return 0;
  }
  return number;
}

#define OR(type, function)                                                          \
  type function##_or(const wattle_value *value, const char *name, type otherwise) { \
    value = wattle_get(value, name);                                                \
    return value->kind > WATTLE_NULL ? function(value, NULL) : otherwise;           \
  }

OR(wattle_str, wattle_string)
OR(bool, wattle_bool)
OR(int64_t, wattle_i64)
OR(uint64_t, wattle_u64)
OR(double, wattle_double)
