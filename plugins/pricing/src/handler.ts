// Pricing: what of an accepted order is value added tax, by the country of the customer.
//
// Prices of orders include the tax. Cents are rounded so that those of the items add up to those of the order.
import { json, plugin, Reject, s } from "wattle";

const Item = s.object({ sku: s.string(), qty: s.integer({ min: 0 }), price_cents: s.integer({ min: 0 }) });
const Order = s.object({
  order_id: s.string(),
  status: s.string(),
  currency: s.string(),
  customer: s.object({ name: s.string(), email: s.string(), country: s.string({ pattern: /^[A-Z]{2}$/ }).optional() }),
  items: s.array(Item),
  total_cents: s.integer({ min: 0 }),
});

interface Price {
  net_cents: number;
  vat_cents: number;
  gross_cents: number;
}

export default plugin({
  ports: ["priced"],
  config: {
    vat_percent: s
      .string()
      .default("AT=20 DE=19 DK=25 FR=20 NL=21 SE=25")
      .describe('The tax of each country in percent, such as "DE=19 FR=20".')
      .map(ratesOf),
    home: s.string().default("DE").describe("The country of customers who name none."),
  },
  handle(event, config) {
    const { order_id, status, currency, customer, items, total_cents } = event.json(Order);
    const { country = config.home } = customer;
    const rate = config.vat_percent.get(country);
    if (rate === undefined) throw new Reject(`there is no tax rate for ${country}`);
    let [gross, net] = [0n, 0n];
    const priced = items.map(({ sku, qty, price_cents }) => {
      const [grossBefore, netBefore] = [gross, net];
      gross += BigInt(qty) * BigInt(price_cents);
      net = netOf(gross, rate);
      return { sku, qty, ...price(gross - grossBefore, net - netBefore) };
    });
    if (gross !== BigInt(total_cents)) throw new Reject(`items cost ${gross} cents and the order ${total_cents}`);
    const order = { order_id, status, country, currency, customer, items: priced, ...price(gross, net) };
    // What follows looks at customers: the orders of one are handled in order.
    return json("priced", order, { type: "order.priced", key: customer.email });
  },
});

/** The share without tax, rounded half up, of a sum with it. Bigints: a large order times 100 is more than 53 bits. */
function netOf(gross: bigint, rate: bigint): bigint {
  const divisor = 2n * (10_000n + rate);
  return (2n * gross * 10_000n + divisor / 2n) / divisor;
}

function price(gross: bigint, net: bigint): Price {
  return { net_cents: Number(net), vat_cents: Number(gross - net), gross_cents: Number(gross) };
}

/** The rates of the setting, in hundredths of a percent. */
function ratesOf(text: string): ReadonlyMap<string, bigint> {
  const entries = text.split(/\s+/).filter((pair) => pair !== "");
  return new Map(
    entries.map((pair) => {
      const [, country = "", whole = "", part = ""] = /^([A-Z]{2})=(\d{1,2})(?:\.(\d{1,2}))?$/.exec(pair) ?? [];
      if (country === "") throw new Error("expected rates such as DE=19");
      return [country, BigInt(whole) * 100n + BigInt(part.padEnd(2, "0"))];
    }),
  );
}
