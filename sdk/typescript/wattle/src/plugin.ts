import { log, ports as connected } from "./host.ts";
import { type Config, type ConfigShape, configSchema, readConfig } from "./config.ts";
import { Event, type Origin, type RawEvent } from "./event.ts";
import { Reject, Retry } from "./failure.ts";
import { attributeLines, type Output } from "./output.ts";
import { describe as describeError } from "./trace.ts";
import { begin } from "./turn.ts";

/** What a handler answers an event with: nothing, an output, or several, which are stored in this order. */
export type Answer<Port extends string = string> = void | undefined | Output<Port> | Iterable<Output<Port>>;

/** What a plugin is made of. */
export interface PluginOptions<Port extends string, C extends ConfigShape> {
  /**
   * The ports that it sends to. The bus refuses a topology that does not connect exactly these. Without them it sends
   * to whatever the topology connects.
   */
  readonly ports?: readonly Port[];
  /** The settings of its `config:`. The bus refuses a topology with others. */
  readonly config?: C;
  /**
   * The version of the state that it keeps, 0 without it. Raise it when a handler of the version before could not read
   * what this one writes: then the bus does not go back by itself when this one fails.
   */
  readonly stateVersion?: number;
}

/** A handler of one event at a time. */
export interface Handler<Port extends string, C extends ConfigShape> extends PluginOptions<Port, C> {
  /** Handles an event. It throws {@link Reject} or {@link Retry} where it cannot; any other error is a bug of it. */
  handle(event: Event, config: Config<C>): Answer<NoInfer<Port>>;
}

/** A handler of all events of one call. */
export interface BatchHandler<Port extends string, C extends ConfigShape> extends PluginOptions<Port, C> {
  /** Handles the events of a call, in order. */
  handleBatch(batch: Batch<NoInfer<Port>>, config: Config<C>): void;
}

/**
 * The events of one call. `events` are all of them, to look ahead; iterating over the batch begins each event. State,
 * log lines and outputs belong to the one that has begun, and so does an error.
 *
 * @example
 * handleBatch(batch) {
 *   const prices = look(batch.events.map((event) => event.key));
 *   for (const event of batch) batch.send(json("priced", { price: prices.get(event.key) }));
 * }
 */
export interface Batch<Port extends string = string> extends Iterable<Event> {
  /** All events of the call, in order. Their attributes can be read once they have begun. */
  readonly events: readonly Event[];
  /** Sends an output for the event that has begun. */
  send(output: Output<Port>): void;
}

/** A plugin, as the bus calls it. The default export of its main module. */
export interface Plugin<Port extends string = string, C extends ConfigShape = ConfigShape> {
  /** @internal */
  describe(): readonly string[];
  /** @internal */
  handle(origin: Origin, events: readonly RawEvent[]): Handled;
  /** The same plugin as a fresh instance, which has read no settings. @internal */
  fresh(): Plugin<Port, C>;
  /** What the component declares besides its code. */
  readonly declared: { readonly stateVersion: number; readonly config: C | undefined; readonly ports: readonly Port[] };
}

/** @internal */
export interface RawOutput {
  event: number;
  port: number;
  key: string | undefined;
  type: string;
  contentType: string;
  attributes: string;
  data: Uint8Array;
}

/** @internal */
export interface Handled {
  outputs: RawOutput[];
  failed:
    | { event: number; action: { tag: "reject" } | { tag: "retry"; val: number | undefined }; reason: string }
    | undefined;
}

/**
 * Makes a plugin of a handler.
 *
 * @example
 * const Visit = s.object({ name: s.string() });
 *
 * export default plugin({
 *   ports: ["greeted"],
 *   config: { word: s.string().default("Hello").describe("What a greeting begins with.") },
 *   handle(event, config) {
 *     const visit = event.json(Visit); // data that do not fit are rejected
 *     return json("greeted", { text: `${config.word}, ${visit.name}!` });
 *   },
 * });
 */
export function plugin<const Port extends string = string, const C extends ConfigShape = {}>(
  options: Handler<Port, C> | BatchHandler<Port, C>,
): Plugin<Port, C> {
  const { ports: declaredPorts = [], config: shape, stateVersion = 0 } = options;
  if (!Number.isInteger(stateVersion) || stateVersion < 0 || stateVersion > 0xffff_ffff) {
    throw new RangeError(`the version of the state is a whole number from 0 to ${0xffff_ffff}, not ${stateVersion}`);
  }
  let numbers: Map<string, number> | undefined;
  let settings: Config<C> | undefined;
  return {
    declared: { stateVersion, config: shape, ports: declaredPorts },
    describe: () => [...declaredPorts],
    fresh: () => plugin(options),
    handle(origin, rawEvents) {
      numbers ??= portNumbers(declaredPorts);
      const call = new Call<Port>(origin, rawEvents, numbers);
      try {
        settings ??= readConfig(shape ?? ({} as C));
        call.run(options, settings);
        return { outputs: call.outputs, failed: undefined };
      } catch (error) {
        // Where not even the settings could be read, it is the first event that fails.
        call.begin(0);
        const failed = failure(error, call.current);
        if (failed) return { outputs: call.outputs.filter((output) => output.event < call.current), failed };
        // As a panic is, with its place. It ends the instance, since what it has in memory may be half changed.
        log("critical", "panic", `threw ${describeError(error)}`);
        throw error;
      }
    },
  };
}

/** The ports by name; throws where the topology does not connect one of those that are declared. */
function portNumbers(declared: readonly string[]): Map<string, number> {
  const numbers = new Map(connected().map((name, number) => [name, number]));
  const missing = declared.filter((name) => !numbers.has(name));
  if (missing.length > 0) throw new Error(`the topology does not connect ${missing.join(", ")}`);
  return numbers;
}

function failure(error: unknown, event: number): Handled["failed"] {
  if (error instanceof Retry)
    return { event, action: { tag: "retry", val: milliseconds(error) }, reason: error.message };
  if (error instanceof Reject) return { event, action: { tag: "reject" }, reason: error.message };
  return undefined;
}

/** A delay as the contract has it; the bus holds it within its bounds. */
function milliseconds({ afterMs }: Retry): number | undefined {
  if (afterMs === undefined || Number.isNaN(afterMs)) return undefined;
  return Math.min(Math.max(Math.round(afterMs), 0), Number.MAX_SAFE_INTEGER);
}

/** A call of the bus. */
class Call<Port extends string> implements Batch<Port> {
  readonly events: readonly Event[];
  readonly outputs: RawOutput[] = [];
  /** The index of the event that has begun. */
  current = -1;
  readonly #turns: number[] = [];
  readonly #numbers: Map<string, number>;

  constructor(origin: Origin, raw: readonly RawEvent[], numbers: Map<string, number>) {
    this.events = raw.map((event, index) => new Event(origin, event, () => this.#turns[index] ?? -1));
    this.#numbers = numbers;
  }

  run<C extends ConfigShape>(options: Handler<Port, C> | BatchHandler<Port, C>, config: Config<C>): void {
    if ("handleBatch" in options) {
      options.handleBatch(this, config);
      const left = this.events.length - 1 - this.current;
      if (left > 0) throw new Error(`handleBatch returned before it began the last ${left} of its events`);
      return;
    }
    for (const event of this) {
      const answer = options.handle(event, config);
      if (answer === undefined || answer === null) continue;
      if (answer instanceof Promise) {
        throw new TypeError("the handler gave a Promise, and nothing waits for it: handlers are synchronous");
      }
      if (Symbol.iterator in answer) for (const output of answer) this.send(output);
      else this.send(answer);
    }
  }

  /** Begins the event with this index, once. */
  begin(index: number): void {
    if (index <= this.current) return;
    this.current = index;
    this.#turns[index] = begin(index);
  }

  *[Symbol.iterator](): Generator<Event, void> {
    for (const [index, event] of this.events.entries()) {
      if (index < this.current) throw new Error("a batch can be iterated over once");
      this.begin(index);
      yield event;
    }
  }

  send({ port, data, type, key, contentType, attributes }: Output<Port>): void {
    if (this.current < 0) throw new Error("no event has begun: send from within the iteration over the batch");
    const number = this.#numbers.get(port);
    if (number === undefined) {
      const known = [...this.#numbers.keys()].join(", ");
      throw new Error(`there is no port ${JSON.stringify(port)}; the ports are: ${known === "" ? "none" : known}`);
    }
    if (!(data instanceof Uint8Array))
      throw new TypeError("the data of an output are bytes: use json(), text() or bytes()");
    this.outputs.push({
      event: this.current,
      port: number,
      key,
      type: type ?? "",
      contentType: contentType ?? "",
      attributes: attributeLines(attributes),
      data,
    });
  }
}
