"""`load` and `check`: the ways in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from asg.errors import GraphError
from asg.graph import Graph
from asg.onnx.dtypes import computed_type, numpy_type
from asg.onnx.importer import Importer
from asg.onnx.model import Model, Source, read
from asg.onnx.operators import TABLE
from asg.onnx.problems import NodeUnsupportedError, Problem, unsupported
from asg.onnx.statics import static_inputs
from asg.onnx.updates import with_updates
from asg.open_graph import Binding, OpenGraph, OpenInput
from asg.open_types import Size
from asg.types import DType

# Sizes of open dimensions while a model is looked through: many small factors, none alike.
_PROBES = tuple(range(16, 16 + 8 * 64, 8))


def load(
    source: Source,
    *,
    dims: Mapping[str, int] | None = None,
    float64: Literal["error", "narrow"] = "error",
) -> Graph | OpenGraph:
    """Return an ONNX model as a graph, or as an open graph where sizes are open.

    Inputs, outputs and weights keep their names; weights become parameters. Inputs whose values
    decide shapes are static inputs of an open graph.

    Args:
        source: a path, bytes or an `onnx.ModelProto`. Changing the latter later is no good.
        dims: sizes for named dimensions (those without a name are called `INPUT.AXIS`).
        float64: `narrow` computes it in f32; it is refused unless told.

    Raises:
        GraphError: it is no ONNX model, or means nothing.
        UnsupportedError: nodes that can't be compiled, all of them, each with its reason.
    """
    if float64 not in ("error", "narrow"):
        raise GraphError(f'float64 is "error" or "narrow", not {float64!r}')
    model = read(source)
    allow = float64 == "narrow"
    found = open_model(model, allow)
    if found.is_bound_by(dims or {}):
        return found.bind(dims)
    problems = _probe(model, found, allow, dims or {})
    if problems:
        raise unsupported(model.label, problems)
    return fixed(found, dims or {})


def check(
    source: Source, *, dims: Mapping[str, int] | None = None, float64: str = "error"
) -> tuple[Problem, ...]:
    """Return every node of an ONNX model that can't be compiled; none means that all can.

    Nothing is compiled. Of what depends on such a node, only the operators are looked at.

    Raises:
        GraphError: it is no ONNX model, or means nothing.
    """
    model = read(source)
    found = open_model(model, float64 == "narrow")
    return tuple(_probe(model, found, float64 == "narrow", dims or {}))


def open_model(model: Model, allow_float64: bool) -> OpenGraph:
    """Return a model as an open graph, whose recipe goes through its nodes again."""
    statics = static_inputs(model, TABLE)
    inputs = tuple(_open_input(model, each, each.name in statics) for each in model.inputs)

    def recipe(binding: Binding) -> Graph:
        importer = Importer(
            model,
            TABLE,
            shapes=binding.shapes,
            known=binding.statics,
            allow_float64=allow_float64,
        )
        graph = importer.run()
        if graph is None:
            raise unsupported(model.label, importer.problems)
        return with_updates(graph, model.proto, model.label)

    return OpenGraph(model.name, inputs, recipe)


def fixed(graph: OpenGraph, dims: Mapping[str, int]) -> OpenGraph:
    """Return an open graph with some of its sizes given."""
    sizes = graph.complete(dims)
    inputs = [
        each
        if each.sizes is None
        else replace(each, sizes=tuple(sizes.get(str(size), size) for size in each.sizes))
        for each in graph.inputs
    ]
    return replace(graph, inputs=tuple(inputs))


def _probe(
    model: Model, graph: OpenGraph, allow_float64: bool, dims: Mapping[str, int]
) -> list[Problem]:
    """Go through the nodes with sizes made up where they are open."""
    sizes = dict(zip(graph.dims, _cycled(graph.dims), strict=True))
    sizes |= graph.complete(dims)
    unknown = [each.name for each in graph.inputs if each.is_static or each.sizes is None]
    shapes = {
        each.name: tuple(size if isinstance(size, int) else sizes[size] for size in each.sizes)
        for each in graph.inputs
        if each.sizes is not None
    }
    is_open = not graph.is_bound_by(dims)
    importer = Importer(
        model,
        TABLE,
        shapes=shapes,
        allow_float64=allow_float64,
        probe=unknown if is_open else None,
    )
    importer.run()
    return importer.problems


def _cycled(names: Iterable[str]) -> list[int]:
    return [_PROBES[place % len(_PROBES)] for place, _ in enumerate(names)]


def _open_input(model: Model, proto: object, is_static: bool) -> OpenInput:
    name, kind = proto.name, proto.type  # type: ignore[attr-defined]
    if not kind.HasField("tensor_type"):
        return OpenInput(name, (), DType.F32, is_static)  # refused when nodes are looked at
    tensor = kind.tensor_type
    try:
        dtype = computed_type(numpy_type(tensor.elem_type), allow_float64=True)
    except NodeUnsupportedError:
        dtype = DType.F32
    except GraphError as error:
        raise GraphError(f"{model.label}: input {name!r}: {error}") from error
    if not tensor.HasField("shape"):
        return OpenInput(name, None, dtype, is_static)
    sizes = tuple(_size(model, name, axis, size) for axis, size in enumerate(tensor.shape.dim))
    return OpenInput(name, sizes, dtype, is_static)


def _size(model: Model, name: str, axis: int, dim: object) -> Size:
    kind = dim.WhichOneof("value")  # type: ignore[attr-defined]
    if kind == "dim_value" and dim.dim_value != -1:  # type: ignore[attr-defined]
        size = int(dim.dim_value)  # type: ignore[attr-defined]
        if not 0 <= size < np.iinfo(np.int32).max:
            raise GraphError(f"{model.label}: input {name!r}: axis {axis} has size {size}")
        return size
    wanted = str(dim.dim_param) if kind == "dim_param" else ""  # type: ignore[attr-defined]
    return wanted or f"{name}.{axis}"
