"""What comes in and what goes out."""

import enum
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pydantic
import pytest
import wattle
from wattle import Event, Output, Range, Reject, Retry
from wattle.testing import TestEvent, TestSubscriber


@dataclass
class Line:
    sku: str
    qty: Annotated[int, Range(1)]


@dataclass
class Order:
    id: str
    lines: list[Line]
    note: str | None = None
    tags: dict[str, float] = field(default_factory=dict)


def misfit(of: Any, data: Any) -> str | None:
    """The reason for which data are rejected; None where they are not."""

    @wattle.plugin()
    def handle(event: Event) -> None:
        event.json(of)

    failed = TestSubscriber(handle).handle(data).failed
    assert failed is None or failed.action == "reject"
    return failed.reason if failed else None


THE_DATA = "the data is not what this plugin reads: "


def test_data_of_the_wrong_shape_are_rejected_with_the_path_of_each_field() -> None:
    assert misfit(Order, {"id": "a", "lines": [{"sku": "b", "qty": 1, "more": 1}], "tags": {"a": 1}}) is None
    assert misfit(Order, {"id": 1, "lines": [{"sku": "b", "qty": 1}, {"sku": None, "qty": 0}]}) == (
        f"{THE_DATA}id: expected a text, found an integer; lines[1].sku: expected a text, found null; "
        "lines[1].qty: expected a number from 1, found another"
    )
    assert misfit(Order, {"id": "a"}) == f"{THE_DATA}lines: is missing"
    assert (
        misfit(Order, {"id": "a", "lines": [], "tags": {"b": "c"}})
        == f"{THE_DATA}tags.b: expected a number, found a text"
    )
    assert misfit(Order, []) == f"{THE_DATA}expected an object, found a list"
    assert re.search(r"\[7\]: [^;]*; and 12 more$", misfit(list[str], [1] * 20) or "")


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [1]])
def test_types_are_held_strictly(value: Any) -> None:
    assert "expected an integer" in (misfit(list[int], [value]) or "")


class Kind(enum.Enum):
    A = "a"
    B = "b"


class Visit(TypedDict):
    name: str
    kind: NotRequired[Kind]


@dataclass
class Node:
    value: Literal["x", 1] | None
    children: "list[Node]" = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.value is None and self.children:
            raise ValueError("a node without a value has no children")


def test_enums_literals_typed_dicts_and_types_within_themselves_are_types_too() -> None:
    assert misfit(Visit, {"name": "a", "kind": "b"}) is None
    assert misfit(Visit, {"name": "a", "kind": "c"}) == f'{THE_DATA}kind: expected "a" or "b", found a text'
    assert misfit(Node, {"value": "x", "children": [{"value": 1}]}) is None
    assert misfit(Node, {"value": 1, "children": [{"value": True}]}) == (
        f'{THE_DATA}children[0].value: expected "x" or 1, found a boolean'
    )
    what = {"value": 1, "children": [{"value": None, "children": [{"value": 1}]}]}
    assert misfit(Node, what) == f"{THE_DATA}children[0]: a node without a value has no children"
    assert misfit(int | str, 1.5) == f"{THE_DATA}fits none of 2 kinds, found a number"


class Model(pydantic.BaseModel):
    lines: list[Line]


def test_models_of_pydantic_are_types_too() -> None:
    assert misfit(Model, {"lines": [{"sku": "a", "qty": 1}]}) is None
    assert (misfit(Model, {"lines": [{"sku": "a", "qty": "b"}]}) or "").startswith(f"{THE_DATA}lines[0].qty: ")

    @wattle.plugin(ports=["out"])
    def echo(event: Event) -> Output:
        return Output.json("out", {"model": event.json(Model)})

    data = {"model": {"lines": [{"sku": "ü", "qty": 1}]}}
    assert TestSubscriber(echo).handle(data["model"]).outputs[0].json() == data


@pytest.mark.parametrize("text", ['{"a":', "[NaN]", "[Infinity]", "", "[" * 200_000])
def test_what_is_no_json_is_rejected_in_words(text: str) -> None:
    assert (misfit(Any, text) or "").startswith("the data is not JSON: ")


def test_what_is_no_utf_8_is_rejected_in_words() -> None:
    assert (misfit(Any, b'"\xff"') or "").startswith("the data is not UTF-8")


@wattle.plugin(ports=["out"])
def echo(event: Event) -> Output:
    return Output.json("out", event.json())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('{"n":18446744073709551616,"m":-9223372036854775808}', '{"n":18446744073709551616,"m":-9223372036854775808}'),
        ('{"a":1,"a":2}', '{"a":2}'),
        ('["\\u0000","grüße","\\ud83e\\udd80"]', '["\\u0000","grüße","🦀"]'),
        ('["\\ud800"]', '["\ufffd"]'),
    ],
)
def test_json_comes_in_and_goes_out_exactly(data: str, expected: str) -> None:
    assert TestSubscriber(echo).handle(data).outputs[0].text() == expected


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"a", object()])
def test_what_cannot_be_json_is_rejected(value: Any) -> None:
    @wattle.plugin(ports=["out"])
    def handle(event: Event) -> Output:
        return Output.json("out", value)

    failed = TestSubscriber(handle).handle().failed
    assert failed and failed.reason.startswith("the output cannot be written as JSON: ")


def test_an_event_has_its_attributes_and_its_exact_time() -> None:
    seen: list[Any] = []

    @wattle.plugin()
    def handle(event: Event) -> None:
        seen.extend([event.id, event.source, event.subject, event.time_ns, event.time.isoformat(), event.key])
        seen.extend([event.attempt, event.attributes["traceparent"]])

    time_ns = 1_700_000_000_123_456_789
    about = TestEvent(
        id="e", source="/s", subject="ü", time_ns=time_ns, key="k", attempt=2, attributes={"traceparent": "00-a=b"}
    )
    TestSubscriber(handle).handle(about)
    time = "2023-11-14T22:13:20.123456+00:00"
    assert seen == ["e", "/s", "ü", time_ns, time, "k", 2, "00-a=b"]


def test_outputs_have_a_port_a_type_a_key_and_attributes_of_which_each_is_one_line() -> None:
    @wattle.plugin(ports=["a", "b"])
    def handle(event: Event) -> list[Output]:
        attributes = {"subject": "x\ndelay=30d"}
        return [Output.text("b", "grüße", type="t", key="k", attributes=attributes), Output("a", b"\x00\xff")]

    first, second = TestSubscriber(handle).handle({}).outputs
    assert (first.port, first.type, first.key, first.content_type, first.text()) == (
        "b",
        "t",
        "k",
        "text/plain",
        "grüße",
    )
    assert first.attributes == {"subject": "x\0delay=30d"}
    assert (second.port, second.type, second.key, second.content_type) == ("a", "a", None, "application/json")


def test_an_output_for_a_port_that_is_not_there_is_an_error_that_names_those_that_are() -> None:
    @wattle.plugin(ports=["a", "b"])
    def handle(event: Event) -> Output:
        return Output("c", b"")

    with pytest.raises(LookupError, match="there is no port 'c'; the ports are: a, b"):
        TestSubscriber(handle).handle()


def test_a_handler_that_is_asynchronous_is_an_error_that_says_so() -> None:
    @wattle.plugin()  # type: ignore[arg-type]
    async def handle(event: Event) -> None:
        pass

    with pytest.raises(TypeError, match="instead of `async def`"):
        TestSubscriber(handle).handle()


@pytest.mark.parametrize(
    ("after_ms", "expected"), [(None, None), (12.4, 12), (-1, 0), (float("nan"), None), (float("inf"), 2**64 - 1)]
)
def test_reject_and_retry_are_failures_with_their_reason(after_ms: float | None, expected: int | None) -> None:
    @wattle.plugin()
    def handle(event: Event) -> None:
        if event.type == "reject":
            raise Reject("never")
        raise Retry("later", after_ms=after_ms)

    subscriber = TestSubscriber(handle)
    failed = subscriber.handle(type="reject").failed
    assert failed and (failed.action, failed.reason, failed.after_ms) == ("reject", "never", None)
    failed = subscriber.handle().failed
    assert failed and (failed.action, failed.reason, failed.after_ms) == ("retry", "later", expected)
