"""Randomness that follows from the event.

`os.urandom`, `secrets` and `uuid.uuid4` ask the bus each time. `random` is seeded once in the life of an instance, and
`uuid` remembers its last values, so that both would depend on earlier events.
"""

import os
import sys
from typing import Any


def reseed() -> None:
    """Resets modules that remember something from event to event, where they are imported."""
    if (random := sys.modules.get("random")) is not None:
        random.seed(int.from_bytes(os.urandom(16), "little"))
    if (uuid := sys.modules.get("uuid")) is not None:
        _forget(uuid)


def _forget(uuid: Any) -> None:
    uuid._node = None
    for name in ("_last_timestamp", "_last_timestamp_v6", "_last_timestamp_v7"):
        setattr(uuid, name, None)
    uuid._last_counter_v7 = 0
