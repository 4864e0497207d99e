"""The subscriber's `config:` in the topology. It is fixed for as long as an instance lives."""

import dataclasses
import types
import typing
from typing import Any, TypeVar

from . import _json
from ._bus import bus
from ._failure import Retry

C = TypeVar("C")


def config(name: str) -> str | None:
    """The text of a setting, for plugins that declare none."""
    return bus.setting(name)


def read(of: type[C]) -> C:
    """The declared settings. Retries where they do not fit, because a corrected topology makes it work."""
    values: dict[str, Any] = {}
    hints = typing.get_type_hints(of, include_extras=True)
    for field in _fields(of):
        text = config(field.name)
        if text is None:
            if not _has_default(field) and not _is_optional(hints[field.name]):
                raise Retry(f"the setting `{field.name}` is missing: add it to this subscriber's `config:`")
            if not _has_default(field):
                values[field.name] = None
            continue
        try:
            values[field.name] = _json.read(hints[field.name], _value(text, hints[field.name]))
        except _json.Misfit as error:
            # Without the value, which may be a secret: failures are kept.
            raise Retry(f"the setting `{field.name}` does not fit: {error}") from None
    try:
        return of(**values)
    except ValueError as error:
        raise Retry(f"the settings do not fit: {error}") from None


def _value(text: str, of: Any) -> Any:
    """A topology writes a text, a number or a boolean, and the plugin reads a text."""
    if _schema(of).get("type") == "string":
        return text
    try:
        return _json.parse(text)
    except _json.NotJsonError:
        return text


def schema(of: type) -> dict[str, Any]:
    """The settings as one JSON Schema, which the component declares. Raises TypeError for what cannot be settings."""
    hints = typing.get_type_hints(of, include_extras=True)
    properties: dict[str, Any] = {}
    required = []
    for field in _fields(of):
        hint = hints[field.name]
        properties[field.name] = _schema(hint)
        if field.default is not dataclasses.MISSING and field.default is not None:
            properties[field.name]["default"] = field.default
        elif not _has_default(field) and not _is_optional(hint):
            required.append(field.name)
    about = {"description": of.__doc__.strip()} if of.__doc__ and not of.__doc__.startswith(f"{of.__name__}(") else {}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        **about,
        "additionalProperties": False,
        "properties": properties,
        "required": required,
    }


def _fields(of: type) -> tuple[dataclasses.Field[Any], ...]:
    if not dataclasses.is_dataclass(of):
        raise TypeError(f"the settings are a dataclass, which {of.__name__} is not")
    return dataclasses.fields(of)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _is_optional(hint: Any) -> bool:
    if typing.get_origin(hint) is typing.Annotated:
        return _is_optional(typing.get_args(hint)[0])
    return typing.get_origin(hint) in (typing.Union, types.UnionType) and type(None) in typing.get_args(hint)


_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def _schema(hint: Any) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _TYPES:
        return {"type": _TYPES[hint]}
    if origin is typing.Annotated:
        found = _schema(arguments[0])
        for note in arguments[1:]:
            if isinstance(note, str):
                found["description"] = note
            elif isinstance(note, _json.Range):
                found |= {} if note.min is None else {"minimum": note.min}
                found |= {} if note.max is None else {"maximum": note.max}
        return found
    if _is_optional(hint) and len(arguments) == 2:
        return _schema(next(one for one in arguments if one is not type(None)))
    if origin is typing.Literal:
        kinds = {type(value) for value in arguments}
        return {**({"type": "string"} if kinds == {str} else {}), "enum": list(arguments)}
    raise TypeError(f"a setting is a str, int, float, bool or Literal, optional or not, and no {hint}")
