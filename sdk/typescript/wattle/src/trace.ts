// Places in the author's files. `bundle.mjs` puts the source map of the bundle behind it, as a global.

interface SourceMap {
  readonly sources: readonly string[];
  readonly mappings: string;
}

/** One place: a function, and where it is. */
interface Frame {
  readonly name: string;
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const FRAMES_SHOWN = 8;
/** Names of sources of this SDK begin so: a handler's author has no use for them. */
const OWN = "wattle/";

/** An error as one line: what it is, and where it was thrown, in the author's files. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return `${singleLine(show(error))} (no Error, so without a place)`;
  const what = error.message === "" ? error.name : `${error.name}: ${error.message}`;
  const frames = framesOf(error.stack ?? "").filter((frame) => !frame.file.startsWith(OWN));
  const places = frames.slice(0, FRAMES_SHOWN).map(({ name, file, line, column }) => {
    const place = `${file}:${line}:${column}`;
    return name === "" ? `at ${place}` : `at ${name} (${place})`;
  });
  const cause = error.cause === undefined ? "" : `; caused by ${describe(error.cause)}`;
  return singleLine([what, ...places].join(" ")) + cause;
}

function show(value: unknown): string {
  try {
    return typeof value === "string" ? value : (JSON.stringify(value) ?? String(value));
  } catch {
    return String(value);
  }
}

function singleLine(text: string): string {
  return text.replace(/\s*[\r\n]+\s*/g, " ");
}

/** The frames of a stack, as QuickJS and Node write them: `    at name (file:line:column)`. */
function framesOf(stack: string): Frame[] {
  const map = (globalThis as { [sourceMap]?: SourceMap })[sourceMap];
  const frames: Frame[] = [];
  for (const text of stack.split("\n")) {
    const found = /^\s*at (?:(.*?) )?\(?([^()]*?):(\d+)(?::(\d+))?\)?$/.exec(text);
    if (!found) continue;
    const [, name, file, line, column] = found;
    const place = { line: Number(line), column: Number(column ?? 1) };
    const mapped = map ? original(map, place) : { file: file ?? "", ...place };
    if (mapped) frames.push({ name: name === "<anonymous>" ? "" : (name ?? ""), ...mapped });
  }
  return frames;
}

/** Where the bundler puts the source map. */
export const sourceMap: unique symbol = Symbol.for("wattle.source-map") as never;

/** Where a place of the bundle comes from; all numbers from 1. */
function original(map: SourceMap, place: { line: number; column: number }): Omit<Frame, "name"> | undefined {
  const fields = [0, 0, 0, 0];
  let found: Omit<Frame, "name"> | undefined;
  for (const [row, text] of map.mappings.split(";").entries()) {
    if (row >= place.line) break;
    fields[0] = 0;
    for (const segment of text === "" ? [] : text.split(",")) {
      for (const [index, delta] of decode(segment).entries()) fields[index] = (fields[index] ?? 0) + delta;
      const [column = 0, source = 0, line = 0, from = 0] = fields;
      if (row === place.line - 1 && column < place.column) {
        found = { file: map.sources[source] ?? "", line: line + 1, column: from + 1 };
      }
    }
  }
  return found;
}

/** The numbers of a segment of a source map, in base 64 VLQ. */
function decode(segment: string): number[] {
  const numbers: number[] = [];
  let value = 0;
  let shift = 0;
  for (const digit of segment) {
    const bits = DIGITS.indexOf(digit);
    value |= (bits & 31) << shift;
    shift += 5;
    if (bits & 32) continue;
    numbers.push(value & 1 ? -(value >> 1) : value >> 1);
    value = shift = 0;
  }
  return numbers;
}
