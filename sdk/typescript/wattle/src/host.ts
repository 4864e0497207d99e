// The one place that imports the contract. Unit tests and the build run without a bus: there `bundle.mjs` and
// `test.mjs` put testing-host.ts in the place of these modules.
/// <reference path="./contract.d.ts" />

export { attributes, current, ports } from "wattle:plugin/context@0.1.0";
export { log, type Level } from "wasi:logging/logging@0.1.0-draft";
export { get as setting } from "wasi:config/store@0.2.0-rc.1";
export { open, type Bucket } from "wasi:keyvalue/store@0.2.0-draft2";
export { increment } from "wasi:keyvalue/atomics@0.2.0-draft2";
export { now } from "wasi:clocks/wall-clock@0.2.12";
export { getRandomBytes } from "wasi:random/random@0.2.12";
