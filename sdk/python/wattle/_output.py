"""The events that a handler answers with."""

from collections.abc import Mapping
from typing import Any, Self

from . import _json
from ._failure import Reject


class Output:
    """An event for a port. Its id, source and time are given by the bus.

    - `type`: its CloudEvents type; "" is the name of the port.
    - `key`: its ordering key; None is that of the event it answers, and so its partition and order.
    - `content_type`: of its data; "" is that of the event it answers.
    - `attributes`: further CloudEvents attributes: `subject`, `dataschema`, or an extension, whose name is lower-case
      letters and digits. The bus rejects the event when a name is none of these, or a value has control characters.
    """

    __slots__ = ("port", "data", "type", "key", "content_type", "attributes")

    def __init__(
        self,
        port: str,
        data: bytes,
        *,
        type: str = "",
        key: str | None = None,
        content_type: str = "",
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port
        self.data = data
        self.type = type
        self.key = key
        self.content_type = content_type
        self.attributes = attributes

    def __repr__(self) -> str:
        return f"Output({self.port!r}, {self.data!r}, type={self.type!r}, key={self.key!r})"

    @classmethod
    def json(
        cls,
        port: str,
        value: Any,
        *,
        type: str = "",
        key: str | None = None,
        content_type: str = "application/json",
        attributes: Mapping[str, str] | None = None,
    ) -> Self:
        """An output with a value as JSON; dataclasses and models of pydantic are objects.

        Rejects the event where the value cannot be JSON.
        """
        try:
            data = _json.write(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise Reject(f"the output cannot be written as JSON: {error}") from None
        return cls(port, data, type=type, key=key, content_type=content_type, attributes=attributes)

    @classmethod
    def text(
        cls,
        port: str,
        text: str,
        *,
        type: str = "",
        key: str | None = None,
        content_type: str = "text/plain",
        attributes: Mapping[str, str] | None = None,
    ) -> Self:
        """An output with a text."""
        return cls(port, _json.encode(text), type=type, key=key, content_type=content_type, attributes=attributes)


# A line end would begin a further attribute, which could be anything, such as `delay`. The bus refuses a zero
# byte, and says where.
_NAME = str.maketrans("\n\r=", "\0\0\0")
_VALUE = str.maketrans("\n\r", "\0\0")


def attribute_lines(attributes: Mapping[str, str] | None) -> str:
    """Attributes as the contract has them."""
    if not attributes:
        return ""
    return "".join(f"{name.translate(_NAME)}={str(value).translate(_VALUE)}\n" for name, value in attributes.items())
