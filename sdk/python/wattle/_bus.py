"""What the bus provides, in the form that the rest of the library uses: the one place that imports the bindings.

They are there only in a component. Unit tests and the build run in the Python of the machine, with `_stand_in` instead.
"""

from collections.abc import Iterable
from typing import Protocol


class Refusal(Exception):
    """The bus refuses an operation on the state, in these words."""


class Bucket(Protocol):
    """Keys and values, as the bus has them. Every operation may raise `Refusal`."""

    def get(self, key: str) -> bytes | None: ...
    def set(self, key: str, value: bytes) -> None: ...
    def delete(self, key: str) -> None: ...
    def exists(self, key: str) -> bool: ...
    def increment(self, key: str, by: int) -> int: ...
    def list_keys(self, cursor: str | None) -> tuple[list[str], str | None]: ...


class Bus(Protocol):
    """What a plugin may ask about the call that it is in."""

    def current(self, index: int) -> None: ...
    def attributes(self) -> str: ...
    def ports(self) -> Iterable[str]: ...
    def log(self, level: str, context: str, message: str) -> None: ...
    def setting(self, name: str) -> str | None: ...
    def open(self, bucket: str) -> Bucket: ...


bus: Bus
try:
    from ._component import bus

    IS_COMPONENT = True
except ImportError:
    from ._stand_in import bus

    IS_COMPONENT = False
