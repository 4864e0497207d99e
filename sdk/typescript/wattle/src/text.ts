// Text as UTF-8. QuickJS has no TextEncoder and TextDecoder, but base64 in native code, which is faster than a loop
// over characters; Node has both.

const ascii = /^[\x00-\x7f]*$/;
/** Arguments of one call are on the engine's stack. */
const CHUNK_BYTES = 8192;

interface Base64 {
  readonly prototype: { toBase64?(this: Uint8Array): string };
  fromBase64?(text: string): Uint8Array;
}
const { prototype, fromBase64 } = Uint8Array as unknown as Base64;
const { toBase64 } = prototype;

/** Bytes as text; throws a TypeError where they are not UTF-8. */
export function decode(bytes: Uint8Array): string {
  const latin = toBase64 ? atob(toBase64.call(bytes)) : latinOf(bytes);
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
  return fromBase64 ? fromBase64.call(Uint8Array, btoa(latin)) : bytesOf(latin);
}

/** A character for each byte. */
function latinOf(bytes: Uint8Array): string {
  let latin = "";
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    latin += String.fromCharCode.apply(null, bytes.subarray(at, at + CHUNK_BYTES) as unknown as number[]);
  }
  return latin;
}

function bytesOf(latin: string): Uint8Array {
  const bytes = new Uint8Array(latin.length);
  for (let at = 0; at < latin.length; at++) bytes[at] = latin.charCodeAt(at);
  return bytes;
}

function wellFormed(text: string): string {
  return text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");
}
