"""The conformance probe in Python: sdk/probe/README.md says what each verb does."""

import logging
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import wattle
from wattle import Event, Output, Range, Reject, Retry, StateError, state

log = logging.getLogger(__name__)

#: Makes an output of a value.
Sender = Callable[[Any], Output]
Int64 = Annotated[int, Range(-(2**63), 2**63 - 1)]
Unsigned64 = Annotated[int, Range(0, 2**64 - 1)]


@dataclass
class Settings:
    """What the probe shows of its configuration."""

    word: Annotated[str, "A text."] = "hello"
    times: Annotated[int, "A whole number.", Range(0, 2**32 - 1)] = 3
    ratio: Annotated[float, "A number."] = 0.5
    loud: Annotated[bool, "A switch."] = False
    end: Annotated[str | None, "A text that may be missing."] = None


@dataclass
class Nested:
    name: str


@dataclass
class Shape:
    text: str
    integer: Int64
    unsigned: Unsigned64
    real: float
    flag: bool
    list: list[Int64]
    nested: Nested
    maybe: str | None = None


@dataclass
class Message:
    port: str
    data: str
    key: str | None = None
    type: str = ""
    content_type: str = ""
    subject: str | None = None


@dataclass
class Attribute:
    name: str
    value: str


@dataclass
class Count:
    count: int


@dataclass
class Entry:
    key: str
    value: str


@dataclass
class Large:
    key: str
    size: int


@dataclass
class Increment:
    key: str
    by: Int64


@dataclass
class BucketEntry:
    bucket: str
    key: str
    value: str


@dataclass
class Visits:
    count: int = 0
    last: str = ""


@dataclass
class Attempts:
    attempts: int
    after_ms: int | None = None


@wattle.plugin(ports=["out", "other"], config=Settings, state_version=3)
def handle(event: Event, settings: Settings) -> wattle.Answer:
    def say(value: Any) -> Output:
        return Output.text("out", str(value), type=event.type)

    def send(value: Any) -> Output:
        return Output.json("out", value, type=event.type)

    match verb := event.type.removeprefix("probe."):
        case "echo":
            return Output("out", event.data, type=event.type)
        case "length":
            return say(len(event.text()))
        case "json":
            return send(event.json(Shape))
        case "send":
            message = event.json(Message)
            attributes = {} if message.subject is None else {"subject": message.subject}
            return Output.text(
                message.port,
                message.data,
                type=message.type,
                key=message.key,
                content_type=message.content_type,
                attributes=attributes,
            )
        case "attribute":
            attribute = event.json(Attribute)
            return Output("out", b"", type=event.type, attributes={attribute.name: attribute.value})
        case "many":
            numbers = range(event.json(Count).count)
            return [Output.text(["out", "other"][number % 2], str(number), type=event.type) for number in numbers]
        case "nothing":
            return None
        case "event":
            return send(
                {
                    "topic": event.topic,
                    "partition": event.partition,
                    "key": event.key,
                    "type": event.type,
                    "content_type": event.content_type,
                    "time_ns": str(event.time_ns),
                    "attempt": event.attempt,
                }
            )
        case "attributes":
            return say("\n".join(f"{name}={value}" for name, value in sorted(event.attributes.items())))
        case "config":
            return send(settings)
        case "setting":
            return say(wattle.config(event.text()) or "none")
        case "reject":
            raise Reject(event.text())
        case "retry":
            attempts = event.json(Attempts)
            if event.attempt < attempts.attempts:
                raise Retry("not yet", after_ms=attempts.after_ms)
            return say(event.attempt)
        case "panic":
            outer(event.text())
        case "exit":
            sys.exit(3)
        case "loop":
            while True:
                pass
        case "grow":
            kept = []
            while True:
                kept.append(bytearray(1 << 20))
        case "recurse":
            return say(recurse(1))
        case "log":
            words = event.text()
            for level in (1, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
                log.log(level, "%s", words)
            print(words)
            print(words, file=sys.stderr)
            return say("ok")
        case "clock":
            wall, appended = time.time_ns() // 1_000_000, event.time_ns // 1_000_000
            return say("same" if wall == appended else f"{wall} {appended}")
        case "sleep":
            ms = int(event.text())
            begin, begin_of_wall = time.monotonic_ns(), time.time_ns()
            time.sleep(ms / 1000)
            moved_ms = min(time.monotonic_ns() - begin, time.time_ns() - begin_of_wall) // 1_000_000
            return say("moved" if moved_ms >= ms else moved_ms)
        case "files":
            try:
                with open(event.text(), "rb") as file:
                    return say(f"{len(file.read())} bytes")
            except OSError:
                return say("refused")
        case "random":
            return say(f"{random.random()} {random.random()} {os.urandom(8).hex()}")
        case "hash":
            return say(" ".join(dict.fromkeys(["z", "b", "1", "a", "0"])))
    return keep(verb, event, say, send)


def keep(verb: str, event: Event, say: Sender, send: Sender) -> Output:
    """The verbs of the state."""
    match verb:
        case "get":
            value = state.get(event.text())
            return Output("out", b"none" if value is None else value, type=event.type, content_type="text/plain")
        case "set":
            entry = event.json(Entry)
            state.set(entry.key, entry.value)
        case "set-large":
            large = event.json(Large)
            state.set(large.key, b"x" * large.size)
        case "delete":
            state.delete(event.text())
        case "exists":
            return say(str(state.exists(event.text())).lower())
        case "increment":
            increment = event.json(Increment)
            return say(state.increment(increment.key, increment.by))
        case "fill":
            for number in range(event.json(Count).count):
                state.set(f"fill/{number:05}", "1")
        case "keys":
            return say("\n".join(state.keys()))
        case "bucket":
            entry_of = event.json(BucketEntry)
            bucket = state.bucket(entry_of.bucket)
            bucket.set(entry_of.key, entry_of.value)
            return send({"there": bucket.get_text(entry_of.key), "default": state.get_text(entry_of.key)})
        case "visit":
            visits = state.get_json("visit", Visits) or Visits()
            visits = Visits(visits.count + 1, event.text())
            state.set_json("visit", visits)
            return send(visits)
        case "bad-key-caught":
            try:
                state.set("", "x")
            except StateError:
                return say("refused")
            return say("taken")
        case "bad-key":
            state.set("", "x")
        case "set-then-reject":
            state.set(event.text(), "undone")
            raise Reject("on purpose")
        case "set-then-retry":
            state.set(event.text(), "undone")
            raise Retry("on purpose")
        case "set-then-panic":
            state.set(event.text(), "undone")
            raise RuntimeError("on purpose")
        case _:
            raise Reject(f"no verb {verb}")
    return say("ok")


def outer(words: str) -> NoReturn:
    inner(words)


def inner(words: str) -> NoReturn:
    raise ValueError(words)


def recurse(depth: int) -> int:
    return recurse(depth + 1) + depth
