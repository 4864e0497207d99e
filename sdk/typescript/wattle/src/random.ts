// Random numbers that follow from the event. The engine seeds its own once in the life of an instance, so that they
// would depend on what it handled before.
import { getRandomBytes } from "./host.ts";
import { atEachEvent, isBefore } from "./turn.ts";

/** The state of xoshiro128**. A constant until the first event: the same sources give the same component. */
let words = [0x9e3779b9, 0x243f6a88, 0xb7e15162, 0x6a09e667] as const as readonly [number, number, number, number];
let isSeeded = true;

atEachEvent(() => {
  isSeeded = false;
});

function next(): number {
  let [a, b, c, d] = words;
  const turned = Math.imul(b, 5);
  const result = Math.imul((turned << 7) | (turned >>> 25), 9) >>> 0;
  const shifted = b << 9;
  c ^= a;
  d ^= b;
  b ^= c;
  a ^= d;
  c ^= shifted;
  d = (d << 11) | (d >>> 21);
  words = [a, b, c, d];
  return result;
}

/** `Math.random`, seeded for each event at its first use. */
export function random(): number {
  if (!isSeeded) {
    isSeeded = true;
    const seeds = new Uint32Array(getRandomBytes(16).slice().buffer);
    words = [seeds[0] ?? 1, seeds[1] ?? 2, seeds[2] ?? 3, seeds[3] ?? 4];
  }
  return ((next() >>> 5) * 67_108_864 + (next() >>> 6)) / 9_007_199_254_740_992;
}

type IntegerArray = Int8Array | Uint8Array | Uint8ClampedArray | Int16Array | Uint16Array | Int32Array | Uint32Array;

/** The part of `crypto` that needs no asynchrony. */
export const crypto = {
  getRandomValues<A extends IntegerArray | BigInt64Array | BigUint64Array>(array: A): A {
    if (isBefore()) throw new Error("there are no random values at the top level of a module: use them in the handler");
    new Uint8Array(array.buffer, array.byteOffset, array.byteLength).set(getRandomBytes(array.byteLength));
    return array;
  },
  randomUUID(): string {
    const bytes = this.getRandomValues(new Uint8Array(16));
    bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
    bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
    const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
  },
};
