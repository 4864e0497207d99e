import assert from "node:assert/strict";
import { test } from "node:test";
import { TestSubscriber } from "wattle/testing";

import greet from "../src/handler.ts";

test("a visitor is greeted", () => {
  const { outputs } = new TestSubscriber(greet, { config: { word: "Hi" } }).handle({ data: { name: "Ada" } });
  assert.deepEqual(
    outputs.map((output) => [output.port, output.json()]),
    [["greeted", { text: "Hi, Ada!" }]],
  );
});

test("a visit without a name is rejected", () => {
  const { failed } = new TestSubscriber(greet).handle({ data: { nom: "Ada" } });
  assert.equal(failed?.action, "reject");
  assert.match(failed?.reason ?? "", /name: is missing/);
});
