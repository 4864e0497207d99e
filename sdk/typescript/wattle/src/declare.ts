// What a component declares besides its code, as custom sections: `bundle.mjs` finds it by running the plugin's top
// level.
import { configSchema } from "./config.ts";
import { writeJson } from "./json.ts";
import type { Plugin } from "./plugin.ts";

/** The custom sections of a plugin: names and contents. */
export function sections(plugin: Plugin): [string, string][] {
  const { config, stateVersion } = plugin.declared;
  const all: [string, string][] = [];
  if (stateVersion > 0) all.push(["wattle:state-version", String(stateVersion)]);
  if (config !== undefined) all.push(["wattle:config-schema", writeJson(configSchema(config))]);
  return all;
}
