/**
 * A small schema library: the data that a handler reads, as a type and as checks at once.
 *
 * ```ts
 * const Order = s.object({
 *   order_id: s.string({ minLength: 1 }),
 *   items: s.array(s.object({ sku: s.string(), qty: s.integer({ min: 1 }) })),
 *   note: s.string().optional(),
 * });
 * type Order = s.Infer<typeof Order>;
 * ```
 *
 * Names of an object that the schema does not have are left out of what it gives. Messages name the field and what is
 * expected there, never the value, which may be a secret. Any other Standard Schema (zod, valibot, arktype) works in
 * its place, except for `config`, which has to be written as JSON Schema.
 *
 * @module
 */
import type { StandardIssue, StandardSchema } from "./standard.ts";

export type { Infer } from "./standard.ts";

/** A JSON Schema. */
export type JsonSchema = { readonly [keyword: string]: unknown };

type Path = readonly (string | number)[];
type Check = (value: unknown, path: Path, issues: StandardIssue[]) => unknown;

/** What a value has to be. */
export class Schema<T> implements StandardSchema<unknown, T> {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: "wattle";
    readonly validate: (value: unknown) => { value: T } | { issues: StandardIssue[] };
    readonly types?: { readonly input: unknown; readonly output: T };
  };
  /** The same as a JSON Schema. */
  readonly json: JsonSchema;
  /** What a missing value stands for. */
  readonly missing: { readonly value: unknown } | undefined;
  readonly #check: Check;

  /** @internal */
  constructor(json: JsonSchema, check: Check, missing?: { readonly value: unknown }) {
    this.json = json;
    this.missing = missing;
    this.#check = check;
    this["~standard"] = {
      version: 1,
      vendor: "wattle",
      validate: (value) => {
        const issues: StandardIssue[] = [];
        const read = this.read(value, [], issues) as T;
        return issues.length > 0 ? { issues } : { value: read };
      },
    };
  }

  /** Reads a value, and adds what does not fit to the issues. */
  read(value: unknown, path: Path, issues: StandardIssue[]): unknown {
    if (value !== undefined) return this.#check(value, path, issues);
    if (this.missing) return this.missing.value;
    issues.push({ path, message: "is missing" });
    return undefined;
  }

  /** It may be missing. */
  optional(): Schema<T | undefined> {
    return new Schema(this.json, this.#check, { value: undefined });
  }

  /** It may be missing, and then has this value. */
  default(value: T): Schema<T> {
    return new Schema({ ...this.json, default: value }, this.#check, { value });
  }

  /** It may be null. */
  nullable(): Schema<T | null> {
    const check: Check = (value, path, issues) => (value === null ? null : this.#check(value, path, issues));
    return new Schema({ anyOf: [this.json, { type: "null" }] }, check, this.missing);
  }

  /**
   * Converts the value. An error that the conversion throws is the reason why it does not fit.
   *
   * @example s.string().default("lamp rug").map((text) => new Set(text.split(" ")))
   */
  map<U>(convert: (value: T) => U): Schema<U> {
    const check: Check = (value, path, issues) => {
      const before = issues.length;
      const read = this.#check(value, path, issues) as T;
      if (issues.length > before) return undefined;
      try {
        return convert(read);
      } catch (error) {
        issues.push({ path, message: error instanceof Error ? error.message : String(error) });
        return undefined;
      }
    };
    const { missing } = this;
    const converted = missing?.value === undefined ? missing : { value: convert(missing.value as T) };
    return new Schema(this.json, check, converted);
  }

  /** A description, for readers of its JSON Schema. */
  describe(description: string): Schema<T> {
    return new Schema({ ...this.json, description }, this.#check, this.missing);
  }
}

function expecting(expected: string, fits: (value: unknown) => boolean): Check {
  return (value, path, issues) => {
    if (fits(value)) return value;
    issues.push({ path, message: `expected ${expected}, found ${kind(value)}` });
    return undefined;
  };
}

function kind(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  switch (typeof value) {
    case "string":
      return "a text";
    case "number":
      return Number.isInteger(value) ? "an integer" : "a number";
    case "bigint":
      return "an integer beyond 2^53";
    case "object":
      return "an object";
    default:
      return `a ${typeof value}`;
  }
}

/** The bounds in words: " from 1 to 5". */
function bounds(min: number | bigint | undefined, max: number | bigint | undefined): string {
  return (min === undefined ? "" : ` from ${min}`) + (max === undefined ? "" : ` to ${max}`);
}

function within(value: number | bigint, min: number | bigint | undefined, max: number | bigint | undefined): boolean {
  return (min === undefined || value >= min) && (max === undefined || value <= max);
}

/** Keywords without those that are undefined. */
function keywords(all: Record<string, unknown>): JsonSchema {
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** A text, with bounds of its length in UTF-16 units, and a pattern that it has in it. */
export function string(rule: { minLength?: number; maxLength?: number; pattern?: RegExp } = {}): Schema<string> {
  const { minLength, maxLength, pattern } = rule;
  const length = minLength === undefined && maxLength === undefined ? "" : ` with${bounds(minLength, maxLength)} units`;
  const like = pattern === undefined ? "" : ` like ${pattern}`;
  const fits = (value: unknown) =>
    typeof value === "string" && within(value.length, minLength, maxLength) && (!pattern || value.search(pattern) >= 0);
  const json = keywords({ type: "string", minLength, maxLength, pattern: pattern?.source });
  return new Schema(json, expecting(`a text${length}${like}`, fits));
}

/** A number. */
export function number(rule: { min?: number; max?: number } = {}): Schema<number> {
  const { min, max } = rule;
  const fits = (value: unknown) => typeof value === "number" && Number.isFinite(value) && within(value, min, max);
  return new Schema(
    keywords({ type: "number", minimum: min, maximum: max }),
    expecting(`a number${bounds(min, max)}`, fits),
  );
}

/** A whole number that is exact as a number: from -(2^53 - 1) to 2^53 - 1. For larger ones see {@link bigint}. */
export function integer(rule: { min?: number; max?: number } = {}): Schema<number> {
  const { min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER } = rule;
  const fits = (value: unknown) => Number.isSafeInteger(value) && within(value as number, min, max);
  const words = `an integer${bounds(rule.min, rule.max)}`;
  return new Schema({ type: "integer", minimum: min, maximum: max }, expecting(words, fits));
}

/** A whole number of 64 bits, or within other bounds: always a bigint. */
export function bigint(rule: { min?: bigint; max?: bigint } = {}): Schema<bigint> {
  const { min = -(2n ** 63n), max = 2n ** 63n - 1n } = rule;
  const words = `an integer${bounds(min, max)}`;
  const check: Check = (value, path, issues) => {
    const whole = Number.isSafeInteger(value) ? BigInt(value as number) : value;
    if (typeof whole === "bigint" && within(whole, min, max)) return whole;
    const found = typeof whole === "bigint" ? "another" : kind(value);
    issues.push({ path, message: `expected ${words}, found ${found}` });
    return undefined;
  };
  return new Schema({ type: "integer", minimum: min, maximum: max }, check);
}

/** True or false. */
export function boolean(): Schema<boolean> {
  return new Schema(
    { type: "boolean" },
    expecting("true or false", (value) => typeof value === "boolean"),
  );
}

/** One of these values. */
export function literal<const V extends readonly (string | number | boolean | null)[]>(
  ...values: V
): Schema<V[number]> {
  const words = values.map((value) => JSON.stringify(value)).join(" or ");
  return new Schema(
    { enum: values },
    expecting(words, (value) => values.includes(value as V[number])),
  );
}

/** Any value. */
export function unknown(): Schema<unknown> {
  return new Schema({}, (value) => value);
}

/** A list of values that all fit one schema. */
export function array<T>(item: Schema<T>, rule: { min?: number; max?: number } = {}): Schema<T[]> {
  const { min, max } = rule;
  const length = min === undefined && max === undefined ? "" : ` with${bounds(min, max)} items`;
  const list = expecting(`a list${length}`, (value) => Array.isArray(value) && within(value.length, min, max));
  const check: Check = (value, path, issues) => {
    if (list(value, path, issues) === undefined) return undefined;
    return (value as unknown[]).map((one, index) => item.read(one, [...path, index], issues));
  };
  return new Schema(keywords({ type: "array", items: item.json, minItems: min, maxItems: max }), check);
}

/** An object with any names, whose values all fit one schema. */
export function record<T>(value: Schema<T>): Schema<Record<string, T>> {
  const check: Check = (object, path, issues) => {
    if (isObject(object, path, issues) === undefined) return undefined;
    const entries = Object.entries(object as object);
    return Object.fromEntries(entries.map(([name, one]) => [name, value.read(one, [...path, name], issues)]));
  };
  return new Schema({ type: "object", additionalProperties: value.json }, check);
}

const isObject = expecting("an object", (value) => kind(value) === "an object");

type Shape = { readonly [name: string]: Schema<unknown> };
type OptionalNames<S extends Shape> = { [N in keyof S]: undefined extends TypeOf<S[N]> ? N : never }[keyof S];
type TypeOf<S> = S extends Schema<infer T> ? T : never;

/** The type of an object with these fields: those that may be undefined may be missing. */
export type ObjectOf<S extends Shape> = {
  [N in Exclude<keyof S, OptionalNames<S>>]: TypeOf<S[N]>;
} & { [N in OptionalNames<S>]?: TypeOf<S[N]> } extends infer O
  ? { [N in keyof O]: O[N] }
  : never;

/** An object with these fields. */
export function object<const S extends Shape>(fields: S): Schema<ObjectOf<S>> {
  const names = Object.entries(fields);
  const required = names.filter(([, field]) => !field.missing).map(([name]) => name);
  const properties = Object.fromEntries(names.map(([name, field]) => [name, field.json]));
  const check: Check = (object, path, issues) => {
    if (isObject(object, path, issues) === undefined) return undefined;
    const given = object as Record<string, unknown>;
    const read: [string, unknown][] = [];
    for (const [name, field] of names) {
      const value = field.read(Object.hasOwn(given, name) ? given[name] : undefined, [...path, name], issues);
      if (value !== undefined) read.push([name, value]);
    }
    return Object.fromEntries(read);
  };
  return new Schema({ type: "object", properties, required }, check);
}

/** What fits one of these schemas; the first one that fits reads it. */
export function union<const U extends readonly Schema<unknown>[]>(...schemas: U): Schema<TypeOf<U[number]>> {
  const check: Check = (value, path, issues) => {
    for (const schema of schemas) {
      const own: StandardIssue[] = [];
      const read = schema.read(value, path, own);
      if (own.length === 0) return read;
    }
    issues.push({ path, message: `fits none of ${schemas.length} kinds, found ${kind(value)}` });
    return undefined;
  };
  return new Schema({ anyOf: schemas.map((schema) => schema.json) }, check);
}
