"""An ONNX file as data: its graph, functions, opsets and weights, checked for structure."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from asg.errors import GraphError
from asg.onnx import weights, wire
from asg.onnx.dtypes import Array
from asg.types import DType

Source = str | os.PathLike[str] | bytes | Any
_NODES = 1_000_000


@dataclass(frozen=True)
class Model:
    """A model as it was read. `label` is what messages call it.

    `raw` holds the bytes of large initialisers by their position, which are not in `proto`.
    `narrowed` keeps parameters in the type that they are computed in, so that all graphs made
    of the model share them.
    """

    label: str
    proto: Any
    opsets: Mapping[str, int]
    functions: Mapping[tuple[str, str, str], Any]
    files: weights.Files
    raw: Mapping[int, weights.Raw]
    narrowed: dict[tuple[str, DType], Array] = field(default_factory=dict)

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
        known = {each.name for each in self.graph.initializer}
        return [each for each in self.graph.input if each.name not in known]

    def array(self, proto: Any, name: str) -> Array:
        """Return the contents of a tensor in an attribute or in a graph inside a node.

        Raises:
            GraphError: its size and its data disagree, or the data is missing.
        """
        return self._read(proto, name, None)

    def weight(self, position: int) -> Array:
        """Return the contents of an initialiser of the graph.

        Raises:
            GraphError: its size and its data disagree, or the data is missing.
        """
        proto = self.graph.initializer[position]
        return self._read(proto, proto.name, self.raw.get(position))

    def _read(self, proto: Any, name: str, raw: weights.Raw | None) -> Array:
        try:
            if isinstance(proto, onnx.SparseTensorProto):
                return weights.sparse(proto, self.files)
            return weights.tensor(proto, self.files, raw)
        except GraphError as error:
            raise GraphError(f"{self.label}: tensor {name!r}: {error}") from error


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


def read(source: Source) -> Model:
    """Read a model from a path, bytes or a `ModelProto`.

    Raises:
        GraphError: it is no ONNX model.
    """
    if isinstance(source, onnx.ModelProto):
        return _checked("model", source, None, {})
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes("model", memoryview(source).cast("B"), None)
    if not isinstance(source, (str, os.PathLike)):
        raise GraphError(
            f"a model is a path, bytes or an onnx.ModelProto, not {type(source).__name__}"
        )
    path = Path(source)
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise GraphError(f"{path.name}: no ONNX model: the file is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                view = memoryview(mapped)
                try:
                    return _from_bytes(path.name, view, path)
                finally:
                    view.release()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise GraphError(f"{path}: can't be read: {reason or error}") from None


def _from_bytes(label: str, data: memoryview, path: Path | None) -> Model:
    """Parse a model; `path` is where its large weights are read from, if not from `data`."""
    try:
        found = wire.split(data)
    except wire.WireError:
        found = wire.Split(bytes(data), {})
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(found.message)
    except DecodeError as error:
        raise GraphError(f"{label}: no ONNX model, or damaged: {error}") from None
    folder = path.resolve().parent if path is not None else None
    return _checked(label, proto, folder, weights.large(path or data, found.places))


def _checked(label: str, proto: Any, folder: Path | None, raw: Mapping[int, weights.Raw]) -> Model:
    if not proto.HasField("graph") or not proto.graph.output:
        raise GraphError(f"{label}: no ONNX model: there is no graph with outputs in it")
    if len(proto.graph.node) > _NODES:
        raise GraphError(f"{label}: more than {_NODES:,} nodes")
    _check_texts(label, proto)
    opsets: dict[str, int] = {}
    for each in proto.opset_import:
        domain, version = domain_of(each), each.version
        if opsets.setdefault(domain, version) != version:
            raise GraphError(f"{label}: two versions of {domain or 'ai.onnx'} are asked for")
        if not 1 <= version < 2**31:
            raise GraphError(f"{label}: {version} is no version of {domain or 'ai.onnx'}")
    newest = onnx.defs.onnx_opset_version()
    if opsets.get("", 1) > newest:
        raise GraphError(
            f"{label}: opset {opsets['']} is newer than what the onnx package knows ({newest})\n"
            "  fix: pip install -U onnx"
        )
    for kind in ("input", "output", "initializer"):
        _check_unique(label, kind, [each.name for each in getattr(proto.graph, kind)])
    functions = {(domain_of(each), each.name, each.overload): each for each in proto.functions}
    return Model(label, proto, opsets, functions, weights.Files(folder), raw)


def _check_texts(label: str, proto: Any) -> None:
    """Refuse names that are no text: the parser hands on bytes that are no UTF-8."""
    graph = proto.graph
    named = (*graph.input, *graph.output, *graph.initializer, *proto.functions)
    texts = [graph.name, *(each.domain for each in proto.opset_import)]
    texts += [each.name for each in named]
    bodies = [graph.node, *(each.node for each in proto.functions)]
    for node in (node for body in bodies for node in all_nodes(body)):
        texts += (node.name, node.op_type, node.domain, *node.input, *node.output)
        texts += [each.name for each in node.attribute]
    for text in texts:
        if not isinstance(text, str):
            raise GraphError(f"{label}: damaged: the name {text!r} is no text")


def _check_unique(label: str, kind: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not name:
            raise GraphError(f"{label}: an {kind} has no name")
        if name in seen:
            raise GraphError(f"{label}: two {kind}s are called {name!r}")
        seen.add(name)
