"""The values that a subscriber keeps from one event to the next."""

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

from . import _json
from ._bus import Bucket, Refusal, bus
from ._failure import StateError

T = TypeVar("T")
_NAME_SHOWN_CHARACTERS = 64


class State:
    """Values by key.

    Each partition has a state of its own, so events with the same key always meet the same state, and no other call
    writes it meanwhile. What an event wrote is committed together with its outputs; when the event fails, it is as if
    it had written nothing.

    Keys have 1 to 1,024 bytes, values at most 1 MiB; one event may write 4 MiB and 10,000 keys. What is beyond is a
    `StateError`, which is tried again where it is not caught.
    """

    __slots__ = ("_name", "_bucket")

    def __init__(self, name: str) -> None:
        self._name = name
        self._bucket: Bucket | None = None

    def bucket(self, name: str) -> "State":
        """Another bucket: keys of their own under a name of up to 64 bytes. `state` itself is the bucket `default`."""
        return State(name)

    def get(self, key: str) -> bytes | None:
        """The value under a key."""
        return self._try("reading", key, lambda bucket: bucket.get(key))

    def get_text(self, key: str) -> str | None:
        """The value under a key as text. Retries where it is not UTF-8."""
        value = self.get(key)
        try:
            return None if value is None else value.decode()
        except UnicodeDecodeError:
            raise StateError(f"state: what is under {_shown(key)} is not UTF-8") from None

    @overload
    def get_json(self, key: str) -> Any: ...
    @overload
    def get_json(self, key: str, of: type[T]) -> T | None: ...
    def get_json(self, key: str, of: Any = None) -> Any:
        """The value under a key as JSON: as a type, where one is given, as `Event.json` has them.

        Retries where it does not fit: another version of the plugin may read it.
        """
        text = self.get_text(key)
        if text is None:
            return None
        try:
            value = _json.parse(text)
            return value if of is None else _json.read(of, value)
        except (_json.NotJsonError, _json.Misfit) as error:
            raise StateError(f"state: what is under {_shown(key)} is not what this plugin reads: {error}") from None

    def set(self, key: str, value: bytes | str) -> None:
        """Puts a value under a key, whatever was there."""
        data = value.encode() if isinstance(value, str) else bytes(value)
        self._try("writing", key, lambda bucket: bucket.set(key, data))

    def set_json(self, key: str, value: Any) -> None:
        """Puts a value under a key, as JSON."""
        self.set(key, _json.write(value))

    def delete(self, key: str) -> None:
        """Removes a key, if it is there."""
        self._try("deleting", key, lambda bucket: bucket.delete(key))

    def exists(self, key: str) -> bool:
        """Whether there is a value under a key."""
        return self._try("reading", key, lambda bucket: bucket.exists(key))

    def increment(self, key: str, by: int = 1) -> int:
        """Adds to the number under a key, which is 0 where there is none, and gives the sum.

        It has 64 bits, and is kept in decimal digits.
        """
        if not -(2**63) <= by < 2**63:
            raise StateError(f"state: incrementing {_shown(key)}: {by} is more than 64 bits hold")
        return self._try("incrementing", key, lambda bucket: bucket.increment(key, by))

    def keys(self) -> Iterator[str]:
        """All keys, in ascending order of their bytes. They are read 1,000 at once, as far as they are asked for."""
        cursor: str | None = None
        while True:
            behind = cursor
            page, cursor = self._try("listing behind", behind or "", lambda bucket: bucket.list_keys(behind))
            yield from page
            if cursor is None:
                return

    def _try(self, doing: str, what: str, action: Callable[[Bucket], T]) -> T:
        try:
            # Open for as long as the instance lives: it is a name, and means the state of whatever event is current.
            if self._bucket is None:
                self._bucket = bus.open(self._name)
            return action(self._bucket)
        except Refusal as error:
            raise StateError(f"state: {doing} {_shown(what)}: {error}") from None


def _shown(key: str) -> str:
    """A key as a message has it: it may be what is too long."""
    return json.dumps(key[:_NAME_SHOWN_CHARACTERS], ensure_ascii=False)


#: The state of the subscriber, in its bucket `default`.
state = State("")
