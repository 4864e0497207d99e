"""The bus, through the bindings that componentize-py makes of the contract."""

# mypy: ignore-errors
from componentize_py_types import Err
from wit_world.imports import atomics, context, logging
from wit_world.imports import wasi_config_store as _config
from wit_world.imports import wasi_keyvalue_store as _store

from . import _bus

_LEVELS = {
    name: getattr(logging.Level, name.upper()) for name in ("trace", "debug", "info", "warn", "error", "critical")
}


def _refusal(error):
    words = getattr(error.value, "value", None)
    return _bus.Refusal(words if isinstance(words, str) else type(error.value).__name__)


class _Bucket:
    """An open bucket. It is a name, and means the state of whatever event is current."""

    __slots__ = ("_bucket",)

    def __init__(self, name):
        try:
            self._bucket = _store.open(name)
        except Err as error:
            raise _refusal(error) from None

    def get(self, key):
        try:
            return self._bucket.get(key)
        except Err as error:
            raise _refusal(error) from None

    def set(self, key, value):
        try:
            self._bucket.set(key, value)
        except Err as error:
            raise _refusal(error) from None

    def delete(self, key):
        try:
            self._bucket.delete(key)
        except Err as error:
            raise _refusal(error) from None

    def exists(self, key):
        try:
            return self._bucket.exists(key)
        except Err as error:
            raise _refusal(error) from None

    def increment(self, key, by):
        try:
            return atomics.increment(self._bucket, key, by)
        except Err as error:
            raise _refusal(error) from None

    def list_keys(self, cursor):
        try:
            page = self._bucket.list_keys(cursor)
        except Err as error:
            raise _refusal(error) from None
        return page.keys, page.cursor


class _Bus:
    current = staticmethod(context.current)
    attributes = staticmethod(context.attributes)
    ports = staticmethod(context.ports)
    setting = staticmethod(_config.get)
    open = _Bucket

    def log(self, level, context, message):
        logging.log(_LEVELS[level], context, message)


bus = _Bus()
