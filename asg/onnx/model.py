"""An ONNX file as data: its graph, functions, opsets and weights, checked for structure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import numpy_helper

from asg.errors import GraphError
from asg.onnx.dtypes import Array


def domain_of(proto: Any) -> str:
    """Return the domain of a node or function; ONNX's own has two names."""
    return "" if proto.domain == "ai.onnx" else str(proto.domain)


def graph_nodes(node: Any) -> list[Any]:
    """Return the nodes of the graphs that are attributes of a node."""
    graphs = [each.g for each in node.attribute if each.HasField("g")]
    graphs += [graph for each in node.attribute for graph in each.graphs]
    return [inner for graph in graphs for inner in graph.node]


def all_nodes(nodes: Iterable[Any]) -> Iterator[Any]:
    """Yield nodes, and those of the graphs inside them."""
    pending = list(nodes)[::-1]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(graph_nodes(node)[::-1])


Source = str | os.PathLike[str] | bytes | Any


@dataclass(frozen=True)
class Model:
    """A model as it was read. `label` is what messages call it, `folder` where its data lies."""

    label: str
    proto: Any
    opsets: Mapping[str, int]
    functions: Mapping[tuple[str, str, str], Any]
    folder: Path | None

    @property
    def graph(self) -> Any:
        return self.proto.graph

    @property
    def name(self) -> str:
        """A name for the graph: letters, digits and underscores."""
        text = self.graph.name or Path(self.label).stem
        plain = "".join(each if each.isascii() and each.isalnum() else "_" for each in text)
        return plain if plain and not plain[0].isdigit() else f"graph_{plain}"

    @property
    def inputs(self) -> list[Any]:
        """The inputs that a caller gives: those that are no initialisers."""
        weights = {each.name for each in self.graph.initializer}
        return [each for each in self.graph.input if each.name not in weights]

    def array(self, proto: Any, name: str) -> Array:
        """Return the contents of a tensor.

        Raises:
            GraphError: its size and its data disagree, or the data is missing.
        """
        try:
            if isinstance(proto, onnx.SparseTensorProto):
                return _dense(proto, str(self.folder or ""))
            return np.asarray(numpy_helper.to_array(proto, str(self.folder or "")))
        except (ValueError, TypeError, KeyError, OSError, onnx.checker.ValidationError) as error:
            raise GraphError(f"{self.label}: tensor {name!r} can't be read: {error}") from error


def _dense(proto: Any, folder: str) -> Array:
    """Return a sparse tensor with its zeros; places are flat or one coordinate per axis."""
    values = np.asarray(numpy_helper.to_array(proto.values, folder))
    places = np.asarray(numpy_helper.to_array(proto.indices, folder))
    shape = tuple(proto.dims)
    result = np.zeros(shape, values.dtype)
    flat = places if places.ndim == 1 else np.ravel_multi_index(tuple(places.T), shape)
    result.reshape(-1)[flat] = values
    return result


def read(source: Source) -> Model:
    """Read a model from a path, bytes or a `ModelProto`.

    Raises:
        GraphError: it is no ONNX model.
    """
    if isinstance(source, onnx.ModelProto):
        return _checked("model", source, None)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _checked("model", _parsed("model", bytes(source)), None)
    path = Path(source)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise GraphError(f"{path}: can't be read: {error.strerror or error}") from None
    return _checked(path.name, _parsed(path.name, text), path.resolve().parent)


def _parsed(label: str, text: bytes) -> Any:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(text)
    except DecodeError as error:
        raise GraphError(f"{label}: no ONNX model, or damaged: {error}") from None
    return proto


def _checked(label: str, proto: Any, folder: Path | None) -> Model:
    if not proto.HasField("graph") or not proto.graph.output:
        raise GraphError(f"{label}: no ONNX model: there is no graph with outputs in it")
    opsets: dict[str, int] = {}
    for each in proto.opset_import:
        opsets[domain_of(each)] = each.version
    newest = onnx.defs.onnx_opset_version()
    if opsets.get("", 1) > newest:
        raise GraphError(
            f"{label}: opset {opsets['']} is newer than what the onnx package knows ({newest})"
        )
    functions = {(domain_of(each), each.name, each.overload): each for each in proto.functions}
    return Model(label, proto, opsets, functions, folder)
