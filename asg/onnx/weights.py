"""The contents of tensors in a model: in the message, cut out of the file, or in files beside it.

Files beside the model are mapped, not read. They must lie in the model's folder: a model from a
stranger may not name any other file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from asg.errors import AsgError, GraphError
from asg.onnx.dtypes import Array, NumpyType, numpy_type

Raw = np.ndarray[Any, Any]  # bytes
_LARGEST = 2**48  # bytes of a tensor; what says more is no model
_SPARSE = 1 << 26  # elements that any sparse tensor may have; its zeros are written out
_SPARSEST = 256  # elements for each value that larger ones may have


class Files:
    """The files with data beside a model, each mapped once."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._mapped: dict[Path, Raw] = {}

    def find(self, proto: Any) -> Raw:
        """Return the bytes of a tensor that are kept in a file.

        Raises:
            GraphError: the file is none of the model's, is missing, or is too short.
        """
        entries = {each.key: each.value for each in proto.external_data}
        location = entries.get("location", "")
        data = self._map(location)
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries.get("length", _needed(proto)))
        except ValueError:
            raise GraphError(f"offset or length in {location!r} is no number") from None
        if offset < 0 or length < 0 or offset + length > data.size:
            raise GraphError(
                f"bytes {offset} to {offset + length} are wanted of {location!r}, "
                f"which has {data.size}"
            )
        return data[offset : offset + length]

    def _map(self, location: str) -> Raw:
        if self._folder is None:
            raise GraphError(
                f"its data is in the file {location!r}; fix: load the model by its path"
            )
        parts = (*PurePosixPath(location).parts, *PureWindowsPath(location).parts)
        is_absolute = PurePosixPath(location).is_absolute() or bool(
            PureWindowsPath(location).anchor
        )
        if not location or "\0" in location or is_absolute or ".." in parts:
            raise GraphError(f"the data file {location!r} is not in the model's folder")
        path = (self._folder / location).resolve()
        if not path.is_relative_to(self._folder.resolve()):
            raise GraphError(f"the data file {location!r} leads out of the model's folder")
        if path not in self._mapped:
            if not path.is_file():
                raise GraphError(f"there is no data file {location!r} beside the model")
            is_empty = path.stat().st_size == 0
            mapped = np.zeros(0, np.uint8) if is_empty else np.memmap(path, np.uint8, "r")
            self._mapped[path] = np.asarray(mapped)
        return self._mapped[path]


def tensor(proto: Any, files: Files, raw: Raw | None = None) -> Array:
    """Return the contents of a tensor; `raw` are its bytes, where they are not in the message.

    Raises:
        GraphError: its size and its data disagree, or the data is missing.
        NodeUnsupportedError: its element type is not computed.
    """
    dtype = numpy_type(proto.data_type)
    if proto.data_location == onnx.TensorProto.EXTERNAL:
        raw = files.find(proto)
    shape = tuple(proto.dims)
    if any(size < 0 for size in shape) or _needed(proto) > _LARGEST:
        raise GraphError(f"{list(shape)} is no shape of a tensor")
    if raw is None and proto.HasField("raw_data"):
        raw = np.frombuffer(proto.raw_data, np.uint8)
    if raw is None or dtype.name in ("int4", "uint4", "int2", "uint2", "float4_e2m1fn"):
        return _by_the_package(proto, raw)
    if raw.size != _needed(proto):
        raise GraphError(
            f"{dtype.name}{list(shape)} takes {_needed(proto)} bytes, but {raw.size} are there"
        )
    # ONNX is little-endian, as is every machine that has an adapter.
    return raw.view(dtype).reshape(shape)


def sparse(proto: Any, files: Files) -> Array:
    """Return a sparse tensor with its zeros; places are flat or one coordinate per axis."""
    values, places = tensor(proto.values, files), tensor(proto.indices, files)
    shape = tuple(proto.dims)
    if any(size < 0 for size in shape):
        raise GraphError(f"{list(shape)} is no shape of a tensor")
    count, most = math.prod(shape), max(_SPARSE, _SPARSEST * values.size)
    if count > most:
        raise GraphError(
            f"a sparse tensor of {count} elements is too large: with {values.size} values it may "
            f"have {most}"
        )
    if values.ndim != 1 or places.shape[:1] != values.shape or (places < 0).any():
        raise GraphError(
            f"places {list(places.shape)} of a sparse tensor do not fit its {values.size} values, "
            "or are negative"
        )
    result = np.zeros(shape, values.dtype)
    try:
        flat = places if places.ndim == 1 else np.ravel_multi_index(tuple(places.T), shape)
        result.reshape(-1)[flat] = values
    except (ValueError, IndexError, TypeError) as error:
        raise GraphError(f"places of a sparse tensor do not fit: {error}") from None
    return result


def large(data: memoryview | Path, places: Mapping[int, tuple[int, int]]) -> dict[int, Raw]:
    """Return what was cut out of a message: read from its file, or a view of the bytes given."""
    if not isinstance(data, Path):
        whole = np.frombuffer(data, np.uint8)
        return {position: whole[start:end] for position, (start, end) in places.items()}
    found: dict[int, Raw] = {}
    with data.open("rb", buffering=0) as file:
        for position, (start, end) in places.items():
            file.seek(start)
            raw = np.fromfile(file, np.uint8, end - start)
            if raw.size != end - start:
                raise GraphError("the file changed while it was read")
            found[position] = raw
    return found


def _needed(proto: Any) -> int:
    dtype: NumpyType = numpy_type(proto.data_type)
    return math.prod(map(int, proto.dims)) * dtype.itemsize


def _by_the_package(proto: Any, raw: Raw | None) -> Array:
    """Let the `onnx` package read numbers in fields of their own, and packed ones."""
    whole = proto
    if raw is not None and not proto.raw_data:
        whole = onnx.TensorProto()
        whole.CopyFrom(proto)
        whole.ClearField("external_data")
        whole.data_location = onnx.TensorProto.DEFAULT
        whole.raw_data = raw.tobytes()
    try:
        return np.asarray(numpy_helper.to_array(whole))
    except AsgError:
        raise
    except Exception as error:  # the package raises what comes up
        raise GraphError(f"its contents can't be read: {error}") from error
