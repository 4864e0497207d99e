/* Greets visitors. */
#include "wattle.h"

/* What the topology may tell this plugin, in `config:`. A mistyped name is refused before anything runs. */
#define SETTINGS(DEFAULT, REQUIRED, OPTIONAL) DEFAULT(string, word, "Hello", "What a greeting begins with.")
WATTLE_CONFIG(settings, SETTINGS)

/* Called for each event. Outputs go to the topics that the topology connects to the ports. */
static void handle(const wattle_event *event, wattle_out *out) {
  const settings *config = settings_get(out);
  const wattle_value *visit = wattle_event_json(event, out);
  wattle_str name = wattle_string(visit, "name");
  /* What does not fit has rejected the event. */
  if (wattle_failed(out)) return;

  wattle_writer *json = wattle_json_begin(out);
  wattle_object_begin(json, NULL);
  wattle_write_string(json, "text", wattle_format(out, "%.*s, %.*s!", WATTLE_ARG(config->word), WATTLE_ARG(name)));
  wattle_object_end(json);
  wattle_send_json(out, json, (wattle_output){ .port = "greeted" });
}

WATTLE_PLUGIN(handle, "greeted")
