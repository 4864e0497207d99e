/**
 * Write a handler for the Wattle event bus: a function from one event to the events that follow from it.
 *
 * ```ts
 * import { json, plugin, s } from "wattle";
 *
 * const Visit = s.object({ name: s.string() });
 *
 * export default plugin({
 *   ports: ["greeted"],
 *   config: { word: s.string().default("Hello") },
 *   handle(event, config) {
 *     const visit = event.json(Visit);
 *     return json("greeted", { text: `${config.word}, ${visit.name}!` });
 *   },
 * });
 * ```
 *
 * A handler is called for one event at a time. It should depend only on the event and on its {@link state}: variables
 * are a cache that may be gone at the next event. Time is the event's time, random numbers follow from the event, and
 * `console.log` writes a log line. An uncaught error loses the event's outputs and nothing else; the bus continues with
 * the next event.
 *
 * @packageDocumentation
 */
export { config, type Config, type ConfigShape } from "./config.ts";
export { Event } from "./event.ts";
export { Reject, Retry, StateError } from "./failure.ts";
export { bytes, json, type Output, type OutputOptions, text } from "./output.ts";
export {
  type Answer,
  type Batch,
  type BatchHandler,
  type Handler,
  plugin,
  type Plugin,
  type PluginOptions,
} from "./plugin.ts";
export * as s from "./schema.ts";
export type { Infer, StandardSchema } from "./standard.ts";
export { State, state } from "./state.ts";
