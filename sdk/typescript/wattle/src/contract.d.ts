// What the componentizer gives: the interfaces of the contract (wit/), as modules. u64 and s64 are numbers here.

declare module "wattle:plugin/context@0.1.0" {
  export function current(index: number): void;
  export function attributes(): string;
  export function ports(): string[];
}

declare module "wasi:logging/logging@0.1.0-draft" {
  export type Level = "trace" | "debug" | "info" | "warn" | "error" | "critical";
  export function log(level: Level, context: string, message: string): void;
}

declare module "wasi:config/store@0.2.0-rc.1" {
  export function get(key: string): string | null | undefined;
}

declare module "wasi:keyvalue/store@0.2.0-draft2" {
  export interface Bucket {
    get(key: string): Uint8Array | null | undefined;
    set(key: string, value: Uint8Array): void;
    delete(key: string): void;
    exists(key: string): boolean;
    listKeys(cursor: string | undefined): { keys: string[]; cursor?: string | null };
  }
  export function open(identifier: string): Bucket;
}

declare module "wasi:keyvalue/atomics@0.2.0-draft2" {
  import type { Bucket } from "wasi:keyvalue/store@0.2.0-draft2";
  export function increment(bucket: Bucket, key: string, delta: number): number;
}

declare module "wasi:clocks/wall-clock@0.2.12" {
  export function now(): { seconds: number; nanoseconds: number };
}

declare module "wasi:random/random@0.2.12" {
  export function getRandomBytes(length: number): Uint8Array;
}
