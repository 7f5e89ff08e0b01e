"""`load` and `check`: the ways in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from asg.errors import GraphError
from asg.graph import Graph
from asg.onnx.importer import Importer
from asg.onnx.model import Model, Source, read
from asg.onnx.operators import TABLE
from asg.onnx.problems import Problem, unsupported


def load(
    source: Source,
    *,
    dims: Mapping[str, int] | None = None,
    float64: Literal["error", "narrow"] = "error",
) -> Graph:
    """Return an ONNX model as a graph.

    `source` is a path, bytes or an `onnx.ModelProto`. Inputs, outputs and weights keep their
    names; weights become parameters. `dims` gives sizes to named dimensions.

    Raises:
        GraphError: it is no ONNX model, or means nothing.
        UnsupportedError: nodes that can't be compiled, all of them, each with its reason.
    """
    model = read(source)
    importer = _importer(model, dims or {}, float64 == "narrow")
    graph = importer.run()
    if graph is None:
        raise unsupported(model.label, importer.problems)
    return graph


def check(source: Source, *, dims: Mapping[str, int] | None = None) -> tuple[Problem, ...]:
    """Return every node of an ONNX model that can't be compiled; none means that all can.

    Raises:
        GraphError: it is no ONNX model, or means nothing.
    """
    importer = _importer(read(source), dims or {}, False)
    importer.run()
    return tuple(importer.problems)


def _importer(model: Model, dims: Mapping[str, int], allow_float64: bool) -> Importer:
    shapes = {}
    for each in model.inputs:
        sizes = each.type.tensor_type.shape.dim
        shapes[each.name] = tuple(
            _size(model, each.name, axis, size, dims) for axis, size in enumerate(sizes)
        )
    return Importer(model, TABLE, shapes=shapes, allow_float64=allow_float64)


def _size(model: Model, name: str, axis: int, size: object, dims: Mapping[str, int]) -> int:
    kind = size.WhichOneof("value")  # type: ignore[attr-defined]
    if kind == "dim_value":
        return int(size.dim_value)  # type: ignore[attr-defined]
    wanted = size.dim_param if kind else ""  # type: ignore[attr-defined]
    if wanted not in dims:
        raise GraphError(
            f"{model.label}: input {name!r}: axis {axis} has no size"
            + (f"\n  fix: dims={{{wanted!r}: …}}" if wanted else "")
        )
    return dims[wanted]
