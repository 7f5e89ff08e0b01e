"""ONNX models become graphs (`asg.onnx.load`), and graphs ONNX models (`asg.onnx.save`).

Ground: imports the graph, its ops and the `onnx` package, nothing of the compiler. `model.py`
reads a file, `importer.py` goes through its nodes, `operators/` holds a converter for each ONNX
operator, `call.py` is what a converter sees, `folding.py` computes what is known already.
Operators without a converter are replaced by the body that ONNX gives them, where it does.
`saving.py` goes through a graph, `export_rules/` says how each op is written in ONNX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from asg.errors import AsgError

if TYPE_CHECKING:
    from asg.onnx.loading import check, load
    from asg.onnx.problems import Problem
    from asg.onnx.saving import save, to_proto

_HOMES = {
    "check": "loading",
    "load": "loading",
    "Problem": "problems",
    "save": "saving",
    "to_proto": "saving",
}

__all__ = ["Problem", "check", "load", "save", "to_proto"]


def __getattr__(name: str) -> Any:
    """Import what is public when it is first used: the `onnx` package is optional."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("onnx", "google"):
            raise
        raise AsgError("asg.onnx needs the onnx package\n  fix: pip install 'asg[onnx]'") from None
    found = getattr(module, name)
    globals()[name] = found
    return found
