// Text as UTF-8. QuickJS has no TextEncoder and TextDecoder; Node's tests have.

const ascii = /^[\x00-\x7f]*$/;
/** Arguments of one call are on the engine's stack. */
const CHUNK_BYTES = 8192;

/** Bytes as text; throws a TypeError where they are not UTF-8. */
export function decode(bytes: Uint8Array): string {
  let latin = "";
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    latin += String.fromCharCode.apply(null, bytes.subarray(at, at + CHUNK_BYTES) as unknown as number[]);
  }
  if (ascii.test(latin)) return latin;
  try {
    // `escape` makes `%xx` of each byte, which is what a URI has.
    return decodeURIComponent(escape(latin));
  } catch {
    throw new TypeError("the bytes are not UTF-8");
  }
}

/** Text as bytes; a lone surrogate becomes U+FFFD. */
export function encode(text: string): Uint8Array {
  const latin = ascii.test(text) ? text : unescape(encodeURIComponent(wellFormed(text)));
  const bytes = new Uint8Array(latin.length);
  for (let at = 0; at < latin.length; at++) bytes[at] = latin.charCodeAt(at);
  return bytes;
}

function wellFormed(text: string): string {
  return text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");
}
