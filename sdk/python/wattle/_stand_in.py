"""The bus as unit tests and the build have it. The refusals of the state have the words of the bus."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from . import _bus

_BUCKET_BYTES_MAX = 64
_KEY_BYTES_MAX = 1024
_VALUE_BYTES_MAX = 1 << 20
_PAGE_KEYS = 1000

#: Values by bucket and key. They are never changed in place.
State = Mapping[str, Mapping[str, bytes]]


@dataclass
class LogLine:
    """A log line of the plugin."""

    level: str
    context: str
    message: str


@dataclass
class Scene:
    """What a test has set up, and what the plugin did."""

    #: The attributes of each event, as the contract has them.
    attributes: list[str]
    config: Mapping[str, str]
    ports: list[str]
    state: State
    logs: list[LogLine] = field(default_factory=list)
    #: The event that has begun, and the state before it.
    index: int | None = None
    savepoint: State = field(default_factory=dict)


_scene: Scene | None = None


@contextmanager
def within(scene: Scene) -> Iterator[None]:
    """Runs a plugin in this scene."""
    global _scene
    before, _scene = _scene, scene
    try:
        yield
    finally:
        _scene = before


def _here(what: str) -> Scene:
    if _scene is None:
        raise RuntimeError(f"there is no {what} at the top level of a module: it runs when the plugin is built")
    return _scene


def _event(what: str) -> tuple[Scene, int]:
    scene = _here(what)
    if scene.index is None:
        raise RuntimeError(f"there is no {what} before an event has begun")
    return scene, scene.index


def _check_key(key: str) -> None:
    size = len(key.encode())
    if size == 0:
        raise _bus.Refusal(f"the key is empty; keys have 1 to {_KEY_BYTES_MAX} bytes")
    if size > _KEY_BYTES_MAX:
        raise _bus.Refusal(f"the key has {size} bytes, and at most {_KEY_BYTES_MAX} are allowed")


class _Bucket:
    def __init__(self, name: str) -> None:
        size = len(name.encode())
        if size > _BUCKET_BYTES_MAX:
            raise _bus.Refusal(f"the bucket's name has {size} bytes, and at most {_BUCKET_BYTES_MAX} are allowed")
        self._name = name or "default"

    def _values(self) -> dict[str, bytes]:
        scene, _ = _event("state")
        return dict(scene.state.get(self._name, {}))

    def _replace(self, values: dict[str, bytes]) -> None:
        scene, _ = _event("state")
        scene.state = {**scene.state, self._name: values}

    def get(self, key: str) -> bytes | None:
        _check_key(key)
        return self._values().get(key)

    def set(self, key: str, value: bytes) -> None:
        _check_key(key)
        if len(value) > _VALUE_BYTES_MAX:
            raise _bus.Refusal(f"the value has {len(value)} bytes, and at most {_VALUE_BYTES_MAX} are allowed")
        self._replace({**self._values(), key: bytes(value)})

    def delete(self, key: str) -> None:
        _check_key(key)
        values = self._values()
        values.pop(key, None)
        self._replace(values)

    def exists(self, key: str) -> bool:
        _check_key(key)
        return key in self._values()

    def increment(self, key: str, by: int) -> int:
        text = (self.get(key) or b"0").decode(errors="replace")
        if not re.fullmatch(r"[+-]?[0-9]+", text):
            raise _bus.Refusal("the value under this key is not a number in decimal digits")
        total = int(text) + by
        if not -(2**63) <= total < 2**63:
            raise _bus.Refusal(f"{text} and {by} are more than 64 bits hold")
        self.set(key, str(total).encode())
        return total

    def list_keys(self, cursor: str | None) -> tuple[list[str], str | None]:
        keys = sorted(self._values(), key=str.encode)
        after = [key for key in keys if cursor is None or key.encode() > cursor.encode()]
        page = after[:_PAGE_KEYS]
        return page, page[-1] if len(after) > len(page) else None


class _Bus:
    open = _Bucket

    def current(self, index: int) -> None:
        scene = _here("event")
        scene.index, scene.savepoint = index, scene.state

    def attributes(self) -> str:
        scene, index = _event("event")
        return scene.attributes[index]

    def ports(self) -> list[str]:
        return list(_here("port").ports)

    def log(self, level: str, context: str, message: str) -> None:
        _here("log").logs.append(LogLine(level, context, message))

    def setting(self, name: str) -> str | None:
        return _here("configuration").config.get(name)


bus = _Bus()
