/* UTF-8: the contract has texts in it only, and other bytes end the plugin without a word of the author's. */
#include "internal.h"

size_t wattle_utf8_character(const char *text, size_t len) {
  const unsigned char *at = (const unsigned char *)text;
  if (len == 0) return 0;
  if (at[0] < 0x80) return 1;
  size_t size = at[0] >= 0xc2 && at[0] < 0xe0   ? 2
                : at[0] >= 0xe0 && at[0] < 0xf0 ? 3
                : at[0] >= 0xf0 && at[0] < 0xf5 ? 4
                                                : 0;
  if (size == 0 || len < size) return 0;
  for (size_t i = 1; i < size; i++)
    if ((at[i] & 0xc0) != 0x80) return 0;
  /* Longer than needed, surrogates, above U+10FFFF. */
  if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] >= 0xa0) || (at[0] == 0xf0 && at[1] < 0x90) ||
      (at[0] == 0xf4 && at[1] >= 0x90))
    return 0;
  return size;
}

bool wattle_utf8_valid(wattle_str text) {
  for (size_t at = 0, len; at < text.len; at += len) {
    len = wattle_utf8_character(text.data + at, text.len - at);
    if (len == 0) return false;
  }
  return true;
}

void wattle_utf8_mend(char *text, size_t len) {
  for (size_t at = 0, size; at < len; at += size) {
    size = wattle_utf8_character(text + at, len - at);
    if (size == 0) text[at] = '?', size = 1;
  }
}
