// The conformance probe in TypeScript: sdk/probe/README.md says what each verb does.
import {
  bytes,
  config,
  type Event,
  json,
  type Output,
  plugin,
  Reject,
  Retry,
  s,
  state,
  StateError,
  text,
} from "wattle";

const Shape = s.object({
  text: s.string(),
  integer: s.bigint(),
  unsigned: s.bigint({ min: 0n, max: 2n ** 64n - 1n }),
  real: s.number(),
  flag: s.boolean(),
  list: s.array(s.bigint()),
  nested: s.object({ name: s.string() }),
  maybe: s.string().nullable().default(null),
});
const Message = s.object({
  port: s.string(),
  data: s.string(),
  key: s.string().optional(),
  type: s.string().optional(),
  content_type: s.string().optional(),
  subject: s.string().optional(),
});
const Attribute = s.object({ name: s.string(), value: s.string() });
const Count = s.object({ count: s.integer({ min: 0 }) });
const Entry = s.object({ key: s.string(), value: s.string() });
const Large = s.object({ key: s.string(), size: s.integer({ min: 0 }) });
const Increment = s.object({ key: s.string(), by: s.bigint() });
const BucketEntry = s.object({ bucket: s.string(), key: s.string(), value: s.string() });
const Visits = s.object({ count: s.integer(), last: s.string() });
const Attempts = s.object({ attempts: s.integer(), after_ms: s.integer().optional() });

const settings = {
  word: s.string().default("hello").describe("A text."),
  times: s.integer({ min: 0, max: 0xffff_ffff }).default(3).describe("A whole number."),
  ratio: s.number().default(0.5).describe("A number."),
  loud: s.boolean().default(false).describe("A switch."),
  end: s.string().optional().describe("A text that may be missing."),
};

type Answer = Output<"out" | "other"> | Output<"out" | "other">[] | void;

export default plugin({
  ports: ["out", "other"],
  config: settings,
  stateVersion: 3,
  handle(event, { word, times, ratio, loud, end }): Answer {
    const { type } = event;
    const say = (value: unknown) => text("out", String(value), { type });
    const send = (value: unknown) => json("out", value, { type });
    switch (type.replace(/^probe\./, "")) {
      case "echo":
        return bytes("out", event.data, { type });
      case "length":
        return say([...event.text()].length);
      case "json": {
        // In the order of the shape, whatever the order of the data is.
        return send(event.json(Shape));
      }
      case "send":
        return message(event);
      case "attribute": {
        const { name, value } = event.json(Attribute);
        return bytes("out", new Uint8Array(), { type, attributes: { [name]: value } });
      }
      case "many": {
        const { count } = event.json(Count);
        return Array.from({ length: count }, (_, number) =>
          text(number % 2 === 0 ? "out" : "other", String(number), { type }),
        );
      }
      case "nothing":
        return;
      case "event": {
        const { topic, partition, key, contentType, timeNs, attempt } = event;
        return send({ topic, partition, key, type, content_type: contentType, time_ns: String(timeNs), attempt });
      }
      case "attributes": {
        const lines = [...event.attributes].map(([name, value]) => `${name}=${value}`);
        return say(lines.sort().join("\n"));
      }
      case "config":
        return send({ word, times, ratio, loud, end: end ?? null });
      case "setting":
        return say(config(event.text()) ?? "none");

      case "get":
        return { ...say(""), data: state.get(event.text()) ?? say("none").data };
      case "set": {
        const { key, value } = event.json(Entry);
        state.set(key, value);
        return say("ok");
      }
      case "set-large": {
        const { key, size } = event.json(Large);
        state.set(key, new Uint8Array(size).fill("x".charCodeAt(0)));
        return say("ok");
      }
      case "delete":
        state.delete(event.text());
        return say("ok");
      case "exists":
        return say(state.exists(event.text()));
      case "increment": {
        const { key, by } = event.json(Increment);
        return say(state.increment(key, by));
      }
      case "fill": {
        const { count } = event.json(Count);
        for (let number = 0; number < count; number++) state.set(`fill/${String(number).padStart(5, "0")}`, "1");
        return say("ok");
      }
      case "keys":
        return say([...state.keys()].join("\n"));
      case "bucket": {
        const { bucket: name, key, value } = event.json(BucketEntry);
        const bucket = state.bucket(name);
        bucket.set(key, value);
        return send({ there: bucket.getText(key) ?? null, default: state.getText(key) ?? null });
      }
      case "visit": {
        const visits = state.getJson("visit", Visits) ?? { count: 0, last: "" };
        const next = { count: visits.count + 1, last: event.text() };
        state.setJson("visit", next);
        return send(next);
      }
      case "bad-key-caught":
        try {
          state.set("", "x");
        } catch (error) {
          if (error instanceof StateError) return say("refused");
          throw error;
        }
        return say("taken");
      case "bad-key":
        state.set("", "x");
        return say("ok");
      case "set-then-reject":
        state.set(event.text(), "undone");
        throw new Reject("on purpose");
      case "set-then-retry":
        state.set(event.text(), "undone");
        throw new Retry("on purpose");
      case "set-then-panic":
        state.set(event.text(), "undone");
        throw new Error("on purpose");

      case "reject":
        throw new Reject(event.text());
      case "retry":
        return retry(event);
      case "panic":
        return outer(event.text());
      case "loop":
        for (;;);
      case "grow":
        for (const kept: Uint8Array[] = []; ;) kept.push(new Uint8Array(1 << 20).fill(1));
      case "recurse":
        return say(recurse(1));

      case "log": {
        const words = event.text();
        for (const write of [console.trace, console.debug, console.info, console.warn, console.error]) write(words);
        // There are no other streams than that of the console.
        console.log(words);
        console.warn(words);
        return say("ok");
      }
      case "clock":
        return say(Date.now() === event.timeMs ? "same" : `${Date.now()} ${event.timeMs}`);
      case "files":
        return say("require" in globalThis ? "there is a `require`" : "refused");
      case "random":
        return say(`${Math.random()} ${Math.random()} ${crypto.randomUUID()}`);
      case "hash": {
        const map = new Map(["z", "b", "1", "a", "0"].map((key) => [key, true]));
        return say([...map.keys()].join(" "));
      }
      default:
        throw new Reject(`no verb ${type.replace(/^probe\./, "")}`);
    }
  },
});

function message(event: Event): Output<"out" | "other"> {
  const { port, data, key, type, content_type: contentType, subject } = event.json(Message);
  return text(port as "out", data, {
    contentType: contentType ?? "",
    ...(key === undefined ? {} : { key }),
    ...(type === undefined ? {} : { type }),
    ...(subject === undefined ? {} : { attributes: { subject } }),
  });
}

function retry(event: Event): Output<"out"> {
  const { attempts, after_ms: afterMs } = event.json(Attempts);
  if (event.attempt < attempts) throw new Retry("not yet", afterMs === undefined ? {} : { afterMs });
  return text("out", String(event.attempt), { type: event.type });
}

function outer(words: string): never {
  return inner(words);
}

function inner(words: string): never {
  throw new TypeError(words);
}

function recurse(depth: number): number {
  return recurse(depth + 1) + depth;
}
