"""An exception as one line, with places in the author's files."""

import os
import re
import traceback
from types import TracebackType

_FRAMES_SHOWN = 8
#: Where the build mounts the folders with modules: `/0/handler.py`, `/1/wattle_entry.py`.
_MOUNTED = re.compile(r"^/\d+/")
_LIBRARY = os.path.join(os.path.dirname(__file__), "")


def describe(error: BaseException) -> str:
    """What was raised, and where: the innermost place first."""
    what = traceback.format_exception_only(error)[-1].strip()
    places = [f"at {name} ({file}:{line})" for name, file, line in reversed(_frames(error.__traceback__))]
    cause = error.__cause__
    because = "" if cause is None else f"; caused by {describe(cause)}"
    return _single_line(" ".join([what, *places[:_FRAMES_SHOWN]])) + because


def _frames(trace: TracebackType | None) -> list[tuple[str, str, int]]:
    frames = []
    while trace is not None:
        code = trace.tb_frame.f_code
        # What this library does is of no use to a handler's author.
        if not code.co_filename.startswith(_LIBRARY):
            frames.append((code.co_qualname, _MOUNTED.sub("", code.co_filename), trace.tb_lineno))
        trace = trace.tb_next
    return frames


def _single_line(text: str) -> str:
    return re.sub(r"\s*[\r\n]+\s*", " ", text)
