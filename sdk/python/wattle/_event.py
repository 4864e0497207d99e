"""The event that a handler is given."""

import builtins
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar, overload

from . import _json
from ._bus import bus
from ._failure import Reject

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Event:
    """One event."""

    __slots__ = (
        "topic", "partition", "content_type", "key", "type", "time_ns", "attempt", "data", "_attributes", "_is_current",
    )  # fmt: skip

    #: The topic that it comes from.
    topic: str
    #: The partition of the topic, from 0.
    partition: int
    #: The content type of the data; "" when the producer gave none.
    content_type: str
    #: The ordering key.
    key: str
    #: The CloudEvents type.
    type: str
    #: When it was appended to its topic, in nanoseconds since 1970.
    time_ns: int
    #: Which attempt at it this is, from 1.
    attempt: int
    #: The payload, as it was published.
    data: bytes

    def __init__(self, batch: Any, event: Any) -> None:
        self.topic = batch.topic
        self.partition = batch.partition
        self.content_type = batch.content_type
        self.key = event.key
        self.type = event.type
        self.time_ns = event.time
        self.attempt = event.attempt
        self.data = event.data
        self._attributes: dict[str, str] | None = None
        self._is_current = False

    def __repr__(self) -> str:
        return f"Event(topic={self.topic!r}, key={self.key!r}, type={self.type!r}, {len(self.data)} bytes)"

    @property
    def time(self) -> datetime:
        """When it was appended to its topic, to the microsecond."""
        return _EPOCH + timedelta(microseconds=self.time_ns // 1000)

    @property
    def attributes(self) -> dict[str, str]:
        """Its CloudEvents attributes as texts: `id`, `source`, `subject`, `time` (the producer's) and extensions."""
        if self._attributes is None:
            if not self._is_current:
                raise RuntimeError("attributes can be read while their event is handled, and not before or later")
            lines = bus.attributes().split("\n")
            self._attributes = dict(line.split("=", 1) for line in lines if line)
        return self._attributes

    @property
    def id(self) -> str:
        """Its CloudEvents id."""
        return self.attributes.get("id", "")

    @property
    def source(self) -> str:
        """Its CloudEvents source."""
        return self.attributes.get("source", "")

    @property
    def subject(self) -> str | None:
        """Its CloudEvents subject, if it has one."""
        return self.attributes.get("subject")

    def text(self) -> str:
        """The data as text. Rejects the event where it is not UTF-8."""
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            raise Reject(f"the data is not UTF-8: {error}") from None

    @overload
    def json(self) -> Any: ...
    @overload
    def json(self, of: "builtins.type[T]") -> T: ...
    def json(self, of: Any = None) -> Any:
        """The data as JSON: as a type, where one is given. Rejects the event where it is not JSON, or does not fit.

        The type is a dataclass, a `TypedDict`, a type of `typing` (`list[int]`), or a model of pydantic. Types are held
        strictly: `"1"`, `1.0` and `True` are no `int`. Names that the type does not have are passed over. A
        `ValueError` in `__post_init__` rejects as well.
        """
        try:
            value = _json.parse(self.text())
        except _json.NotJsonError as error:
            raise Reject(f"the data is not JSON: {error}") from None
        if of is None:
            return value
        try:
            return _json.read(of, value)
        except _json.Misfit as error:
            raise Reject(f"the data is not what this plugin reads: {error}") from None
