import assert from "node:assert/strict";
import { test } from "node:test";
import { TestSubscriber } from "wattle/testing";

import pricing from "../src/handler.ts";

const customer = { name: "Ada", email: "ada@example.test" };

function order(items: { sku: string; qty: number; price_cents: number }[], country?: string) {
  const total_cents = items.reduce((sum, { qty, price_cents }) => sum + qty * price_cents, 0);
  const from = country === undefined ? customer : { ...customer, country };
  return { order_id: "o-1", status: "paid", currency: "EUR", customer: from, items, total_cents };
}

test("the tax is that of the country, and the cents of the items add up to those of the order", () => {
  const thirds = ["a", "b", "c"].map((sku) => ({ sku, qty: 1, price_cents: 333 }));
  const [output] = new TestSubscriber(pricing).handle({ data: order(thirds, "SE") }).outputs;
  assert.equal(output?.key, "ada@example.test");
  const { items, net_cents, vat_cents, gross_cents, country } = output?.json();
  assert.deepEqual([country, net_cents, vat_cents, gross_cents], ["SE", 799, 200, 999]);
  assert.deepEqual(
    items.map((item: { net_cents: number }) => item.net_cents),
    [266, 267, 266],
  );
});

test("a customer who names no country has that of the shop, and rates may have parts of a percent", () => {
  const subscriber = new TestSubscriber(pricing, { config: { vat_percent: "CH=8.1 FI=25.5", home: "CH" } });
  const { outputs } = subscriber.handle({ data: order([{ sku: "lamp", qty: 1, price_cents: 10_810 }]) });
  assert.equal(outputs[0]?.json().net_cents, 10_000);
});

test("rates that cannot be read are a misfit of the configuration", () => {
  const lamp = order([{ sku: "lamp", qty: 1, price_cents: 100 }]);
  const { failed } = new TestSubscriber(pricing, { config: { vat_percent: "DE:19" } }).handle({ data: lamp });
  assert.equal(failed?.reason, "the setting `vat_percent` does not fit: expected rates such as DE=19");
});

test("sums of more than 53 bits times a hundred stay exact", () => {
  const { outputs } = new TestSubscriber(pricing).handle({
    data: order([{ sku: "house", qty: 9, price_cents: 999_999_999_999_999 }]),
  });
  const { net_cents, vat_cents, gross_cents } = outputs[0]?.json();
  assert.equal(gross_cents, 8_999_999_999_999_991);
  assert.equal(net_cents, 7_563_025_210_084_026);
  assert.equal(net_cents + vat_cents, gross_cents);
});

test("an order from a country without a rate, or with another total, is rejected", () => {
  const subscriber = new TestSubscriber(pricing);
  const lamp = [{ sku: "lamp", qty: 1, price_cents: 100 }];
  assert.equal(subscriber.handle({ data: order(lamp, "US") }).failed?.reason, "there is no tax rate for US");
  const { failed } = subscriber.handle({ data: { ...order(lamp), total_cents: 99 } });
  assert.equal(failed?.reason, "items cost 100 cents and the order 99");
});
