// Which event is being handled: what is read from the bus (attributes, time, random bytes) belongs to it.
import { current } from "./host.ts";

let turn = 0;
const beginnings: (() => void)[] = [];

/** Calls this at the beginning of each event. */
export function atEachEvent(begin: () => void): void {
  beginnings.push(begin);
}

/** Turns to the event with this index of the call. Gives the number of the turn. */
export function begin(index: number): number {
  current(index);
  turn++;
  for (const begin of beginnings) begin();
  return turn;
}

/** Refuses to read something of an event that is not the current one. */
export function mustBe(ofEvent: number, what: string): void {
  if (ofEvent !== turn) throw new Error(`${what} can be read while its event is handled, and not before or later`);
}

/** Whether no event has begun: at the top level of a module, which runs when the plugin is built. */
export function isBefore(): boolean {
  return turn === 0;
}
