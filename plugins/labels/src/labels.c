/* Labels prints labels of parcels: a text for each order that has a carrier. */
#include "wattle.h"

#define SETTINGS(DEFAULT, REQUIRED, OPTIONAL)                                    \
  DEFAULT(string, sender, "Wattle Shop, Elm Street 1", "Who sends the parcels.") \
  DEFAULT(u32, width, 40, "How many characters a line of a label has.")          \
  OPTIONAL(string, note, "A line at the end of each label.")
WATTLE_CONFIG(settings, SETTINGS)

#define WIDTH_MIN 10
#define WIDTH_MAX 200

/* A label that grows. */
typedef struct label {
  wattle_out *out;
  uint32_t width;
  wattle_str text;
} label;

/* Adds a line, cut at the width, in whole characters of UTF-8. */
static void add(label *to, wattle_str line) {
  uint32_t characters = 0;
  size_t len = 0;
  while (len < line.len) {
    if (((unsigned char)line.data[len] & 0xc0) != 0x80 && ++characters > to->width) break;
    len++;
  }
  to->text = wattle_format(to->out, "%.*s%.*s\n", WATTLE_ARG(to->text), (int)len, line.data);
}

/* One label per event, and its number in the partition, which no other label has. */
static void handle(const wattle_event *event, wattle_out *out) {
  const settings *config = settings_get(out);
  const wattle_value *route = wattle_event_json(event, out);
  wattle_str order = wattle_string(route, "order_id"), carrier = wattle_string(route, "carrier");
  wattle_str name = wattle_string(route, "name"), country = wattle_string(route, "country");
  uint64_t grams = wattle_u64(route, "grams");
  if (wattle_failed(out)) return;
  if (config->width < WIDTH_MIN || config->width > WIDTH_MAX) {
    wattle_retry(out, "the setting `width` does not fit: it should be from %d to %d", WIDTH_MIN, WIDTH_MAX);
    return;
  }
  int64_t number = wattle_state_increment(wattle_state(out), WATTLE_STR("printed"), 1);
  wattle_str id = wattle_format(out, "%u-%06lld", (unsigned)event->partition, (long long)number);

  label to = { out, config->width, WATTLE_STR("") };
  add(&to, wattle_format(out, "%.*s  %.*s", WATTLE_ARG(carrier), WATTLE_ARG(id)));
  add(&to, wattle_format(out, "From: %.*s", WATTLE_ARG(config->sender)));
  add(&to, wattle_format(out, "To:   %.*s, %.*s", WATTLE_ARG(name), WATTLE_ARG(country)));
  add(&to, wattle_format(out, "Order %.*s, %llu.%03llu kg", WATTLE_ARG(order), (unsigned long long)(grams / 1000),
               (unsigned long long)(grams % 1000)));
  if (config->note) add(&to, *config->note);

  wattle_send(out, (wattle_output){
                       .port = "printed",
                       .data = to.text,
                       .type = WATTLE_STR("label.printed"),
                       .content_type = WATTLE_STR("text/plain; charset=utf-8"),
                   });
  wattle_send_attribute(out, "subject", id);
}

WATTLE_PLUGIN(handle, "printed")
