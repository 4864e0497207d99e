"""What componentize-py makes the component of: the plugin of the module `handler`, as the contract has it."""

# mypy: ignore-errors
# ruff: noqa: E402
import importlib.util
import os
import sys
from typing import List

from wit_world import exports
from wit_world.imports import types

# The package is the folder of this file, which is mounted by itself: where the plugin's folder has a link to it, the
# link leads out of what is mounted.
_folder = os.path.dirname(__file__)
_spec = importlib.util.spec_from_file_location("wattle", f"{_folder}/__init__.py", submodule_search_locations=[_folder])
sys.modules["wattle"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["wattle"])

import handler
from wattle import _declared, _failure, _logging, _plugin

_logging.install()
_plugin_of_module = _declared.plugin_of(handler)


class Handler(exports.Handler):
    def describe(self) -> List[str]:
        return _plugin_of_module.ports

    def handle(self, info, events):
        try:
            handled = _plugin_of_module.handle(info, events)
        except BaseException:
            # It is in the log, as the reason of the failure. What the runtime would print of it is the same once more.
            os.abort()
        outputs = [
            types.Output(event, port, output.key, output.type, output.content_type, attributes, bytes(output.data))
            for event, port, output, attributes in handled.outputs
        ]
        if handled.failed is None:
            return types.Handled(outputs, None)
        event, failure = handled.failed
        if isinstance(failure, _failure.Retry):
            action = types.Action_Retry(_plugin.milliseconds(failure))
        else:
            action = types.Action_Reject()
        return types.Handled(outputs, types.Failure(event, action, str(failure)))
