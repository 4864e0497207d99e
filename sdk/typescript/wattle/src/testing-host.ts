// The bus as unit tests and the build have it: `bundle.mjs` and `test.mjs` put this in the place of the contract's
// modules. The refusals of the state have the words of the bus.
import { decode, encode } from "./text.ts";

/** What a test has set up, and what the plugin did. */
export interface Scene {
  readonly events: readonly SceneEvent[];
  readonly config: ReadonlyMap<string, string>;
  readonly ports: readonly string[];
  readonly logs: LogLine[];
  state: SceneState;
  /** The event that has begun. */
  event: SceneEvent | undefined;
  /** The state before it began. */
  savepoint: SceneState;
}

/** What is asked for about an event. */
export interface SceneEvent {
  readonly attributes: string;
  readonly timeNs: bigint;
  /** Random bytes follow from it. */
  seed: number;
}

/** Values by bucket and key. A value is never changed in place. */
export type SceneState = ReadonlyMap<string, ReadonlyMap<string, Uint8Array>>;

/** A log line of the plugin. */
export interface LogLine {
  readonly level: Level;
  readonly context: string;
  readonly message: string;
}

export type Level = "trace" | "debug" | "info" | "warn" | "error" | "critical";

const LIMITS = { bucketBytes: 64, keyBytes: 1024, valueBytes: 1 << 20, pageKeys: 1000 };

let scene: Scene | undefined;

/** Runs an action with this scene. */
export function within<T>(given: Scene, action: () => T): T {
  const before = scene;
  scene = given;
  try {
    return action();
  } finally {
    scene = before;
  }
}

function here(what: string): Scene {
  if (scene) return scene;
  throw new Error(`there is no ${what} at the top level of a module: it runs when the plugin is built`);
}

function event(what: string): SceneEvent {
  const { event } = here(what);
  if (event) return event;
  throw new Error(`there is no ${what} before an event has begun`);
}

export function current(index: number): void {
  const now = here("event");
  now.event = now.events[index];
  now.savepoint = now.state;
}

export function attributes(): string {
  return event("event").attributes;
}

export function ports(): string[] {
  return [...here("port").ports];
}

export function log(level: Level, context: string, message: string): void {
  here("log").logs.push({ level, context, message });
}

/** A setting. */
export function get(name: string): string | undefined {
  return here("configuration").config.get(name);
}

export function now(): { seconds: number; nanoseconds: number } {
  const { timeNs } = event("time");
  return { seconds: Number(timeNs / 1_000_000_000n), nanoseconds: Number(timeNs % 1_000_000_000n) };
}

export function getRandomBytes(length: number): Uint8Array {
  const from = event("randomness");
  return Uint8Array.from({ length }, () => {
    // mulberry32
    from.seed = (from.seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(from.seed ^ (from.seed >>> 15), from.seed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) & 0xff;
  });
}

function refused(words: string): never {
  throw Object.assign(new Error(words), { payload: { tag: "other", val: words } });
}

function checkKey(key: string): void {
  const bytes = encode(key).length;
  if (bytes === 0) refused(`the key is empty; keys have 1 to ${LIMITS.keyBytes} bytes`);
  if (bytes > LIMITS.keyBytes) refused(`the key has ${bytes} bytes, and at most ${LIMITS.keyBytes} are allowed`);
}

/** The order of UTF-8, which that of a JavaScript string is not. */
function byBytes(a: string, b: string): number {
  const [left, right] = [encode(a), encode(b)];
  for (let at = 0; at < Math.min(left.length, right.length); at++) {
    const difference = (left[at] ?? 0) - (right[at] ?? 0);
    if (difference !== 0) return difference;
  }
  return left.length - right.length;
}

export class Bucket {
  readonly #name: string;

  constructor(name: string) {
    const bytes = encode(name).length;
    if (bytes > LIMITS.bucketBytes) {
      refused(`the bucket's name has ${bytes} bytes, and at most ${LIMITS.bucketBytes} are allowed`);
    }
    this.#name = name === "" ? "default" : name;
  }

  get #values(): ReadonlyMap<string, Uint8Array> {
    event("state");
    return here("state").state.get(this.#name) ?? new Map();
  }

  #replace(change: (values: Map<string, Uint8Array>) => void): void {
    const values = new Map(this.#values);
    change(values);
    const scene = here("state");
    scene.state = new Map(scene.state).set(this.#name, values);
  }

  get(key: string): Uint8Array | undefined {
    checkKey(key);
    return this.#values.get(key)?.slice();
  }

  set(key: string, value: Uint8Array): void {
    checkKey(key);
    if (value.length > LIMITS.valueBytes) {
      refused(`the value has ${value.length} bytes, and at most ${LIMITS.valueBytes} are allowed`);
    }
    this.#replace((values) => values.set(key, value.slice()));
  }

  delete(key: string): void {
    checkKey(key);
    this.#replace((values) => values.delete(key));
  }

  exists(key: string): boolean {
    checkKey(key);
    return this.#values.has(key);
  }

  listKeys(cursor: string | undefined): { keys: string[]; cursor: string | undefined } {
    const all = [...this.#values.keys()].sort(byBytes);
    const keys = all.filter((key) => cursor === undefined || byBytes(key, cursor) > 0).slice(0, LIMITS.pageKeys);
    const last = keys.at(-1);
    return { keys, cursor: last === undefined || last === all.at(-1) ? undefined : last };
  }
}

export function open(name: string): Bucket {
  return new Bucket(name);
}

export function increment(bucket: Bucket, key: string, delta: number): number {
  const text = decode(bucket.get(key) ?? encode("0"));
  if (!/^[+-]?\d+$/.test(text)) refused("the value under this key is not a number in decimal digits");
  const sum = BigInt(text) + BigInt(delta);
  if (BigInt.asIntN(64, sum) !== sum) refused(`${text} and ${delta} are more than 64 bits hold`);
  bucket.set(key, encode(sum.toString()));
  return Number(sum);
}
