"""A graph on disk: text in `NAME.graph`, beside it numbers in `NAME.safetensors`.

    # asg graph 1
    # tensors NAME.safetensors sha256 9f86d081884c7d65…
    graph step(x: f32[2, 3], w: parameter f32[3, 4]) {
      …

The first line has the version of the format. The second stands only where there are numbers:
the values of parameters and state under their names, and under `#digest` the constants that the
text does not write out. Both files are written beside their places and then moved there, the
numbers first; a pair torn by a crash between is found by the checksum.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from asg.errors import AsgError, GraphError
from asg.format import INLINE, LITERAL, format_graph
from asg.graph import Graph, Literal
from asg.op import Op
from asg.parse import parse_graph
from asg.tensor_file import load as read_tensors
from asg.tensor_file import save as write_tensors
from asg.verify import verify

FORMAT_VERSION = 1
SUFFIX = ".graph"

_HEAD = "# asg graph "
_TENSORS = "# tensors "

Array = np.ndarray[Any, Any]


def save_graph(graph: Graph, path: str | os.PathLike[str]) -> Path:
    """Write a graph and its numbers; return the path of the text file.

    `path` is `NAME.graph` or `NAME`.
    """
    text_path = _text_path(path)
    tensors_path = text_path.with_suffix(".safetensors")
    tensors = {**large_constants(graph), **graph.values}
    lines = [f"{_HEAD}{FORMAT_VERSION}"]
    if tensors:
        data = write_tensors({key: np.asarray(a, order="C") for key, a in tensors.items()})
        digest = hashlib.sha256(data).hexdigest()
        lines.append(f"{_TENSORS}{tensors_path.name} sha256 {digest}")
        _write(tensors_path, data)
    text = "\n".join([*lines, format_graph(graph)])
    _write(text_path, text.encode())
    return text_path


def load_graph(path: str | os.PathLike[str], *, ops: Mapping[str, Op] | None = None) -> Graph:
    """Read a graph that `save_graph` wrote. `ops` are ops that the table does not have.

    Raises:
        GraphError: a file is missing, damaged or from a newer version; the message names it.
    """
    text_path = _text_path(path)
    text = _read_text(text_path)
    _check_version(text_path, text)
    tensors = _read_tensors(text_path, text)
    constants = {key[1:]: array for key, array in tensors.items() if key.startswith("#")}
    for digest, array in constants.items():
        if Literal(array).digest != digest:
            raise GraphError(f"{text_path}: constant #{digest} is not what it was; damaged file")
    values = {key: array for key, array in tensors.items() if not key.startswith("#")}
    try:
        graph = parse_graph(text, constants, ops=ops, values=values)
        verify(graph)
    except AsgError as error:
        raise GraphError(f"{text_path}: {error}") from error
    return graph


def large_constants(graph: Graph) -> dict[str, Array]:
    """Return the constants that the text names by digest, by `#digest`."""
    found: dict[str, Array] = {}
    for node in graph.nodes:
        for key, attribute in node.attrs.items():
            if not isinstance(attribute, Literal):
                continue
            if key != LITERAL or attribute.array.size > INLINE:
                found[f"#{attribute.digest}"] = attribute.array
    return found


def _text_path(path: str | os.PathLike[str]) -> Path:
    text_path = Path(path)
    return text_path if text_path.suffix == SUFFIX else text_path.with_name(text_path.name + SUFFIX)


def _write(path: Path, data: bytes) -> None:
    """Write a file so that at every moment the old one or the new one is there, whole."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            file.close()
            temporary.chmod(_mode())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _mode() -> int:
    """Return the permissions that an ordinary new file gets; temporary files are private."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise GraphError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise GraphError(f"{path}: can't be read: {error}") from error


def _check_version(path: Path, text: str) -> None:
    first = text.partition("\n")[0]
    number = first.removeprefix(_HEAD)
    if not first.startswith(_HEAD) or not number.isdigit():
        raise GraphError(
            f"{path}: is no saved graph; expected '{_HEAD}{FORMAT_VERSION}' in line 1, "
            f"got {first[:60]!r}"
        )
    if int(number) > FORMAT_VERSION:
        raise GraphError(
            f"{path}: has version {number} of the format, this ASG reads up to "
            f"{FORMAT_VERSION}; a newer ASG is needed"
        )


def _read_tensors(text_path: Path, text: str) -> dict[str, Array]:
    line = text.split("\n", 2)[1] if "\n" in text else ""
    if not line.startswith(_TENSORS):
        return {}
    name, _, digest = line.removeprefix(_TENSORS).rpartition(" sha256 ")
    if not name or Path(name).name != name:
        raise GraphError(f"{text_path}: line 2 does not name a file beside it: {line[:80]!r}")
    path = text_path.with_name(name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise GraphError(f"{path}: can't be read, {text_path.name} needs it: {error}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise GraphError(f"{path}: is not the file that {text_path.name} was saved with")
    try:
        tensors: dict[str, Array] = read_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise GraphError(f"{path}: is damaged: {error}") from error
    return tensors
