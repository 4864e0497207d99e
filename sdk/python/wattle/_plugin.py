"""From a function to a plugin: the calls of the bus."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, Union, overload

from . import _config, _seeds, _trace
from ._bus import IS_COMPONENT, bus
from ._event import Event
from ._failure import Reject, Retry
from ._output import Output, attribute_lines

C = TypeVar("C")

#: What a handler answers an event with: nothing, an output, or several, which are stored in this order.
Answer = Union[None, Output, Iterable[Output]]

_U32_MAX = 2**32 - 1
_U64_MAX = 2**64 - 1


class Origin(Protocol):
    """What all events of one call have in common."""

    topic: str
    partition: int
    content_type: str


@dataclass
class Handled:
    """What became of a call: outputs, each with its event and the number of its port, and the event that failed."""

    outputs: list[tuple[int, int, Output, str]]
    failed: tuple[int, Reject | Retry] | None = None


class Batch:
    """The events of one call. `events` are all of them, to look ahead; iterating over the batch begins each event.

    State, log lines and outputs belong to the event that has begun, and so does an exception.

        @wattle.batch_plugin(ports=["priced"])
        def handle(batch: Batch) -> None:
            prices = look({event.key for event in batch.events})
            for event in batch:
                batch.send(Output.json("priced", {"price": prices[event.key]}))
    """

    def __init__(self, origin: Origin, events: Sequence[Any], numbers: dict[str, int]) -> None:
        #: All events of the call, in order. Their attributes can be read once they have begun.
        self.events = [Event(origin, event) for event in events]
        self._numbers = numbers
        self._current = -1
        self._outputs: list[tuple[int, int, Output, str]] = []

    def __iter__(self) -> Iterator[Event]:
        if self._current >= 0:
            raise RuntimeError("a batch can be iterated over once")
        for index in range(len(self.events)):
            yield self._begin(index)

    def send(self, output: Output) -> None:
        """Sends an output for the event that has begun."""
        if self._current < 0:
            raise RuntimeError("no event has begun: send from within the iteration over the batch")
        if not isinstance(output, Output):
            raise TypeError(f"a handler gives outputs, and no {type(output).__name__}")
        number = self._numbers.get(output.port)
        if number is None:
            known = ", ".join(self._numbers) or "none"
            raise LookupError(f"there is no port {output.port!r}; the ports are: {known}")
        if not isinstance(output.data, (bytes, bytearray, memoryview)):
            raise TypeError("the data of an output are bytes: use Output.json or Output.text")
        self._outputs.append((self._current, number, output, attribute_lines(output.attributes)))

    def _begin(self, index: int) -> Event:
        if self._current >= 0:
            self.events[self._current]._is_current = False
            _flush()
        bus.current(index)
        self._current = index
        event = self.events[index]
        event._is_current = True
        if IS_COMPONENT:
            _seeds.reseed()
        return event

    def _end(self) -> None:
        if self._current >= 0:
            self.events[self._current]._is_current = False
            _flush()


def _flush() -> None:
    """What was printed belongs to its event."""
    sys.stdout.flush()
    sys.stderr.flush()


class Plugin(Generic[C]):
    """A plugin, as the bus calls it. `wattle.plugin` makes one of a function, and calling it calls the function."""

    def __init__(
        self,
        function: Callable[..., Any],
        ports: Sequence[str],
        config: type[C] | None,
        state_version: int,
        is_batch: bool,
    ) -> None:
        if not 0 <= state_version <= _U32_MAX:
            raise ValueError(f"the version of the state is a number from 0 to {_U32_MAX}, and not {state_version}")
        self.ports = list(ports)
        self.config = config
        self.state_version = state_version
        self._function = function
        self._is_batch = is_batch
        self._numbers: dict[str, int] | None = None
        self._settings: tuple[C, ...] | None = None
        # What cannot be settings is an error of the build, and not of the first event.
        self.config_schema = None if config is None else _config.schema(config)
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def handle(self, origin: Origin, events: Sequence[Any]) -> Handled:
        """Handles the events of a call. Raises what the function raises besides `Reject` and `Retry`."""
        if self._numbers is None:
            self._numbers = self._port_numbers()
        batch = Batch(origin, events, self._numbers)
        try:
            if self._settings is None:
                self._settings = () if self.config is None else (_config.read(self.config),)
            self._run(batch, self._settings)
            batch._end()
            return Handled(batch._outputs)
        except (Reject, Retry) as failure:
            # Where not even the settings could be read, it is the first event that fails.
            if batch._current < 0:
                batch._begin(0)
            batch._end()
            current = batch._current
            return Handled([output for output in batch._outputs if output[0] < current], (current, failure))
        except BaseException as error:
            # As a panic is, with its place. It ends the instance, since what it has in memory may be half changed.
            _flush()
            bus.log("critical", "panic", f"raised {_trace.describe(error)}")
            raise

    def _run(self, batch: Batch, settings: tuple[C, ...]) -> None:
        if self._is_batch:
            self._function(batch, *settings)
            left = len(batch.events) - 1 - batch._current
            if left > 0:
                raise RuntimeError(f"the handler returned before it began the last {left} events of its batch")
            return
        for event in batch:
            answer = self._function(event, *settings)
            if answer is None:
                continue
            if isinstance(answer, Output):
                batch.send(answer)
                continue
            if hasattr(answer, "__await__"):
                answer.close()
                raise TypeError(
                    "the handler is asynchronous, and nothing waits for it: use `def` instead of `async def`"
                )
            for output in answer:
                batch.send(output)

    def _port_numbers(self) -> dict[str, int]:
        numbers = {name: number for number, name in enumerate(bus.ports())}
        if missing := [name for name in self.ports if name not in numbers]:
            raise LookupError(f"the topology does not connect {', '.join(missing)}")
        return numbers


def milliseconds(retry: Retry) -> int | None:
    """A delay as the contract has it; the bus holds it within its bounds."""
    if retry.after_ms is None or retry.after_ms != retry.after_ms:
        return None
    return int(min(max(round(retry.after_ms) if retry.after_ms < _U64_MAX else _U64_MAX, 0), _U64_MAX))


@overload
def plugin(
    *, ports: Sequence[str] = (), state_version: int = 0
) -> Callable[[Callable[[Event], Answer]], Plugin[None]]: ...
@overload
def plugin(
    *, ports: Sequence[str] = (), config: type[C], state_version: int = 0
) -> Callable[[Callable[[Event, C], Answer]], Plugin[C]]: ...
def plugin(*, ports: Sequence[str] = (), config: Any = None, state_version: int = 0) -> Any:
    """Makes a plugin of a function that handles one event: `handler.py` has one.

    - `ports`: the ports that it sends to. The bus refuses a topology that does not connect exactly these. Without
      them it sends to whatever the topology connects.
    - `config`: a dataclass with the settings of its `config:`, which the function gets as its second argument. The bus
      refuses a topology with others. `Annotated[int, "What it is about.", Range(1, 9)]` describes and bounds one.
    - `state_version`: the version of the state that it keeps. Raise it when a handler of the version before could not
      read what this one writes: then the bus does not go back by itself when this one fails.

    The function raises `Reject` or `Retry` where it cannot handle an event; any other exception is a bug of it.
    """
    return lambda function: Plugin(function, ports, config, state_version, is_batch=False)


@overload
def batch_plugin(
    *, ports: Sequence[str] = (), state_version: int = 0
) -> Callable[[Callable[[Batch], None]], Plugin[None]]: ...
@overload
def batch_plugin(
    *, ports: Sequence[str] = (), config: type[C], state_version: int = 0
) -> Callable[[Callable[[Batch, C], None]], Plugin[C]]: ...
def batch_plugin(*, ports: Sequence[str] = (), config: Any = None, state_version: int = 0) -> Any:
    """As `plugin`, of a function that handles all events of one call: see `Batch`."""
    return lambda function: Plugin(function, ports, config, state_version, is_batch=True)
