import { type Bucket, increment, open } from "./host.ts";
import { StateError } from "./failure.ts";
import { parseJson, writeJson } from "./json.ts";
import { type StandardSchema, validate } from "./standard.ts";
import { decode, encode } from "./text.ts";

const I64 = { min: -(2n ** 63n), max: 2n ** 63n - 1n };
const NAME_SHOWN_CHARACTERS = 64;

/**
 * The values that a subscriber keeps from one event to the next, by key.
 *
 * Each partition has a state of its own, so events with the same key always meet the same state, and no other call
 * writes it meanwhile. What an event wrote is committed together with its outputs; when the event fails, it is as if
 * it had written nothing.
 *
 * Keys have 1 to 1,024 bytes, values at most 1 MiB; one event may write 4 MiB and 10,000 keys. What is beyond is a
 * {@link StateError}, which is tried again where it is not caught.
 */
export class State {
  readonly #name: string;
  #bucket: Bucket | undefined;

  /** @internal */
  constructor(name: string) {
    this.#name = name;
  }

  /** Another bucket: keys of their own under a name of up to 64 bytes. `state` itself is the bucket `default`. */
  bucket(name: string): State {
    return new State(name);
  }

  /** The value under a key. */
  get(key: string): Uint8Array | undefined {
    return this.#try("reading", key, (bucket) => bucket.get(key) ?? undefined);
  }

  /** The value under a key as text. Retries where it is not UTF-8. */
  getText(key: string): string | undefined {
    const value = this.get(key);
    if (value === undefined) return undefined;
    try {
      return decode(value);
    } catch {
      throw new StateError(`state: what is under ${shown(key)} is not UTF-8`);
    }
  }

  /**
   * The value under a key as JSON, checked by a schema. Retries where it does not fit: another version of the plugin
   * may read it.
   */
  getJson<T>(key: string, schema: StandardSchema<unknown, T>): T | undefined;
  /** The value under a key as JSON, unchecked. */
  getJson(key: string): unknown;
  getJson(key: string, schema?: StandardSchema): unknown {
    const text = this.getText(key);
    if (text === undefined) return undefined;
    const misfit = (why: string) =>
      new StateError(`state: what is under ${shown(key)} is not what this plugin reads: ${why}`);
    let value: unknown;
    try {
      value = parseJson(text);
    } catch (error) {
      throw misfit((error as Error).message);
    }
    if (schema === undefined) return value;
    const read = validate(schema, value);
    if ("misfit" in read) throw misfit(read.misfit);
    return read.value;
  }

  /** Puts a value under a key, whatever was there. */
  set(key: string, value: Uint8Array | string): void {
    const bytes = typeof value === "string" ? encode(value) : value;
    this.#try("writing", key, (bucket) => bucket.set(key, bytes));
  }

  /** Puts a value under a key, as JSON. */
  setJson(key: string, value: unknown): void {
    this.set(key, writeJson(value));
  }

  /** Removes a key, if it is there. */
  delete(key: string): void {
    this.#try("deleting", key, (bucket) => bucket.delete(key));
  }

  /** Whether there is a value under a key. */
  exists(key: string): boolean {
    return this.#try("reading", key, (bucket) => bucket.exists(key));
  }

  /**
   * Adds to the number under a key, which is 0 where there is none, and gives the sum. It is kept in decimal digits.
   *
   * A counter has 64 bits, of which a number holds 53 exactly: with a bigint the sum is a bigint, and always exact.
   */
  increment(key: string, by?: number): number;
  increment(key: string, by: bigint): bigint;
  increment(key: string, by: number | bigint = 1): number | bigint {
    if (typeof by === "bigint") return this.#incrementExactly(key, by);
    if (!Number.isSafeInteger(by))
      throw new RangeError(`${by} is no integer that a number holds exactly: use a bigint`);
    const sum = this.#try("incrementing", key, (bucket) => increment(bucket, key, by));
    if (Number.isSafeInteger(sum)) return sum;
    throw new StateError(`state: incrementing ${shown(key)}: the sum is too large for a number: increment by a bigint`);
  }

  /** All keys, in ascending order of their bytes. They are read 1,000 at once, as far as they are asked for. */
  *keys(): Generator<string, void> {
    let cursor: string | undefined;
    do {
      const behind = cursor;
      const page = this.#try("listing behind", behind ?? "", (bucket) => bucket.listKeys(behind));
      yield* page.keys;
      cursor = page.cursor ?? undefined;
    } while (cursor !== undefined);
  }

  /** The engine has no 64-bit integers at the border of the component, and no other call writes meanwhile. */
  #incrementExactly(key: string, by: bigint): bigint {
    if (Number.isSafeInteger(Number(by))) {
      const sum = this.#try("incrementing", key, (bucket) => increment(bucket, key, Number(by)));
      return Number.isSafeInteger(sum) ? BigInt(sum) : BigInt(this.getText(key) ?? "");
    }
    const wrong = (why: string) => new StateError(`state: incrementing ${shown(key)}: ${why}`);
    const text = this.getText(key) ?? "0";
    if (!/^[+-]?\d+$/.test(text)) throw wrong("the value under this key is not a number in decimal digits");
    const sum = BigInt(text) + by;
    const fits = (number: bigint) => number >= I64.min && number <= I64.max;
    if (!fits(by) || !fits(sum)) throw wrong(`${text} and ${by} are more than 64 bits hold`);
    this.set(key, sum.toString());
    return sum;
  }

  #try<T>(doing: string, what: string, action: (bucket: Bucket) => T): T {
    try {
      // Open for as long as the instance lives: it is a name, and means the state of whatever event is current.
      this.#bucket ??= open(this.#name);
      return action(this.#bucket);
    } catch (error) {
      const why = refusal(error);
      if (why === undefined) throw error;
      throw new StateError(`state: ${doing} ${shown(what)}: ${why}`);
    }
  }
}

/** The state of the subscriber, in its bucket `default`. */
export const state: State = new State("");

/** The words of an error of wasi:keyvalue; undefined for others. */
function refusal(error: unknown): string | undefined {
  const inner = (error as { payload?: unknown } | undefined)?.payload ?? error;
  const { tag, val } = (inner ?? {}) as { tag?: unknown; val?: unknown };
  switch (typeof inner === "string" ? inner : tag) {
    case "other":
      return String(val);
    case "no-such-store":
      return "there is no such bucket";
    case "access-denied":
      return "it is not this plugin's";
    default:
      return undefined;
  }
}

/** A key as a message has it: it may be what is too long. */
function shown(key: string): string {
  return JSON.stringify([...key].slice(0, NAME_SHOWN_CHARACTERS).join(""));
}
