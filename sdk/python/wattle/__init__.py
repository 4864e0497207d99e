"""Write a handler for the Wattle event bus: a function from one event to the events that follow from it.

    from dataclasses import dataclass
    from typing import Annotated

    import wattle
    from wattle import Event, Output

    @dataclass
    class Settings:
        word: Annotated[str, "What a greeting begins with."] = "Hello"

    @dataclass
    class Visit:
        name: str

    @wattle.plugin(ports=["greeted"], config=Settings)
    def handle(event: Event, settings: Settings) -> Output:
        visit = event.json(Visit)  # data that do not fit are rejected
        return Output.json("greeted", {"text": f"{settings.word}, {visit.name}!"})

A handler is called for one event at a time. It should depend only on the event and on its `state`: variables are a
cache that may be gone at the next event. Time is the event's time, random numbers follow from the event, and `print`
and `logging` write log lines. An uncaught exception loses the event's outputs and nothing else; the bus continues
with the next event.
"""

from ._config import config
from ._event import Event
from ._failure import Reject, Retry, StateError
from ._json import Range
from ._output import Output
from ._plugin import Answer, Batch, Plugin, batch_plugin, plugin
from ._state import State, state

__all__ = [
    "Answer",
    "Batch",
    "Event",
    "Output",
    "Plugin",
    "Range",
    "Reject",
    "Retry",
    "State",
    "StateError",
    "batch_plugin",
    "config",
    "plugin",
    "state",
]
