// What libraries expect of their surroundings and QuickJS lacks. The bundle begins with it, so that it is there
// before any other module runs.
import { lines } from "./console.ts";
import { crypto, random } from "./random.ts";
import { decode, encode } from "./text.ts";

class Encoder {
  readonly encoding = "utf-8";
  encode(text = ""): Uint8Array {
    return encode(String(text));
  }
}

class Decoder {
  readonly encoding = "utf-8";
  readonly fatal: boolean;
  readonly ignoreBOM: boolean;

  constructor(label = "utf-8", options: { fatal?: boolean; ignoreBOM?: boolean } = {}) {
    if (!/^(utf-?8|unicode-1-1-utf-8)$/i.test(label.trim())) throw new RangeError(`the encoding ${label} is not there`);
    this.fatal = options.fatal ?? false;
    this.ignoreBOM = options.ignoreBOM ?? false;
  }

  decode(input?: ArrayBuffer | ArrayBufferView): string {
    const bytes =
      input === undefined
        ? new Uint8Array()
        : ArrayBuffer.isView(input)
          ? new Uint8Array(input.buffer, input.byteOffset, input.byteLength)
          : new Uint8Array(input);
    const hasMark = !this.ignoreBOM && bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf;
    const content = hasMark ? bytes.subarray(3) : bytes;
    try {
      return decode(content);
    } catch (error) {
      if (this.fatal) throw error;
      return lossy(content);
    }
  }
}

/** Text of bytes that are not UTF-8: each maximal wrong part is one U+FFFD. */
function lossy(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length;) {
    const first = bytes[at] ?? 0;
    const more = first < 0x80 ? 0 : first < 0xc2 ? -1 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : first < 0xf5 ? 3 : -1;
    let length = 1;
    if (more > 0) {
      let low = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
      let high = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
      for (; length <= more; length++, low = 0x80, high = 0xbf) {
        const byte = bytes[at + length] ?? 0;
        if (byte < low || byte > high) break;
      }
    }
    text += more >= 0 && length === more + 1 ? decode(bytes.subarray(at, at + length)) : "\ufffd";
    at += length;
  }
  return text;
}

const globals = globalThis as Record<string, unknown>;
globals["console"] = lines;
globals["crypto"] ??= crypto;
globals["TextEncoder"] ??= Encoder;
globals["TextDecoder"] ??= Decoder;
Math.random = random;
