"""Unit tests of a plugin, without a bus: `python -m pytest` or `python -m unittest` runs them.

    from handler import handle
    from wattle.testing import TestSubscriber

    def test_a_visitor_is_greeted():
        subscriber = TestSubscriber(handle, config={"word": "Hi"})
        result = subscriber.handle({"name": "Ada"})
        assert result.outputs[0].json() == {"text": "Hi, Ada!"}

Limits, filters and retries of a topology are not in it: `wattle test` runs cases through the bus's own code.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

from . import _json, _logging, _plugin, _stand_in
from ._failure import Retry
from ._plugin import Plugin
from ._stand_in import LogLine

__all__ = ["LogLine", "TestEvent", "TestOutput", "TestResult", "TestSubscriber"]

_EVENT_TIME_NS = 1_767_225_600_000_000_000  # 2026-01-01T00:00:00Z


@dataclass
class TestEvent:
    """An event for a plugin under test."""

    __test__ = False

    #: Bytes and texts as they are, all else as JSON. Default: none.
    data: Any = b""
    id: str | None = None
    source: str = "/test"
    type: str = "test"
    key: str | None = None
    subject: str | None = None
    #: Further CloudEvents attributes.
    attributes: Mapping[str, str] = field(default_factory=dict)
    #: Default: `application/json`, of a text `text/plain`, of bytes none.
    content_type: str | None = None
    topic: str = "events"
    partition: int = 0
    attempt: int = 1
    #: When it was appended, in nanoseconds since 1970.
    time_ns: int = _EVENT_TIME_NS


@dataclass
class TestOutput:
    """An output of a plugin under test."""

    __test__ = False

    port: str
    type: str
    #: None: that of the event.
    key: str | None
    content_type: str
    attributes: dict[str, str]
    data: bytes

    def text(self) -> str:
        """Its data as text."""
        return self.data.decode()

    def json(self) -> Any:
        """Its data as JSON."""
        return _json.parse(self.text())


@dataclass
class TestFailure:
    """The plugin raised `Reject` or `Retry`."""

    __test__ = False

    action: Literal["reject", "retry"]
    reason: str
    after_ms: int | None = None


@dataclass
class TestResult:
    """What became of an event."""

    __test__ = False

    outputs: list[TestOutput]
    failed: TestFailure | None
    logs: list[LogLine]


class TestSubscriber:
    """A subscriber with a plugin, whose state goes on from event to event.

    - `config`: its settings; those that are left out have their defaults.
    - `ports`: the connected ports of a plugin that declares none.
    - `state`: its state before the first event: texts and bytes as they are, all else as JSON.
    """

    __test__ = False

    def __init__(
        self,
        plugin: Plugin[Any],
        *,
        config: Mapping[str, Any] | None = None,
        ports: list[str] | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        # As a fresh instance: one that has read settings keeps them.
        self._plugin = Plugin(plugin._function, plugin.ports, plugin.config, plugin.state_version, plugin._is_batch)
        known = None if plugin.config_schema is None else plugin.config_schema["properties"]
        if unknown := [name for name in config or {} if known is not None and name not in known]:
            raise ValueError(f"the plugin has no setting {', '.join(unknown)}")
        self._config = {name: _bytes(value).decode() for name, value in (config or {}).items() if value is not None}
        self._ports = plugin.ports or list(ports or [])
        self._state: _stand_in.State = {"default": {key: _bytes(value) for key, value in (state or {}).items()}}
        self._count = 0

    def handle(self, data: Any = b"", **about: Any) -> TestResult:
        """Handles one event, with these data and fields of `TestEvent`.

        Raises what the plugin raises besides `Reject` and `Retry`.
        """
        return self.handle_all([data if isinstance(data, TestEvent) else TestEvent(data, **about)])

    def handle_all(self, events: list[TestEvent]) -> TestResult:
        """Handles events in one call. It ends at the first that fails."""
        ids = [event.id or str(self._count + number) for number, event in enumerate(events, 1)]
        self._count += len(events)
        first = events[0]
        content_type = _content_type(first.data) if first.content_type is None else first.content_type
        origin = SimpleNamespace(topic=first.topic, partition=first.partition, content_type=content_type)
        raw = [
            SimpleNamespace(
                key=event.key or event.subject or id,
                type=event.type,
                time=event.time_ns,
                attempt=event.attempt,
                data=_bytes(event.data),
            )
            for id, event in zip(ids, events)
        ]
        attributes = [_attribute_lines(id, event) for id, event in zip(ids, events)]
        scene = _stand_in.Scene(attributes, self._config, self._ports, self._state, savepoint=self._state)
        is_handled = False
        try:
            with _stand_in.within(scene), _logged():
                handled = self._plugin.handle(origin, raw)
            is_handled = handled.failed is None
        finally:
            # An event that fails leaves nothing behind.
            self._state = scene.state if is_handled else scene.savepoint
        outputs = [
            TestOutput(
                output.port,
                output.type or output.port,
                output.key,
                output.content_type or content_type,
                dict(line.split("=", 1) for line in lines.split("\n") if line),
                bytes(output.data),
            )
            for _, _, output, lines in handled.outputs
        ]
        return TestResult(outputs, _failure(handled), scene.logs)

    def state(self, key: str, bucket: str = "default") -> str | None:
        """The value that the plugin keeps under a key, as text."""
        value = self._state.get(bucket, {}).get(key)
        return None if value is None else value.decode()


def _failure(handled: _plugin.Handled) -> TestFailure | None:
    if handled.failed is None:
        return None
    failure = handled.failed[1]
    if isinstance(failure, Retry):
        return TestFailure("retry", str(failure), _plugin.milliseconds(failure))
    return TestFailure("reject", str(failure))


def _attribute_lines(id: str, event: TestEvent) -> str:
    subject = {} if event.subject is None else {"subject": event.subject}
    attributes = {"id": id, "source": event.source, **subject, **event.attributes}
    return "".join(f"{name}={value}\n" for name, value in attributes.items())


def _content_type(data: Any) -> str:
    if isinstance(data, (bytes, bytearray)):
        return ""
    return "text/plain" if isinstance(data, str) else "application/json"


def _bytes(data: Any) -> bytes:
    if isinstance(data, (bytes, bytearray)):
        return bytes(data)
    return data.encode() if isinstance(data, str) else _json.write(data)


@contextmanager
def _logged() -> Iterator[None]:
    """Runs a plugin whose log lines are seen."""
    handler, root = _logging.LogHandler(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(1)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
