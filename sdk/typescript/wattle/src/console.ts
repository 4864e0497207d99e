// `console`, whose lines are log lines of the subscriber, each with its event.
import { type Level, log } from "./host.ts";
import { describe } from "./trace.ts";
import { isBefore } from "./turn.ts";

const DEPTH_MAX = 4;

/** The functions of `console` that handlers use. */
export const lines = {
  trace: line("trace"),
  debug: line("debug"),
  log: line("info"),
  info: line("info"),
  warn: line("warn"),
  error: line("error"),
};

function line(level: Level): (...what: unknown[]) => void {
  return (...what) => {
    // At the top level of a module there is no bus: it runs when the plugin is built.
    if (!isBefore()) log(level, "", what.map((one) => format(one)).join(" "));
  };
}

function format(value: unknown): string {
  return typeof value === "string" ? value : inspect(value, 0, []);
}

/** A value as people read it, whatever it is. */
function inspect(value: unknown, depth: number, around: unknown[]): string {
  if (value instanceof Error) return describe(value);
  switch (typeof value) {
    case "string":
      return JSON.stringify(value);
    case "bigint":
      return `${value}n`;
    case "function":
      return `[function ${value.name || "without a name"}]`;
    case "object":
      break;
    default:
      return String(value);
  }
  if (value === null) return "null";
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? "invalid date" : value.toISOString();
  if (value instanceof RegExp) return String(value);
  if (value instanceof Uint8Array) return `[${value.length} bytes]`;
  if (around.includes(value)) return "[circular]";
  if (depth >= DEPTH_MAX) return Array.isArray(value) ? "[…]" : "{…}";
  const inner = (one: unknown) => inspect(one, depth + 1, [...around, value]);
  if (Array.isArray(value)) return `[${value.map(inner).join(", ")}]`;
  if (value instanceof Set) return `Set {${[...value].map(inner).join(", ")}}`;
  const entries: [unknown, unknown][] = value instanceof Map ? [...value] : Object.entries(value);
  const fields = entries.map(([name, one]) => `${typeof name === "string" ? name : inner(name)}: ${inner(one)}`);
  return `${value instanceof Map ? "Map " : ""}{${fields.length > 0 ? ` ${fields.join(", ")} ` : ""}}`;
}
