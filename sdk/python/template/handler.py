"""A Wattle plugin. `wattle dev topology.yaml` builds it, runs it, and builds it again whenever it changes."""

from dataclasses import dataclass
from typing import Annotated

import wattle
from wattle import Event, Output


@dataclass
class Settings:
    """What the topology may tell this plugin, in `config:`. A mistyped name is refused before anything runs."""

    word: Annotated[str, "What a greeting begins with."] = "Hello"


@dataclass
class Visit:
    name: str


@wattle.plugin(ports=["greeted"], config=Settings)
def handle(event: Event, settings: Settings) -> Output:
    # Data that do not fit are rejected, with the path of the field.
    visit = event.json(Visit)
    return Output.json("greeted", {"text": f"{settings.word}, {visit.name}!"})
