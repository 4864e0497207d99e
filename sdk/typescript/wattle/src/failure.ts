/**
 * The event will never be handled: it becomes a dead letter now, with this reason. Throw it from a handler.
 *
 * @example throw new Reject("the order has no items");
 */
export class Reject extends Error {
  override name = "Reject";
}

/**
 * The event may be handled later: it is tried again. Throw it from a handler.
 *
 * @example throw new Retry("no stock yet", { afterMs: 5_000 });
 */
export class Retry extends Error {
  override name = "Retry";
  /** The delay until the next attempt, 10 ms to a day; without it, it is what the topology's `retry` says. */
  readonly afterMs: number | undefined;

  constructor(reason: string, options: { afterMs?: number; cause?: unknown } = {}) {
    super(reason, { cause: options.cause });
    this.afterMs = options.afterMs;
  }
}

/** The bus refused an operation on the state, such as a key that is too long. Not caught, it is a {@link Retry}. */
export class StateError extends Retry {
  override name = "StateError";
}
