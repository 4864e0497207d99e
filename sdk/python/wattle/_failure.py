"""What a handler raises about an event that it cannot handle."""


class Reject(Exception):
    """The event will never be handled: it becomes a dead letter now, with this reason."""


class Retry(Exception):
    """The event may be handled later: it is tried again.

    `after_ms` is the delay until the next attempt, 10 ms to a day; without it, it is what the topology's `retry` says.
    """

    def __init__(self, reason: str, *, after_ms: float | None = None) -> None:
        super().__init__(reason)
        self.after_ms = after_ms


class StateError(Retry):
    """The bus refused an operation on the state, such as a key that is too long. Not caught, it is a `Retry`."""
