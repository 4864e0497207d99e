// JSON without loss: an integer that a number cannot hold exactly is read as a bigint, and a bigint is written as
// digits.

/** A text in JSON as a value. Integers beyond 2^53 are bigints; of names that occur twice the last one counts. */
export function parseJson(text: string): unknown {
  if (!hasLongNumber(text)) return JSON.parse(text);
  // A string may be written with escapes, so the mark is looked for in what they stand for.
  const mark = unused(JSON.stringify(JSON.parse(text)));
  const marked = text.replace(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g, (token) =>
    /^-?\d{16,}$/.test(token) && !Number.isSafeInteger(Number(token)) ? `"${mark}${token}"` : token,
  );
  return JSON.parse(marked, (_, value) =>
    typeof value === "string" && value.startsWith(mark) ? BigInt(value.slice(mark.length)) : value,
  );
}

/** Digits of 2^53. */
const LONG_DIGITS = 16;

/**
 * Whether there may be an integer beyond 2^53: a run of 16 digits, which has one at a multiple of 16. A regular
 * expression looks at every character, and takes as long as the parser.
 */
function hasLongNumber(text: string): boolean {
  const isDigit = (at: number) => {
    const code = text.charCodeAt(at);
    return code >= 0x30 && code <= 0x39;
  };
  for (let at = LONG_DIGITS - 1; at < text.length; at += LONG_DIGITS) {
    if (!isDigit(at)) continue;
    let [from, to] = [at, at];
    while (isDigit(from - 1)) from--;
    while (isDigit(to + 1)) to++;
    if (to - from + 1 >= LONG_DIGITS) return true;
  }
  return false;
}

/** A value as a text in JSON. Throws a TypeError where it cannot be JSON. */
export function writeJson(value: unknown): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (error) {
    text = withBigints(value, error);
  }
  if (text === undefined) throw new TypeError(`${typeof value} cannot be JSON`);
  return text;
}

function withBigints(value: unknown, error: unknown): string {
  let found = false;
  const write = (mark: string) =>
    JSON.stringify(value, (_, item) => (typeof item === "bigint" ? ((found = true), `${mark}${item}`) : item));
  const mark = unused(write(""));
  if (!found) throw error;
  return write(mark).replace(new RegExp(`"${mark}(-?\\d+)"`, "g"), "$1");
}

/** A text that occurs nowhere in another. */
function unused(text: string): string {
  let mark = "integer:";
  while (text.includes(mark)) mark = `i${mark}`;
  return mark;
}
