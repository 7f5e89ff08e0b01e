"""ONNX models become graphs: `asg.onnx.load("model.onnx")`.

Ground: imports the graph, its ops and the `onnx` package, nothing of the compiler. `model.py`
reads a file, `importer.py` goes through its nodes, `operators/` holds a converter for each ONNX
operator, `call.py` is what a converter sees, `folding.py` computes what is known already.
Operators without a converter are replaced by the body that ONNX gives them, where it does.
"""

from __future__ import annotations

try:
    import onnx as _onnx  # noqa: F401
except ImportError:  # pragma: no cover
    raise ImportError("asg.onnx needs the onnx package\n  fix: pip install 'asg[onnx]'") from None

from asg.onnx.loading import check, load
from asg.onnx.problems import Problem

__all__ = ["Problem", "check", "load"]
