// Greets visitors.
#include "wattle.hpp"

// What the topology may tell this plugin, in `config:`. A mistyped name is refused before anything runs.
#define SETTINGS(DEFAULT, REQUIRED, OPTIONAL) DEFAULT(string, word, "Hello", "What a greeting begins with.")
WATTLE_CONFIG(settings, SETTINGS)

// Called for each event. Outputs go to the topics that the topology connects to the ports.
static void handle(const wattle::Event &event, wattle::Out &out) {
  const settings *config = settings_get(out.raw());
  std::string_view name = event.json(out).string("name");
  // What does not fit has rejected the event.
  if (out.failed()) return;

  wattle::Json json(out);
  std::string greeting = std::string(wattle::view(config->word)) + ", " + std::string(name) + "!";
  json.object([&] { json.string("text", greeting); });
  out.send_json("greeted", json);
}

WATTLE_HANDLER(handle, "greeted")
