"""JSON in and out, checked by types: dataclasses, `TypedDict`, the types of `typing`, and models of pydantic."""

import dataclasses
import enum
import json
import math
import types
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

_ISSUES_SHOWN = 8

#: Where a value is: names and indexes.
Path = tuple[str | int, ...]


@dataclasses.dataclass(frozen=True)
class Range:
    """Bounds of a number, both included: `Annotated[int, Range(0, 2**64 - 1)]`."""

    min: float | None = None
    max: float | None = None


class Misfit(Exception):
    """What does not fit, and where, in words: never the value, which may be a secret."""


class NotJsonError(ValueError):
    """The text is not JSON."""


def parse(text: str) -> Any:
    """The value of a text in JSON; of names that occur twice the last one counts."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise NotJsonError("it is nested too deeply") from None
    except ValueError as error:
        raise NotJsonError(str(error)) from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def write(value: Any) -> bytes:
    """A value as JSON. Raises TypeError, ValueError or RecursionError where it cannot be."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain)
    return encode(text)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if dump := getattr(value, "model_dump", None) or getattr(value, "dict", None):
        return dump()
    raise TypeError(f"{type(value).__name__} cannot be JSON")


def encode(text: str) -> bytes:
    """A text as UTF-8; a lone surrogate, which JSON can have, becomes U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def read(of: type[T], value: Any) -> T:
    """A value of JSON as a type. Raises `Misfit` where it is none."""
    if validate := getattr(of, "model_validate", None) or getattr(of, "parse_obj", None):
        return typing.cast(T, _read_model(validate, value))
    issues: list[str] = []
    result = _reader(typing.cast(Hashable, of))(value, (), issues)
    if issues:
        more = f"; and {len(issues) - _ISSUES_SHOWN} more" if len(issues) > _ISSUES_SHOWN else ""
        raise Misfit("; ".join(issues[:_ISSUES_SHOWN]) + more)
    return typing.cast(T, result)


def _read_model(validate: Callable[[Any], Any], value: Any) -> Any:
    try:
        return validate(value)
    except ValueError as error:
        errors = getattr(error, "errors", None)
        if errors is None:
            raise
        issues = [_issue(tuple(one["loc"]), one["msg"]) for one in errors()]
        more = f"; and {len(issues) - _ISSUES_SHOWN} more" if len(issues) > _ISSUES_SHOWN else ""
        raise Misfit("; ".join(issues[:_ISSUES_SHOWN]) + more) from None


Reader = Callable[[Any, Path, list[str]], Any]


def _issue(path: Sequence[str | int], message: str) -> str:
    where = ""
    for part in path:
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else part
    return f"{where}: {message}" if where else message


def kind(value: Any) -> str:
    """What a value of JSON is, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case dict():
            return "an object"
    return type(value).__name__


def _expecting(expected: str, fits: Callable[[Any], bool]) -> Reader:
    def reader(value: Any, path: Path, issues: list[str]) -> Any:
        if not fits(value):
            issues.append(_issue(path, f"expected {expected}, found {kind(value)}"))
        return value

    return reader


_is_object = _expecting("an object", lambda value: isinstance(value, dict))

_SIMPLE: dict[Any, Reader] = {
    Any: lambda value, path, issues: value,
    object: lambda value, path, issues: value,
    str: _expecting("a text", lambda value: isinstance(value, str)),
    bool: _expecting("true or false", lambda value: isinstance(value, bool)),
    int: _expecting("an integer", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    None: _expecting("null", lambda value: value is None),
    type(None): _expecting("null", lambda value: value is None),
    dict: _is_object,
    list: _expecting("a list", lambda value: isinstance(value, list)),
}


@lru_cache(maxsize=None)
def _reader(of: Any) -> Reader:
    if of in _SIMPLE:
        return _SIMPLE[of]
    if of is float:
        return _read_float
    if dataclasses.is_dataclass(of):
        return _fields_reader(lambda: _dataclass_fields(of), lambda values: typing.cast(Any, of)(**values))
    if typing.is_typeddict(of):
        return _fields_reader(lambda: _typed_dict_fields(of), lambda values: values)
    if isinstance(of, type) and issubclass(of, enum.Enum):
        return _enum_reader(of)
    # `type Name = ...`, since Python 3.12
    if hasattr(of, "__value__"):
        return _reader(of.__value__)
    origin, arguments = typing.get_origin(of), typing.get_args(of)
    if origin is typing.Annotated:
        return _annotated_reader(arguments[0], arguments[1:])
    if origin in (typing.Union, types.UnionType):
        return _union_reader(arguments)
    if origin is typing.Literal:
        words = " or ".join(json.dumps(value, ensure_ascii=False) for value in arguments)
        return _expecting(words, lambda value: any(value == one and type(value) is type(one) for one in arguments))
    if origin in (list, Sequence):
        return _list_reader(_reader(arguments[0]), list)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _list_reader(_reader(arguments[0]), tuple)
    if origin in (dict, Mapping) and arguments[0] is str:
        return _dict_reader(_reader(arguments[1]))
    raise TypeError(f"{of} is no type that JSON is read as: use dataclasses, list[...], dict[str, ...] and the like")


def _read_float(value: Any, path: Path, issues: list[str]) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    issues.append(_issue(path, f"expected a number, found {kind(value)}"))
    return value


def _annotated_reader(of: Any, notes: Sequence[Any]) -> Reader:
    inner = _reader(of)
    ranges = [note for note in notes if isinstance(note, Range)]
    if not ranges:
        return inner

    def reader(value: Any, path: Path, issues: list[str]) -> Any:
        before = len(issues)
        result = inner(value, path, issues)
        for bounds in ranges if len(issues) == before else ():
            if (bounds.min is not None and result < bounds.min) or (bounds.max is not None and result > bounds.max):
                least = "" if bounds.min is None else f" from {bounds.min}"
                most = "" if bounds.max is None else f" to {bounds.max}"
                issues.append(_issue(path, f"expected a number{least}{most}, found another"))
        return result

    return reader


def _union_reader(arguments: Sequence[Any]) -> Reader:
    if len(arguments) == 2 and type(None) in arguments:
        inner = _reader(next(one for one in arguments if one is not type(None)))
        return lambda value, path, issues: None if value is None else inner(value, path, issues)
    readers = [_reader(one) for one in arguments]

    def reader(value: Any, path: Path, issues: list[str]) -> Any:
        for one in readers:
            own: list[str] = []
            result = one(value, path, own)
            if not own:
                return result
        issues.append(_issue(path, f"fits none of {len(readers)} kinds, found {kind(value)}"))
        return value

    return reader


def _enum_reader(of: type[enum.Enum]) -> Reader:
    words = " or ".join(json.dumps(member.value, ensure_ascii=False) for member in of)

    def reader(value: Any, path: Path, issues: list[str]) -> Any:
        for member in of:
            if member.value == value and type(member.value) is type(value):
                return member
        issues.append(_issue(path, f"expected {words}, found {kind(value)}"))
        return value

    return reader


def _list_reader(item: Reader, make: Callable[[list[Any]], Any]) -> Reader:
    def reader(value: Any, path: Path, issues: list[str]) -> Any:
        if not isinstance(value, list):
            issues.append(_issue(path, f"expected a list, found {kind(value)}"))
            return value
        return make([item(one, (*path, index), issues) for index, one in enumerate(value)])

    return reader


def _dict_reader(item: Reader) -> Reader:
    def reader(value: Any, path: Path, issues: list[str]) -> Any:
        if not isinstance(_is_object(value, path, issues), dict):
            return value
        return {name: item(one, (*path, name), issues) for name, one in value.items()}

    return reader


#: A field's reader, and whether it may be missing.
Fields = dict[str, tuple[Reader, bool]]


def _typed_dict_fields(of: Any) -> Fields:
    hints = typing.get_type_hints(of, include_extras=True)
    marks = (typing.Required, typing.NotRequired, getattr(typing, "ReadOnly", None))
    fields: Fields = {}
    for name, hint in hints.items():
        while typing.get_origin(hint) is not None and typing.get_origin(hint) in marks:
            hint = typing.get_args(hint)[0]
        fields[name] = (_reader(hint), name in of.__optional_keys__)
    return fields


def _dataclass_fields(of: Any) -> Fields:
    hints = typing.get_type_hints(of, include_extras=True)
    fields: Fields = {}
    for field in dataclasses.fields(of):
        has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if field.init:
            fields[field.name] = (_reader(hints[field.name]), has_default)
    return fields


def _fields_reader(find: Callable[[], Fields], make: Callable[[dict[str, Any]], Any]) -> Reader:
    # Found at the first use: a type may have itself in it.
    fields: Fields | None = None

    def reader(value: Any, path: Path, issues: list[str]) -> Any:
        nonlocal fields
        if not isinstance(_is_object(value, path, issues), dict):
            return value
        if fields is None:
            fields = find()
        before = len(issues)
        values = {}
        for name, (item, is_optional) in fields.items():
            if name in value:
                values[name] = item(value[name], (*path, name), issues)
            elif not is_optional:
                issues.append(_issue((*path, name), "is missing"))
        if len(issues) > before:
            return value
        try:
            return make(values)
        except ValueError as error:
            # `__post_init__` may check what types cannot say.
            issues.append(_issue(path, str(error)))
            return value

    return reader
