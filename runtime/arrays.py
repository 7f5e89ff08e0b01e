"""What users hand in becomes 32-bit words, and words become what users get back.

Nothing narrows silently: an integer array is checked against the range of its target, and a
float is never made an integer. Taken for floats are all floats (rounded; overflow is an error) and
all integers; for integers all integers that fit; for bool only bool. Where rounding to f32 changes
a number of an array, a warning is logged, once for each name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from asg.artefact import Slot
from asg.errors import InputError, NonFiniteError
from asg.types import INTERFACES, DType, TensorType, is_floating

LOG = logging.getLogger("asg")

_rounded: set[str] = set()  # what has been warned of

_WORD = {DType.BOOL: np.dtype(np.uint32)}


def to_words(what: str, wanted: TensorType, value: object) -> np.ndarray:
    """Return `value` as a contiguous array of 4-byte words in the layout of `wanted`.

    It has the wanted shape, but for narrow types, of which a word holds several elements.

    `what` is how an error calls it: `predict: input 'x'`.

    Raises:
        InputError: shape or element type do not fit, or a value is out of range.
    """
    array = to_array(what, wanted, value)
    if wanted.dtype.is_narrow:
        words = np.zeros(wanted.nbytes // 4, np.uint32)
        words.view(wanted.dtype.numpy)[: wanted.size] = array.reshape(-1)
        return words
    return np.ascontiguousarray(array, dtype=_WORD.get(wanted.dtype)).reshape(wanted.shape)


def to_array(what: str, wanted: TensorType, value: object) -> np.ndarray:
    """Return `value` as an array of the wanted shape and element type.

    Raises:
        InputError: shape or element type do not fit, or a value is out of range.
    """
    array = as_array(what, value)
    if array.shape != wanted.shape:
        raise InputError(
            f"{what} has shape {_shape(array.shape)}, and {_shape(wanted.shape)} is needed "
            f"({wanted})"
        )
    if array.dtype != wanted.dtype.numpy:
        # A list of Python's numbers has no precision of its own.
        return _converted(what, wanted.dtype, array, is_given=isinstance(value, np.ndarray))
    return array


def from_words(data: np.ndarray, kind: TensorType, *, is_ours: bool = False) -> np.ndarray:
    """Return bytes that came from the device as an array of `kind`.

    It is a copy, unless the bytes `is_ours` to keep.
    """
    if kind.dtype is DType.BOOL:
        return np.not_equal(data.view(np.uint32).reshape(kind.shape), 0)
    array = data.view(kind.dtype.numpy)[: kind.size].reshape(kind.shape)
    return array if is_ours else array.copy()


def shown(array: np.ndarray, slot: Slot) -> np.ndarray:
    """Return an output as its interface has it."""
    return array.astype(INTERFACES[slot.interface]) if slot.interface else array


def check_finite(entry: str, results: Mapping[str, np.ndarray]) -> None:
    """Refuse results that hold NaN or infinity.

    Raises:
        NonFiniteError: one does; the first such element is named.
    """
    for name, array in results.items():
        wrong = ~np.isfinite(array)
        if not wrong.any():
            continue
        first = tuple(int(index) for index in np.argwhere(wrong)[0])
        raise NonFiniteError(
            f"{entry}: output {name!r} is not finite: {array[first]} at {list(first)}, "
            f"{int(wrong.sum())} of {array.size} elements\n"
            "  fix: look for NaN in inputs and parameters; `asg verify` tells whether a kernel is\n"
            "  wrong. What this run updated stays so: load_state_dict() goes back to a checkpoint"
        )


def as_array(what: str, value: object) -> np.ndarray:
    """Return `value` as an array of whatever it holds.

    Raises:
        InputError: it holds no numbers.
    """
    if isinstance(value, np.ndarray):
        return value
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InputError(f"{what} is no array: {error}") from None
    if array.dtype == object:
        raise InputError(f"{what} is no array of numbers: {type(value).__name__}")
    return array


def _converted(what: str, wanted: DType, array: np.ndarray, *, is_given: bool) -> np.ndarray:
    """Return the array in the dtype of `wanted`, where that loses nothing but precision."""
    kind = "f" if is_floating(array) else array.dtype.kind
    if wanted.is_float and kind in "fiu":
        with np.errstate(over="ignore"):
            narrowed = array.astype(wanted.numpy)
        if kind == "f" and np.any(np.isinf(narrowed) & np.isfinite(array)):
            raise InputError(f"{what} holds values that {wanted} can't: {_extreme(array)}")
        if wanted is DType.F32 and is_given:
            _warn_of_rounding(what, array, narrowed)
        return narrowed
    if wanted.is_integer and kind in "iu":
        limits = np.iinfo(wanted.numpy)
        low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
        if low < limits.min or high > limits.max:
            outside = low if low < limits.min else high
            raise InputError(
                f"{what} holds {outside}, outside the range of {wanted} "
                f"({limits.min} to {limits.max})"
            )
        return array.astype(wanted.numpy)
    raise InputError(
        f"{what} has dtype {array.dtype}, and {wanted} is needed\n"
        f"  fix: convert it: .astype({_numpy_name(wanted)!r})"
    )


def _warn_of_rounding(what: str, array: np.ndarray, rounded: np.ndarray) -> None:
    """Tell once that numbers of an array are not those that were given."""
    if what in _rounded or array.dtype.itemsize < 4:
        return
    exact = np.equal(array, rounded.astype(np.float64)) | (rounded != rounded)
    if exact.all():
        return
    _rounded.add(what)
    place = tuple(int(each) for each in np.argwhere(~exact)[0])
    LOG.warning(
        "%s is %s and is rounded to f32: %r at %s becomes %r; fix: hand it in as float32, which "
        "says that this is meant (this is told once)",
        what, array.dtype, array[place].item(), list(place), rounded[place].item(),
    )  # fmt: skip


def _extreme(array: np.ndarray) -> Any:
    return array.flat[int(np.argmax(np.abs(np.where(np.isfinite(array), array, 0))))]


def _numpy_name(dtype: DType) -> str:
    return str(dtype.numpy)


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"
