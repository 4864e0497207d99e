"""Randomness that follows from the event.

`os.urandom`, `secrets` and `uuid.uuid4` ask the bus each time. `random` is seeded once in the life of an instance, and
`uuid` keeps what it made last, so that what they give would depend on the events before.
"""

import os
import sys
from typing import Any


def reseed() -> None:
    """Begins anew what keeps something from event to event. Modules that nothing has imported are left alone."""
    if (random := sys.modules.get("random")) is not None:
        random.seed(int.from_bytes(os.urandom(16), "little"))
    if (uuid := sys.modules.get("uuid")) is not None:
        _forget(uuid)


def _forget(uuid: Any) -> None:
    uuid._node = None
    for name in ("_last_timestamp", "_last_timestamp_v6", "_last_timestamp_v7"):
        setattr(uuid, name, None)
    uuid._last_counter_v7 = 0
