import { setting } from "./host.ts";
import { parseJson } from "./json.ts";
import { Retry } from "./failure.ts";
import { type JsonSchema, Schema } from "./schema.ts";
import { validate } from "./standard.ts";

/** The settings of a plugin: a schema for each, by name. */
export type ConfigShape = { readonly [name: string]: Schema<unknown> };

/** The settings as a handler gets them. */
export type Config<C extends ConfigShape> = {
  readonly [N in keyof C]: C[N] extends Schema<infer T> ? T : never;
};

/**
 * The text of a setting of the subscriber's `config:`, for plugins that declare none. It is fixed for as long as an
 * instance lives.
 */
export function config(name: string): string | undefined {
  return setting(name) ?? undefined;
}

/** Reads the declared settings. Retries where they do not fit, because a corrected topology makes it work. */
export function readConfig<C extends ConfigShape>(shape: C): Config<C> {
  const entries = Object.entries(shape).map(([name, schema]) => [name, readSetting(name, schema)] as const);
  return Object.freeze(Object.fromEntries(entries)) as Config<C>;
}

function readSetting(name: string, schema: Schema<unknown>): unknown {
  const text = config(name);
  if (text === undefined && !schema.missing) {
    throw new Retry(`the setting \`${name}\` is missing: add it to this subscriber's \`config:\``);
  }
  const read = validate(schema, text === undefined ? undefined : valueOf(text, schema.json));
  // Without the value, which may be a secret: failures are kept.
  if ("misfit" in read) throw new Retry(`the setting \`${name}\` does not fit: ${read.misfit}`);
  return read.value;
}

/** A topology writes a text, a number or a boolean, and the plugin reads a text. */
function valueOf(text: string, schema: JsonSchema): unknown {
  if (schema["type"] === "string") return text;
  try {
    return parseJson(text);
  } catch {
    return text;
  }
}

/** The settings as one JSON Schema, which the component declares. */
export function configSchema(shape: ConfigShape): JsonSchema {
  const names = Object.entries(shape);
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    type: "object",
    additionalProperties: false,
    properties: Object.fromEntries(names.map(([name, schema]) => [name, schema.json])),
    required: names.filter(([, schema]) => !schema.missing).map(([name]) => name),
  };
}
