import assert from "node:assert/strict";
import { test } from "node:test";
import { TestSubscriber } from "wattle/testing";

import probe from "../src/probe.ts";

test("the probe answers a verb and rejects what is none", () => {
  const subscriber = new TestSubscriber(probe);
  const [output] = subscriber.handle({ type: "probe.length", data: "grüße 🦀" }).outputs;
  assert.deepEqual([output?.port, output?.type, output?.text()], ["out", "probe.length", "7"]);
  assert.deepEqual(subscriber.handle({ type: "probe.no" }).failed, { action: "reject", reason: "no verb no" });
});

test("its shape is written as it was read", () => {
  const data =
    '{"text":"\\u0000\\"","integer":-9223372036854775808,"unsigned":18446744073709551615,"real":0.5,"flag":true,' +
    '"list":[1,9007199254740993],"nested":{"name":"日本"},"maybe":null}';
  assert.equal(new TestSubscriber(probe).handle({ type: "probe.json", data }).outputs[0]?.text(), data);
});
