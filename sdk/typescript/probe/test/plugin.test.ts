import assert from "node:assert/strict";
import { test } from "node:test";
import { config, json, plugin, Reject, s, state, text } from "wattle";
import { TestSubscriber } from "wattle/testing";

import { sections } from "../wattle/src/declare.ts";
import { describe, sourceMap } from "../wattle/src/trace.ts";

test("settings are read as their types, and have defaults", () => {
  let seen: unknown;
  const look = plugin({
    config: {
      word: s.string().default("a"),
      times: s.integer({ max: 9 }),
      loud: s.boolean().optional(),
      part: s.number().default(0.5),
    },
    handle(_, config) {
      seen = { ...config };
    },
  });
  assert.equal(new TestSubscriber(look, { config: { word: "5", times: 3, loud: true } }).handle().failed, undefined);
  assert.deepEqual(seen, { word: "5", times: 3, loud: true, part: 0.5 });
});

test("a setting that is missing or does not fit is retried, without its value", () => {
  const look = () => plugin({ config: { times: s.integer({ max: 9 }) }, handle: () => {} });
  assert.deepEqual(new TestSubscriber(look()).handle().failed, {
    action: "retry",
    reason: "the setting `times` is missing: add it to this subscriber's `config:`",
  });
  const { failed } = new TestSubscriber(look(), { config: { times: "secret" } }).handle();
  assert.equal(failed?.reason, "the setting `times` does not fit: expected an integer to 9, found a text");
  assert.throws(() => new TestSubscriber(look(), { config: { tims: 1 } }), /no setting tims/);
});

test("a setting is converted once, and each subscriber under test has its own", () => {
  let conversions = 0;
  const words = s
    .string()
    .default("a b")
    .map((text) => {
      conversions++;
      if (text === "") throw new Error("expected words");
      return new Set(text.split(" "));
    });
  const look = plugin({ ports: ["out"], config: { words }, handle: (_, { words }) => json("out", [...words]) });
  assert.deepEqual(new TestSubscriber(look).handle().outputs[0]?.json(), ["a", "b"]);
  const other = new TestSubscriber(look, { config: { words: "c" } });
  conversions = 0;
  for (const _ of [1, 2]) assert.deepEqual(other.handle().outputs[0]?.json(), ["c"]);
  assert.equal(conversions, 1);
  const { failed } = new TestSubscriber(look, { config: { words: "" } }).handle();
  assert.deepEqual(failed, { action: "retry", reason: "the setting `words` does not fit: expected words" });
});

test("what a plugin declares is in sections of its component", () => {
  const declared = plugin({
    stateVersion: 2,
    config: { word: s.string().default("a").describe("A word."), big: s.bigint({ min: 0n }) },
    handle: () => {},
  });
  const [version, schema] = sections(declared as never);
  assert.deepEqual(version, ["wattle:state-version", "2"]);
  assert.equal(schema?.[0], "wattle:config-schema");
  assert.equal(
    schema?.[1],
    '{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","additionalProperties":false,' +
      '"properties":{"word":{"type":"string","default":"a","description":"A word."},' +
      '"big":{"type":"integer","minimum":0,"maximum":9223372036854775807}},"required":["big"]}',
  );
  assert.deepEqual(sections(plugin({ handle: () => {} }) as never), []);
});

test("state goes on from event to event, and a failed event leaves nothing behind", () => {
  const count = plugin({
    ports: ["out"],
    handle(event) {
      const sum = state.increment("n", 5);
      state.set("text", "grüße");
      state.bucket("other").setJson("visit", { last: event.id });
      if (event.type === "bad") throw new Reject("no");
      return json("out", [sum, state.getText("text"), state.bucket("other").getJson("visit")]);
    },
  });
  const subscriber = new TestSubscriber(count, { state: { n: "37" } });
  assert.deepEqual(subscriber.handle({ id: "a" }).outputs[0]?.json(), [42, "grüße", { last: "a" }]);
  assert.equal(subscriber.handle({ id: "b", type: "bad" }).failed?.reason, "no");
  assert.equal(subscriber.state("n"), "42");
  assert.equal(subscriber.state("visit", "other"), '{"last":"a"}');
});

test("a refusal of the state is retried with the words of the bus, unless it is caught", () => {
  const write = plugin({ handle: (event) => state.set(event.text(), "x") });
  const { failed } = new TestSubscriber(write).handle({ data: "" });
  assert.deepEqual(failed, {
    action: "retry",
    reason: 'state: writing "": the key is empty; keys have 1 to 1024 bytes',
  });
  const long = new TestSubscriber(write).handle({ data: "k".repeat(1025) });
  assert.equal(
    long.failed?.reason,
    `state: writing "${"k".repeat(64)}": the key has 1025 bytes, and at most 1024 are allowed`,
  );
});

test("a counter of 64 bits is exact with a bigint", () => {
  const sums: unknown[] = [];
  const count = plugin({
    handle() {
      sums.push(state.increment("n", 2n ** 62n), state.increment("n", 1n), state.increment("n", -(2n ** 62n)));
      sums.push(state.increment("n"));
    },
  });
  new TestSubscriber(count).handle();
  assert.deepEqual(sums, [2n ** 62n, 2n ** 62n + 1n, 1n, 2]);
  const beyond = plugin({ handle: (event) => void state.increment("n", BigInt(event.text())) });
  const subscriber = new TestSubscriber(beyond, { state: { n: "9223372036854775807" } });
  assert.match(
    subscriber.handle({ data: "1" }).failed?.reason ?? "",
    /9223372036854775807 and 1 are more than 64 bits hold/,
  );
  const number = plugin({ handle: () => void state.increment("n") });
  const large = new TestSubscriber(number, { state: { n: "9007199254740992" } });
  assert.match(large.handle().failed?.reason ?? "", /increment by a bigint/);
});

test("keys come in the order of their bytes, over all pages", () => {
  let keys: string[] = [];
  const list = plugin({
    handle() {
      for (let number = 0; number < 2_500; number++) state.set(`k${String(number).padStart(4, "0")}`, "");
      for (const key of ["\u{1f980}", "\uffee", "a"]) state.set(key, "");
      keys = [...state.keys()];
    },
  });
  new TestSubscriber(list).handle();
  assert.equal(keys.length, 2_503);
  assert.deepEqual(keys.slice(0, 2), ["a", "k0000"]);
  assert.deepEqual(keys.slice(-2), ["\uffee", "\u{1f980}"]);
});

test("a batch begins its events one after the other, and ends at the first that fails", () => {
  const sum = plugin({
    ports: ["out"],
    handleBatch(batch) {
      const all = batch.events.length;
      for (const event of batch) {
        state.increment("n");
        batch.send(text("out", `${event.id} of ${all}`));
        if (event.type === "bad") throw new Reject("no");
      }
    },
  });
  const subscriber = new TestSubscriber(sum);
  const { outputs, failed } = subscriber.handleAll([{ id: "a" }, { id: "b" }, { id: "c", type: "bad" }, { id: "d" }]);
  assert.deepEqual(
    outputs.map((output) => output.text()),
    ["a of 4", "b of 4"],
  );
  assert.deepEqual(failed, { action: "reject", reason: "no" });
  assert.equal(subscriber.state("n"), "2");
  const lazy = plugin({ handleBatch: () => {} });
  assert.throws(() => new TestSubscriber(lazy).handleAll([{}, {}]), /before it began the last 2 of its events/);
});

test("outputs of a generator count when it ends, and not when it fails", () => {
  const send = plugin({
    ports: ["out"],
    *handle(event) {
      yield text("out", "1");
      if (event.type === "bad") throw new Reject("no");
      yield text("out", "2");
    },
  });
  assert.equal(new TestSubscriber(send).handle().outputs.length, 2);
  assert.equal(new TestSubscriber(send).handle({ type: "bad" }).outputs.length, 0);
});

test("console writes log lines, whatever it is given", () => {
  const circular: Record<string, unknown> = { a: 1n };
  circular["self"] = circular;
  const log = plugin({
    handle() {
      console.log("a", 1, [undefined, null, "b"], new Map([["k", new Set([1])]]), circular);
      console.warn(new Uint8Array(3), { deep: { deep: { deep: { deep: { deep: 1 } } } } });
    },
  });
  const { logs } = new TestSubscriber(log).handle();
  assert.deepEqual(
    logs.map(({ level, message }) => [level, message]),
    [
      ["info", 'a 1 [undefined, null, "b"] Map { k: Set {1} } { a: 1n, self: [circular] }'],
      ["warn", "[3 bytes] { deep: { deep: { deep: { deep: {…} } } } }"],
    ],
  );
});

test("an uncaught error is one log line with its places in the author's file", () => {
  const logs: string[] = [];
  const inner = () => {
    throw new TypeError("two\n  lines", { cause: new RangeError("why") });
  };
  try {
    inner();
  } catch (error) {
    logs.push(describe(error));
  }
  assert.match(
    logs[0] ?? "",
    /^TypeError: two lines at inner \(.*plugin\.test\.ts:\d+:\d+\) .*; caused by RangeError: why at /,
  );
  assert.equal(describe("a text"), "a text (no Error, so without a place)");
});

test("places of the bundle are mapped to those of the sources", () => {
  const globals = globalThis as { [sourceMap]?: unknown };
  // Line 2 of the bundle: column 0 is line 1, column 0 of a.ts; column 4 is line 11, column 3 of b.ts.
  globals[sourceMap] = { sources: ["a.ts", "b.ts"], mappings: ";AAAA,ICUG" };
  const error = new Error("x");
  error.stack = "    at f (/bundle.js:2:9)\n    at /bundle.js:2:2\n    at native";
  try {
    assert.equal(describe(error), "Error: x at f (b.ts:11:4) at a.ts:1:1");
  } finally {
    delete globals[sourceMap];
  }
});

test("there is no bus at the top level of a module, and words say so", () => {
  assert.throws(() => config("word"), /there is no configuration at the top level of a module/);
  assert.throws(() => state.get("a"), /there is no state at the top level of a module/);
});

test("types know the ports and the settings", () => {
  // @ts-expect-error: there is no such port
  const port = plugin({ ports: ["a"], handle: () => text("b", "") });
  assert.throws(() => new TestSubscriber(port).handle(), /there is no port "b"/);
  plugin({
    config: { word: s.string().optional(), times: s.integer().default(1) },
    handle(_, config) {
      const word: string | undefined = config.word;
      // @ts-expect-error: it may be missing
      const always: string = config.word;
      // @ts-expect-error: there is no such setting
      const none = config.wrod;
      return void [word, always, none, config.times + 1];
    },
  });
});
