import assert from "node:assert/strict";
import { test } from "node:test";
import * as v from "valibot";
import { bytes, json, plugin, Reject, Retry, s, type StandardSchema, text } from "wattle";
import { TestSubscriber } from "wattle/testing";
import { z } from "zod";

const Order = s.object({
  id: s.string({ minLength: 1 }),
  lines: s.array(s.object({ sku: s.string(), qty: s.integer({ min: 1 }) })),
  note: s.string().optional(),
});

/** The reason for which data are rejected; undefined where they are not. */
function misfit(schema: StandardSchema<unknown, unknown>, data: unknown): string | undefined {
  const reading = plugin({ handle: (event) => void event.json(schema) });
  const { failed } = new TestSubscriber(reading).handle({ data });
  assert.ok(failed === undefined || failed.action === "reject");
  return failed?.reason;
}

test("data of the wrong shape are rejected with the path of each field", () => {
  assert.equal(misfit(Order, { id: "a", lines: [{ sku: "b", qty: 1 }] }), undefined);
  assert.equal(
    misfit(Order, {
      id: "",
      lines: [
        { sku: "b", qty: 1 },
        { sku: 5, qty: 0 },
      ],
    }),
    "the data is not what this plugin reads: id: expected a text with from 1 units, found a text; " +
      "lines[1].sku: expected a text, found an integer; lines[1].qty: expected an integer from 1, found an integer",
  );
  assert.equal(misfit(Order, { id: "a" }), "the data is not what this plugin reads: lines: is missing");
  assert.equal(misfit(Order, []), "the data is not what this plugin reads: expected an object, found a list");
  assert.match(misfit(s.array(s.string()), Array(20).fill(1)) ?? "", /\[7\]: .*; and 12 more$/);
});

test("zod and valibot are schemas too", () => {
  const path = /^the data is not what this plugin reads: lines\[0\]\.qty: ./;
  const data = { lines: [{ qty: "1" }] };
  assert.match(misfit(z.object({ lines: z.array(z.object({ qty: z.number() })) }), data) ?? "", path);
  assert.match(misfit(v.object({ lines: v.array(v.object({ qty: v.number() })) }), data) ?? "", path);
});

test("what is no JSON, or no UTF-8, is rejected in words", () => {
  assert.match(misfit(Order, '{"id":') ?? "", /^the data is not JSON: /);
  assert.equal(misfit(Order, Uint8Array.of(0x22, 0xff, 0x22)), "the data is not UTF-8");
});

test("integers of 64 bits come in and go out exactly", () => {
  const Numbers = s.object({ big: s.bigint(), small: s.bigint(), number: s.integer() });
  const echo = plugin({ ports: ["out"], handle: (event) => json("out", event.json(Numbers)) });
  const data = '{"big":-9223372036854775808,"small":5,"number":7}';
  assert.equal(new TestSubscriber(echo).handle({ data }).outputs[0]?.text(), data);
  assert.match(
    misfit(s.object({ n: s.integer() }), '{"n":9007199254740993}') ?? "",
    /n: expected an integer, found an int/,
  );
  assert.match(
    misfit(Numbers, '{"big":9223372036854775808,"small":5,"number":7}') ?? "",
    /big: expected an integer from/,
  );
});

test("a text that looks like the mark of an integer stays one", () => {
  const echo = plugin({ ports: ["out"], handle: (event) => json("out", event.json()) });
  const data = '{"n":9007199254740993,"a":"\\u0069nteger:5","b":"integer:6","integer:7":1}';
  const out = new TestSubscriber(echo).handle({ data }).outputs[0]?.text();
  assert.equal(out, '{"n":9007199254740993,"a":"integer:5","b":"integer:6","integer:7":1}');
});

test("of a name that occurs twice the last one counts, and `__proto__` is a name as any other", () => {
  assert.equal(misfit(s.object({ n: s.integer() }), '{"n":"a","n":1}'), undefined);
  const echo = plugin({ ports: ["out"], handle: (event) => json("out", event.json(s.record(s.integer()))) });
  const data = '{"__proto__":1,"toString":2}';
  assert.equal(new TestSubscriber(echo).handle({ data }).outputs[0]?.text(), data);
  assert.match(misfit(s.object({ toString: s.integer() }), "{}") ?? "", /toString: is missing/);
});

test("an event has its attributes and its exact time", () => {
  let seen: unknown[] = [];
  const look = plugin({
    handle(event) {
      const { id, source, subject, timeNs, timeMs, key, attempt } = event;
      seen = [id, source, subject, timeNs, timeMs, key, attempt, event.attributes.get("traceparent")];
    },
  });
  const timeNs = 1_700_000_000_123_456_789n;
  const attributes = { traceparent: "00-a=b" };
  new TestSubscriber(look).handle({ id: "e", source: "/s", subject: "ü", timeNs, key: "k", attempt: 2, attributes });
  assert.deepEqual(seen, ["e", "/s", "ü", timeNs, 1_700_000_000_123, "k", 2, "00-a=b"]);
});

test("outputs have a port, a type, a key and attributes, of which each is one line", () => {
  const send = plugin({
    ports: ["a", "b"],
    handle: () => [
      text("b", "grüße", { type: "t", key: "k", attributes: { subject: "x\ndelay=30d" } }),
      bytes("a", Uint8Array.of(0, 255)),
    ],
  });
  const { outputs } = new TestSubscriber(send).handle({ data: {} });
  assert.deepEqual(
    outputs.map(({ port, type, key, contentType, data }) => [port, type, key, contentType, data.length]),
    [
      ["b", "t", "k", "text/plain", 7],
      ["a", "a", undefined, "application/json", 2],
    ],
  );
  assert.deepEqual(outputs[0]?.attributes, { subject: "x\0delay=30d" });
});

test("an output for a port that is not there is an error that names those that are", () => {
  const send = plugin({ ports: ["a", "b"], handle: () => text("c" as "a", "") });
  assert.throws(() => new TestSubscriber(send).handle(), /there is no port "c"; the ports are: a, b/);
});

test("a handler that is asynchronous is an error that says so", () => {
  const send = plugin({ handle: (async () => {}) as unknown as () => void });
  assert.throws(() => new TestSubscriber(send).handle(), /handlers are synchronous/);
});

test("Reject and Retry are failures with their reason, any other error is a bug with its place", () => {
  const fail = (error: Error) =>
    plugin({
      handle() {
        throw error;
      },
    });
  assert.deepEqual(new TestSubscriber(fail(new Reject("never"))).handle().failed, {
    action: "reject",
    reason: "never",
  });
  const retry = new TestSubscriber(fail(new Retry("later", { afterMs: 12.4 }))).handle();
  assert.deepEqual(retry.failed, { action: "retry", reason: "later", afterMs: 12 });
  assert.throws(() => new TestSubscriber(fail(new TypeError("bug"))).handle(), /bug/);
});

test("what cannot be JSON is rejected", () => {
  const circular: unknown[] = [];
  circular.push(circular);
  for (const value of [undefined, () => 1, circular]) {
    const send = plugin({ ports: ["a"], handle: () => json("a", value) });
    assert.match(new TestSubscriber(send).handle().failed?.reason ?? "", /^the output cannot be written as JSON: /);
  }
});

test("an integer beyond 2^53 is found wherever it is", () => {
  for (let before = 0; before < 40; before++) {
    const data = `{"a":"${"x".repeat(before)}","n":9007199254740993}`;
    const look = plugin({ ports: ["out"], handle: (event) => json("out", event.json()) });
    assert.equal(new TestSubscriber(look).handle({ data }).outputs[0]?.text(), data);
  }
});
