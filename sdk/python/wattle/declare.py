"""Writes what the plugin declares: `python wattle/declare.py OUT`, in the plugin's folder, gives `OUT/declared.json`.

It runs the top level of `handler.py` without a bus, so a mistake there is seen here first, as Python tells it.
"""

import importlib
import json
import sys
from pathlib import Path


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("use it as `python wattle/declare.py OUT`")
    # The plugin's folder comes first, as in the component. This folder's modules are the package's.
    sys.path[0] = str(Path.cwd())
    sys.dont_write_bytecode = True
    declared = importlib.import_module("wattle._declared")
    plugin = declared.plugin_of(importlib.import_module("handler"))
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    (out / "declared.json").write_text(json.dumps({"sections": declared.sections(plugin)}) + "\n")


if __name__ == "__main__":
    main()
