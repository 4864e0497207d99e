"""What a component declares besides its code, as custom sections."""

import json
from types import ModuleType
from typing import Any

from ._plugin import Plugin


def plugin_of(module: ModuleType) -> Plugin[Any]:
    """The one plugin of a module."""
    found = {id(value): value for value in vars(module).values() if isinstance(value, Plugin)}
    if len(found) == 1:
        return next(iter(found.values()))
    raise SystemExit(
        f"{module.__name__}.py has {len(found) or 'no'} plugins: it needs one function with `@wattle.plugin(...)`"
    )


def sections(plugin: Plugin[Any]) -> list[tuple[str, str]]:
    """The custom sections: names and contents."""
    found = []
    if plugin.state_version > 0:
        found.append(("wattle:state-version", str(plugin.state_version)))
    if plugin.config_schema is not None:
        schema = json.dumps(plugin.config_schema, ensure_ascii=False, separators=(",", ":"))
        found.append(("wattle:config-schema", schema))
    return found
