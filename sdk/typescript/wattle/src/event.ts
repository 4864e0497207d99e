import { attributes, now } from "./host.ts";
import { Reject } from "./failure.ts";
import { parseJson } from "./json.ts";
import { type StandardSchema, validate } from "./standard.ts";
import { decode } from "./text.ts";
import { mustBe } from "./turn.ts";

/** What all events of one call have in common. */
export interface Origin {
  readonly topic: string;
  readonly partition: number;
  readonly contentType: string;
}

/** An event as the contract has it. */
export interface RawEvent {
  readonly key: string;
  readonly type: string;
  readonly time: number;
  readonly attempt: number;
  readonly data: Uint8Array;
}

/** The event that a handler is given. */
export class Event {
  /** The topic that it comes from. */
  readonly topic: string;
  /** The partition of the topic, from 0. */
  readonly partition: number;
  /** The content type of the data; "" when the producer gave none. */
  readonly contentType: string;
  /** The ordering key. */
  readonly key: string;
  /** The CloudEvents type. */
  readonly type: string;
  /** Which attempt at it this is, from 1. */
  readonly attempt: number;
  /** The payload, as it was published. */
  readonly data: Uint8Array;
  readonly #turn: () => number;
  readonly #millisecond: number;
  #timeNs: bigint | undefined;
  #attributes: ReadonlyMap<string, string> | undefined;

  /** @internal */
  constructor(origin: Origin, raw: RawEvent, turn: () => number) {
    this.topic = origin.topic;
    this.partition = origin.partition;
    this.contentType = origin.contentType;
    this.key = raw.key;
    this.type = raw.type;
    this.attempt = raw.attempt;
    this.data = raw.data;
    this.#turn = turn;
    this.#millisecond = Math.floor(raw.time / 1e6);
  }

  /** When it was appended to its topic, in milliseconds since 1970: what `Date.now()` gives in a handler. */
  get timeMs(): number {
    return this.#millisecond;
  }

  /** When it was appended to its topic, exactly, in nanoseconds since 1970. */
  get timeNs(): bigint {
    if (this.#timeNs === undefined) {
      mustBe(this.#turn(), "`timeNs`");
      const { seconds, nanoseconds } = now();
      this.#timeNs = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds);
    }
    return this.#timeNs;
  }

  /** Its CloudEvents id. */
  get id(): string {
    return this.attributes.get("id") ?? "";
  }

  /** Its CloudEvents source. */
  get source(): string {
    return this.attributes.get("source") ?? "";
  }

  /** Its CloudEvents subject, if it has one. */
  get subject(): string | undefined {
    return this.attributes.get("subject");
  }

  /** Its CloudEvents attributes as texts: `id`, `source`, `subject`, `time` (the producer's) and extensions. */
  get attributes(): ReadonlyMap<string, string> {
    if (this.#attributes === undefined) {
      mustBe(this.#turn(), "attributes");
      const lines = attributes()
        .split("\n")
        .filter((line) => line !== "");
      this.#attributes = new Map(
        lines.map((line) => {
          const at = line.indexOf("=");
          return [line.slice(0, at), line.slice(at + 1)];
        }),
      );
    }
    return this.#attributes;
  }

  /** The data as text. Rejects the event where it is not UTF-8. */
  text(): string {
    try {
      return decode(this.data);
    } catch {
      throw new Reject("the data is not UTF-8");
    }
  }

  /**
   * The data as JSON, checked by a schema: one of {@link s}, or any Standard Schema (zod, valibot, arktype). Rejects
   * the event where it is not JSON or does not fit, with the path of the field.
   *
   * Integers that a number does not hold exactly are bigints.
   */
  json<T>(schema: StandardSchema<unknown, T>): T;
  json<S extends StandardSchema<never, unknown>>(schema: S): NonNullable<S["~standard"]["types"]>["output"];
  /** The data as JSON, unchecked. Rejects the event where it is not JSON. */
  json(): unknown;
  json(schema?: StandardSchema): unknown {
    const text = this.text();
    let value: unknown;
    try {
      value = parseJson(text);
    } catch (error) {
      throw new Reject(`the data is not JSON: ${(error as Error).message}`);
    }
    if (schema === undefined) return value;
    const read = validate(schema, value);
    if ("misfit" in read) throw new Reject(`the data is not what this plugin reads: ${read.misfit}`);
    return read.value;
  }
}
