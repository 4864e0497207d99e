import { writeJson } from "./json.ts";
import { Reject } from "./failure.ts";
import { encode } from "./text.ts";

/** What an output may say besides its port and its data. */
export interface OutputOptions {
  /** Its CloudEvents type. Default: the name of the port. */
  readonly type?: string;
  /** Its ordering key. Default: that of the event it answers, and so its partition and order. */
  readonly key?: string;
  /** The content type of its data. Default: that of the event it answers. */
  readonly contentType?: string;
  /**
   * Further CloudEvents attributes: `subject`, `dataschema`, or an extension, whose name is lower-case letters and
   * digits. The bus rejects the event when a name is none of these, or a value has control characters.
   */
  readonly attributes?: { readonly [name: string]: string };
}

/** An event for a port. Its id, source and time are given by the bus. */
export interface Output<Port extends string = string> extends OutputOptions {
  readonly port: Port;
  readonly data: Uint8Array;
}

/**
 * An output with a value as JSON. Rejects the event where the value cannot be JSON.
 *
 * @example return json("priced", { order_id, total_cents }, { type: "order.priced" });
 */
export function json<const Port extends string>(port: Port, value: unknown, options: OutputOptions = {}): Output<Port> {
  let text: string;
  try {
    text = writeJson(value);
  } catch (error) {
    throw new Reject(`the output cannot be written as JSON: ${(error as Error).message}`);
  }
  return { contentType: "application/json", ...options, port, data: encode(text) };
}

/** An output with a text. */
export function text<const Port extends string>(port: Port, text: string, options: OutputOptions = {}): Output<Port> {
  return { contentType: "text/plain", ...options, port, data: encode(text) };
}

/** An output with bytes; without a content type it has that of the event it answers. */
export function bytes<const Port extends string>(
  port: Port,
  data: Uint8Array,
  options: OutputOptions = {},
): Output<Port> {
  return { ...options, port, data };
}

/** The attributes of an output as the contract has them. */
export function attributeLines(attributes: OutputOptions["attributes"]): string {
  let lines = "";
  for (const [name, value] of Object.entries(attributes ?? {})) {
    // A line end would begin a further attribute, which could be anything, such as `delay`. The bus refuses a zero
    // byte, and says where.
    lines += `${name.replace(/[\n\r=]/g, "\0")}=${String(value).replace(/[\n\r]/g, "\0")}\n`;
  }
  return lines;
}
