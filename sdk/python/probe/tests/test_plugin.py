"""Configuration, state, batches, logs and failures."""

import json
import logging
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated, Any, Literal

import pytest
import wattle
from wattle import Batch, Event, Output, Plugin, Range, Reject, _declared, _seeds, _trace, state
from wattle.testing import TestEvent, TestSubscriber


@dataclass
class Settings:
    """What it is told."""

    times: Annotated[int, "How often.", Range(1, 9)]
    word: str = "a"
    loud: bool | None = None
    part: float = 0.5
    mode: Literal["x", "y"] = "x"


def looking() -> tuple[Plugin[Settings], list[Settings]]:
    seen: list[Settings] = []

    @wattle.plugin(config=Settings, state_version=2)
    def handle(event: Event, settings: Settings) -> None:
        seen.append(settings)

    return handle, seen


def test_settings_are_read_as_their_types_and_have_defaults() -> None:
    plugin, seen = looking()
    assert TestSubscriber(plugin, config={"times": 3, "word": "5", "loud": True}).handle().failed is None
    assert seen == [Settings(times=3, word="5", loud=True)]


def test_a_setting_that_is_missing_or_does_not_fit_is_retried_without_its_value() -> None:
    plugin, _ = looking()
    failed = TestSubscriber(plugin).handle().failed
    assert failed and failed.action == "retry"
    assert failed.reason == "the setting `times` is missing: add it to this subscriber's `config:`"
    failed = TestSubscriber(plugin, config={"times": "secret"}).handle().failed
    assert failed and failed.reason == "the setting `times` does not fit: expected an integer, found a text"
    with pytest.raises(ValueError, match="no setting tims"):
        TestSubscriber(plugin, config={"tims": 1})


def test_what_a_plugin_declares_is_in_sections_of_its_component() -> None:
    plugin, _ = looking()
    version, (name, schema) = _declared.sections(plugin)
    assert version == ("wattle:state-version", "2")
    assert name == "wattle:config-schema"
    assert json.loads(schema) == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "description": "What it is told.",
        "additionalProperties": False,
        "properties": {
            "times": {"type": "integer", "description": "How often.", "minimum": 1, "maximum": 9},
            "word": {"type": "string", "default": "a"},
            "loud": {"type": "boolean"},
            "part": {"type": "number", "default": 0.5},
            "mode": {"type": "string", "enum": ["x", "y"], "default": "x"},
        },
        "required": ["times"],
    }


def test_what_cannot_be_settings_is_an_error_before_any_event() -> None:
    @dataclass
    class Odd:
        parts: dict[str, int]

    with pytest.raises(TypeError, match="a setting is a str, int, float, bool or Literal"):
        wattle.plugin(config=Odd)(lambda event, settings: None)
    with pytest.raises(TypeError, match="the settings are a dataclass"):
        wattle.plugin(config=int)(lambda event, settings: None)


def test_a_module_has_one_plugin() -> None:
    plugin, _ = looking()
    module = ModuleType("handler")
    with pytest.raises(SystemExit, match=r"handler\.py has no plugins"):
        _declared.plugin_of(module)
    module.__dict__.update(a=plugin, b=plugin)
    assert _declared.plugin_of(module) is plugin
    module.__dict__.update(c=looking()[0])
    with pytest.raises(SystemExit, match=r"handler\.py has 2 plugins"):
        _declared.plugin_of(module)


def test_state_goes_on_from_event_to_event_and_a_failed_event_leaves_nothing_behind() -> None:
    @wattle.plugin(ports=["out"])
    def handle(event: Event) -> Output:
        total = state.increment("n", 5)
        state.set("text", "grüße")
        state.bucket("other").set_json("visit", {"last": event.id})
        if event.type == "bad":
            raise Reject("no")
        if event.type == "bug":
            raise KeyError("no")
        return Output.json("out", [total, state.get_text("text"), state.bucket("other").get_json("visit")])

    subscriber = TestSubscriber(handle, state={"n": "37"})
    assert subscriber.handle(id="a").outputs[0].json() == [42, "grüße", {"last": "a"}]
    assert subscriber.handle(id="b", type="bad").failed
    with pytest.raises(KeyError):
        subscriber.handle(id="c", type="bug")
    assert subscriber.state("n") == "42"
    assert subscriber.state("visit", "other") == '{"last":"a"}'


def test_a_refusal_of_the_state_is_retried_with_the_words_of_the_bus() -> None:
    @wattle.plugin()
    def handle(event: Event) -> None:
        state.set(event.text(), "x")

    failed = TestSubscriber(handle).handle("").failed
    assert failed and failed.action == "retry"
    assert failed.reason == 'state: writing "": the key is empty; keys have 1 to 1024 bytes'
    failed = TestSubscriber(handle).handle("k" * 1025).failed
    expected = f'state: writing "{"k" * 64}": the key has 1025 bytes, and at most 1024 are allowed'
    assert failed and failed.reason == expected


def test_a_counter_has_64_bits() -> None:
    @wattle.plugin()
    def handle(event: Event) -> None:
        state.increment("n", int(event.text()))

    subscriber = TestSubscriber(handle, state={"n": str(2**63 - 2)})
    assert subscriber.handle("1").failed is None
    failed = subscriber.handle("1").failed
    assert failed and "9223372036854775807 and 1 are more than 64 bits hold" in failed.reason
    failed = subscriber.handle(str(2**64)).failed
    assert failed and "18446744073709551616 is more than 64 bits hold" in failed.reason


def test_keys_come_in_the_order_of_their_bytes_over_all_pages() -> None:
    keys: list[str] = []

    @wattle.plugin()
    def handle(event: Event) -> None:
        for number in range(2_500):
            state.set(f"k{number:04}", b"")
        for key in ("\U0001f980", "\uffee", "a"):
            state.set(key, b"")
        keys.extend(state.keys())

    TestSubscriber(handle).handle()
    assert len(keys) == 2_503
    assert keys[:2] + keys[-2:] == ["a", "k0000", "\uffee", "\U0001f980"]


def test_a_value_that_another_version_wrote_is_retried() -> None:
    @wattle.plugin()
    def handle(event: Event) -> None:
        state.get_json("v", Settings)

    failed = TestSubscriber(handle, state={"v": {"times": "often"}}).handle().failed
    assert failed and failed.action == "retry"
    assert (
        failed.reason
        == 'state: what is under "v" is not what this plugin reads: times: expected an integer, found a text'
    )


def test_a_batch_begins_its_events_one_after_the_other_and_ends_at_the_first_that_fails() -> None:
    @wattle.batch_plugin(ports=["out"])
    def handle(batch: Batch) -> None:
        for event in batch:
            state.increment("n")
            batch.send(Output.text("out", f"{event.id} of {len(batch.events)}"))
            if event.type == "bad":
                raise Reject("no")

    subscriber = TestSubscriber(handle)
    events = [TestEvent(id="a"), TestEvent(id="b"), TestEvent(id="c", type="bad"), TestEvent(id="d")]
    result = subscriber.handle_all(events)
    assert [output.text() for output in result.outputs] == ["a of 4", "b of 4"]
    assert result.failed and result.failed.reason == "no"
    assert subscriber.state("n") == "2"

    @wattle.batch_plugin()
    def lazy(batch: Batch) -> None:
        pass

    with pytest.raises(RuntimeError, match="before it began the last 2 events"):
        TestSubscriber(lazy).handle_all([TestEvent(), TestEvent()])


def test_attributes_of_an_event_that_has_not_begun_or_is_over_are_an_error() -> None:
    @wattle.batch_plugin()
    def handle(batch: Batch) -> None:
        first, second = batch.events
        for event in batch:
            other = second if event is first else first
            with pytest.raises(RuntimeError, match="attributes can be read while their event is handled"):
                other.attributes
            if event is second:
                event.attributes

    TestSubscriber(handle).handle_all([TestEvent(), TestEvent()])


def test_records_of_logging_are_log_lines() -> None:
    @wattle.plugin()
    def handle(event: Event) -> None:
        logging.getLogger("shop").debug("%s of %d", "grüße", 2)
        try:
            raise ValueError("inside")
        except ValueError:
            logging.exception("failed")

    logs = TestSubscriber(handle).handle().logs
    assert [(line.level, line.context) for line in logs] == [("debug", "shop"), ("error", "")]
    assert logs[0].message == "grüße of 2"
    assert logs[1].message.startswith("failed: ValueError: inside at ")


def raise_within() -> None:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError("two\n  lines") from error


def test_an_exception_is_one_line_with_its_places_innermost_first() -> None:
    with pytest.raises(ValueError) as raised:
        raise_within()
    line = _trace.describe(raised.value)
    assert "\n" not in line
    assert line.startswith("ValueError: two lines at raise_within (")
    assert "test_plugin.py:" in line and "; caused by KeyError: 'inner' at raise_within (" in line


def test_there_is_no_bus_at_the_top_level_of_a_module_and_words_say_so() -> None:
    for action in (lambda: wattle.config("word"), lambda: state.get("a")):
        with pytest.raises(RuntimeError, match="at the top level of a module"):
            action()


def test_what_keeps_something_from_event_to_event_begins_anew(monkeypatch: Any) -> None:
    import os
    import random
    import uuid

    monkeypatch.setattr(os, "urandom", lambda size: bytes(size))

    def numbers() -> tuple[float, Any]:
        _seeds.reseed()
        return random.random(), (uuid._last_timestamp, uuid._node)  # type: ignore[attr-defined]

    first = numbers()
    # As `uuid1` and `random` leave it, where the system has no functions of its own for that.
    uuid._last_timestamp, uuid._node = 1, 2  # type: ignore[attr-defined]
    random.random()
    assert numbers() == first
