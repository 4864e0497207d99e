// A Wattle plugin. `wattle dev topology.yaml` builds it, runs it, and builds it again whenever it changes.
import { json, plugin, s } from "wattle";

const Visit = s.object({ name: s.string({ minLength: 1 }) });

export default plugin({
  ports: ["greeted"],
  config: {
    word: s.string().default("Hello").describe("What a greeting begins with."),
  },
  handle(event, config) {
    // Data that do not fit are rejected, with the path of the field.
    const visit = event.json(Visit);
    return json("greeted", { text: `${config.word}, ${visit.name}!` });
  },
});
