"""Reading safetensors, bf16 among them, which the package's own NumPy reader does not know."""

from __future__ import annotations

from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save as save

from asg.types import bfloat16

Array = np.ndarray[Any, Any]

_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def load(data: bytes) -> dict[str, Array]:
    """Return the arrays of a safetensors file, by name.

    Raises:
        SafetensorError: the file is damaged.
        KeyError: an element type has no counterpart in NumPy.
        DTypeError: it holds bf16, and the package that NumPy needs for it is missing.
    """
    found: dict[str, Array] = {}
    for name, view in safetensors.deserialize(data):  # type: ignore[no-untyped-call]
        is_brain = view["dtype"] == "BF16"
        dtype = bfloat16() if is_brain else np.dtype(_NAMES[view["dtype"]])
        found[name] = np.frombuffer(view["data"], dtype).reshape(view["shape"]).copy()
    return found
