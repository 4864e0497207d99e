/**
 * Unit tests of a plugin, without a bus: `npm test` runs them.
 *
 * ```ts
 * import { test } from "node:test";
 * import assert from "node:assert/strict";
 * import { TestSubscriber } from "wattle/testing";
 * import greet from "../src/handler.ts";
 *
 * test("a visitor is greeted", () => {
 *   const subscriber = new TestSubscriber(greet, { config: { word: "Hi" } });
 *   const { outputs } = subscriber.handle({ data: { name: "Ada" } });
 *   assert.deepEqual(outputs[0]?.json(), { text: "Hi, Ada!" });
 * });
 * ```
 *
 * Limits, filters and retries of a topology are not in it: `wattle test` runs cases through the bus's own code.
 *
 * @module
 */
import type { ConfigShape } from "./config.ts";
import { lines } from "./console.ts";
import { parseJson, writeJson } from "./json.ts";
import type { Plugin, RawOutput } from "./plugin.ts";
import { type LogLine, type Scene, type SceneEvent, type SceneState, within } from "./testing-host.ts";
import { decode, encode } from "./text.ts";

export type { LogLine } from "./testing-host.ts";

/** An event for a plugin under test. What is left out has a default. */
export interface TestEvent {
  /** Bytes and texts as they are, all else as JSON. Default: none. */
  readonly data?: unknown;
  readonly id?: string;
  readonly source?: string;
  readonly type?: string;
  readonly key?: string;
  readonly subject?: string;
  /** Further CloudEvents attributes. */
  readonly attributes?: { readonly [name: string]: string };
  /** Default: `application/json`, of a text `text/plain`, of bytes none. */
  readonly contentType?: string;
  readonly topic?: string;
  readonly partition?: number;
  readonly attempt?: number;
  /** When it was appended, in nanoseconds since 1970. */
  readonly timeNs?: bigint;
}

/** An output of a plugin under test. */
export class TestOutput {
  readonly port: string;
  readonly type: string;
  /** Undefined: that of the event. */
  readonly key: string | undefined;
  readonly contentType: string;
  readonly attributes: { readonly [name: string]: string };
  readonly data: Uint8Array;

  /** @internal */
  constructor(raw: RawOutput, ports: readonly string[], contentType: string) {
    this.port = ports[raw.port] ?? "";
    this.type = raw.type || this.port;
    this.key = raw.key;
    this.contentType = raw.contentType || contentType;
    const lines = raw.attributes.split("\n").filter((line) => line !== "");
    this.attributes = Object.fromEntries(
      lines.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
    );
    this.data = raw.data;
  }

  /** Its data as text. */
  text(): string {
    return decode(this.data);
  }

  /** Its data as JSON. */
  json(): any {
    return parseJson(this.text());
  }
}

/** What became of an event. */
export interface TestResult {
  readonly outputs: readonly TestOutput[];
  /** Set where the plugin threw Reject or Retry. */
  readonly failed?: { readonly action: "reject" | "retry"; readonly reason: string; readonly afterMs?: number };
  readonly logs: readonly LogLine[];
}

/** How the topology declares the subscriber. */
export interface TestOptions<C extends ConfigShape> {
  /** Its settings as the topology writes them; those that are left out have their defaults. */
  readonly config?: { readonly [N in keyof C]?: string | number | bigint | boolean } & {
    readonly [name: string]: unknown;
  };
  /** The connected ports of a plugin that declares none. */
  readonly ports?: readonly string[];
  /** Its state before the first event, by key: texts and bytes as they are, all else as JSON. */
  readonly state?: { readonly [key: string]: unknown };
}

const EVENT_TIME_NS = 1_767_225_600_000_000_000n; // 2026-01-01T00:00:00Z

/** A subscriber with a plugin, whose state goes on from event to event. */
export class TestSubscriber<C extends ConfigShape> {
  readonly #plugin: Plugin<string, C>;
  readonly #config: ReadonlyMap<string, string>;
  readonly #ports: readonly string[];
  #state: SceneState;
  #count = 0;

  constructor(plugin: Plugin<string, C>, options: TestOptions<C> = {}) {
    this.#plugin = plugin.fresh();
    const shape = plugin.declared.config;
    const names = Object.keys(options.config ?? {});
    const unknown = shape === undefined ? [] : names.filter((name) => !Object.hasOwn(shape, name));
    if (unknown.length > 0) throw new Error(`the plugin has no setting ${unknown.join(", ")}`);
    const given = Object.entries(options.config ?? {}).filter(([, value]) => value !== undefined);
    this.#config = new Map(given.map(([name, value]) => [name, typeof value === "string" ? value : writeJson(value)]));
    const declared = plugin.declared.ports;
    this.#ports = declared.length > 0 ? declared : (options.ports ?? []);
    const values = Object.entries(options.state ?? {});
    this.#state = new Map([["default", new Map(values.map(([key, value]) => [key, bytesOf(value)]))]]);
  }

  /** Handles one event. Throws what the plugin throws besides Reject and Retry. */
  handle(event: TestEvent = {}): TestResult {
    return this.handleAll([event]);
  }

  /** Handles events in one call. It ends at the first that fails. */
  handleAll(events: readonly TestEvent[]): TestResult {
    const given = events.map((event) => ({ id: String(++this.#count), ...event }));
    const { topic = "events", partition = 0, contentType = contentTypeOf(given[0]?.data) } = given[0] ?? {};
    const raw = given.map((event) => ({
      key: event.key ?? event.subject ?? event.id,
      type: event.type ?? "test",
      time: Number(event.timeNs ?? EVENT_TIME_NS),
      attempt: event.attempt ?? 1,
      data: bytesOf(event.data),
    }));
    const scene: Scene = {
      events: given.map(sceneEvent),
      config: this.#config,
      ports: this.#ports,
      logs: [],
      state: this.#state,
      event: undefined,
      savepoint: this.#state,
    };
    let isHandled = false;
    try {
      const handled = within(scene, () =>
        withConsole(() => this.#plugin.handle({ topic, partition, contentType }, raw)),
      );
      const outputs = handled.outputs.map((output) => new TestOutput(output, this.#ports, contentType));
      const { failed } = handled;
      isHandled = failed === undefined;
      if (failed === undefined) return { outputs, logs: scene.logs };
      const { action, reason } = failed;
      const afterMs = action.tag === "retry" && action.val !== undefined ? { afterMs: action.val } : {};
      return { outputs, failed: { action: action.tag, reason, ...afterMs }, logs: scene.logs };
    } finally {
      // An event that fails leaves nothing behind.
      this.#state = isHandled ? scene.state : scene.savepoint;
    }
  }

  /** The value that the plugin keeps under a key, as text. */
  state(key: string, bucket = "default"): string | undefined {
    const value = this.#state.get(bucket)?.get(key);
    return value && decode(value);
  }
}

function sceneEvent(event: TestEvent & { readonly id: string }, index: number): SceneEvent {
  const attributes = Object.entries({
    id: event.id,
    source: event.source ?? "/test",
    ...(event.subject === undefined ? {} : { subject: event.subject }),
    ...event.attributes,
  });
  return {
    attributes: attributes.map(([name, value]) => `${name}=${value}\n`).join(""),
    timeNs: event.timeNs ?? EVENT_TIME_NS,
    seed: index + 1,
  };
}

/** Runs a plugin with its log in the place of the console. */
function withConsole<T>(action: () => T): T {
  const before = { ...console };
  Object.assign(console, lines);
  try {
    return action();
  } finally {
    Object.assign(console, before);
  }
}

function contentTypeOf(data: unknown): string {
  if (data === undefined || data instanceof Uint8Array) return "";
  return typeof data === "string" ? "text/plain" : "application/json";
}

function bytesOf(data: unknown): Uint8Array {
  if (data === undefined) return new Uint8Array();
  if (data instanceof Uint8Array) return data;
  return encode(typeof data === "string" ? data : writeJson(data));
}
