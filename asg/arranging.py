"""Functions that arrange elements anew: borders, rolls, blocks, reversals, sums by letters.

All are made of views, and of gathers at positions that are computed where they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import numpy as np

from asg import shaping
from asg.errors import ShapeError
from asg.ops import movement
from asg.ops.arithmetic import add, maximum, minimum, remainder, sub
from asg.ops.indexing import gather
from asg.ops.join import concatenate
from asg.ops.linear import matmul
from asg.ops.logic import equal, less, select
from asg.ops.reduction import reduce_sum
from asg.ops.sources import iota
from asg.placing import gather_elements
from asg.tensor import Tensor, as_tensor, explain
from asg.types import DType

__all__ = [
    "col2im", "depth_to_space", "diagonal", "einsum", "one_hot_values", "pad",
    "reverse_sequence", "roll", "space_to_depth",
]  # fmt: skip

Border = Literal["constant", "edge", "reflect", "symmetric", "wrap"]
_BORDERS = ("constant", "edge", "reflect", "symmetric", "wrap")


def pad(
    x: Any, widths: Sequence[tuple[int, int]], value: float = 0.0, mode: Border = "constant"
) -> Tensor:
    """Return `x` with a border; `widths` has (before, after) for each axis.

    What lies there is `value`, or as NumPy has it by `mode`: `edge`, `reflect`, `symmetric` or
    `wrap`. A negative width cuts off.

    Raises:
        DTypeError: `value` does not fit the dtype of `x`.
        ShapeError: there is nothing that a border could repeat, or the mode is unknown.
    """
    tensor = as_tensor(x)
    if mode == "constant":
        return shaping.pad(tensor, widths, value)
    if mode not in _BORDERS:
        raise _refused(f"mode is one of {', '.join(_BORDERS)}, got {mode!r}", tensor)
    if len(widths) != tensor.ndim:
        raise _refused(f"widths need {tensor.ndim} pairs for {tensor.type}", tensor)
    cut = [(min(int(low), 0), min(int(high), 0)) for low, high in widths]
    result = shaping.pad(tensor, cut)
    for axis, (low, high) in enumerate(widths):
        if low > 0 or high > 0:
            result = _bordered(result, axis, max(int(low), 0), max(int(high), 0), mode)
    return result


def _refused(message: str, *tensors: Tensor) -> ShapeError:
    error = explain(ShapeError(message), movement.pad, [tensor.value for tensor in tensors])
    assert isinstance(error, ShapeError)
    return error


def _bordered(x: Tensor, axis: int, low: int, high: int, mode: Border) -> Tensor:
    size = x.shape[axis]
    if size == 0:
        raise _refused(f"axis {axis} of {x.type} has no element to repeat", x)
    place = sub(iota(shape=(low + size + high,), axis=0, dtype=DType.I32), low)
    if mode == "edge" or size == 1:
        place = minimum(maximum(place, 0), size - 1)
    elif mode == "wrap":
        place = remainder(place, size)
    else:
        is_shared = mode == "reflect"  # the last element stands once where the order turns
        period = 2 * size - 2 if is_shared else 2 * size
        turned = remainder(place, period)
        place = select(less(turned, size), turned, sub(period if is_shared else period - 1, turned))
    result: Tensor = gather(x, place, axis=axis)
    return result


def roll(x: Any, shift: int | Sequence[int], axis: int | Sequence[int] | None = None) -> Tensor:
    """Return elements moved along axes by `shift`, those beyond the end at the beginning.

    Without an axis, elements move in row-major order.
    """
    tensor = as_tensor(x)
    if axis is None:
        if not isinstance(shift, (int, np.integer)):
            raise _refused("several shifts need axes", tensor)
        flat = movement.reshape(tensor, shape=(tensor.size,))
        whole: Tensor = movement.reshape(roll(flat, shift, 0), shape=tensor.shape)
        return whole
    axes = [axis] if isinstance(axis, (int, np.integer)) else list(axis)
    shifts = [shift] if isinstance(shift, (int, np.integer)) else list(shift)
    if len(axes) != len(shifts):
        raise _refused(f"{len(shifts)} shifts for {len(axes)} axes", tensor)
    for each, amount in zip(axes, shifts, strict=True):
        along = shaping.normal_axis(movement.pad, tensor, each)
        size = tensor.shape[along]
        moved = int(amount) % max(size, 1)
        if moved:
            parts = (
                _range(tensor, along, size - moved, size),
                _range(tensor, along, 0, size - moved),
            )
            tensor = concatenate(*parts, axis=along)
    return tensor


def _range(x: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    """Return the elements from `start` to before `stop` along one axis."""
    starts = tuple(start if place == axis else 0 for place in range(x.ndim))
    stops = tuple(stop if place == axis else size for place, size in enumerate(x.shape))
    steps = tuple(step if place == axis else 1 for place in range(x.ndim))
    result: Tensor = movement.slice_(x, starts=starts, stops=stops, steps=steps)
    return result


def depth_to_space(x: Any, block: int, mode: Literal["DCR", "CRD"] = "DCR") -> Tensor:
    """Return `[n, c, h, w]` with `block` × `block` channels made one square of pixels.

    `CRD` is the order of PyTorch's `pixel_shuffle`.
    """
    tensor = as_tensor(x)
    if tensor.ndim != 4 or block < 1 or tensor.shape[1] % (block * block):
        raise _refused(f"{tensor.type} has no channels for blocks of {block} x {block}", tensor)
    n, c, h, w = tensor.shape
    depth = c // (block * block)
    cut = (n, block, block, depth, h, w) if mode == "DCR" else (n, depth, block, block, h, w)
    order = (0, 3, 4, 1, 5, 2) if mode == "DCR" else (0, 1, 4, 2, 5, 3)
    moved = movement.permute(movement.reshape(tensor, shape=cut), axes=order)
    result: Tensor = movement.reshape(moved, shape=(n, depth, h * block, w * block))
    return result


def space_to_depth(x: Any, block: int) -> Tensor:
    """Return `[n, c, h, w]` with each square of `block` × `block` pixels made channels.

    Those of one place in the square stay together.
    """
    tensor = as_tensor(x)
    if tensor.ndim != 4 or block < 1 or tensor.shape[2] % block or tensor.shape[3] % block:
        raise _refused(f"{tensor.type} is not made of squares of {block} x {block}", tensor)
    n, c, h, w = tensor.shape
    cut = (n, c, h // block, block, w // block, block)
    moved = movement.permute(movement.reshape(tensor, shape=cut), axes=(0, 3, 5, 1, 2, 4))
    shape = (n, c * block * block, h // block, w // block)
    result: Tensor = movement.reshape(moved, shape=shape)
    return result


def reverse_sequence(x: Any, lengths: Any, batch_axis: int = 1, time_axis: int = 0) -> Tensor:
    """Return `x` with the first `lengths[b]` steps of every sequence in opposite order (ONNX)."""
    tensor, counts = as_tensor(x), as_tensor(lengths)
    batch = shaping.normal_axis(gather, tensor, batch_axis)
    time = shaping.normal_axis(gather, tensor, time_axis)
    if counts.shape != (tensor.shape[batch],) or batch == time:
        raise _refused(f"{counts.type} has no length for axis {batch_axis}", tensor, counts)
    ones = tuple(size if axis == batch else 1 for axis, size in enumerate(tensor.shape))
    count = movement.broadcast(movement.reshape(counts, shape=ones), shape=tensor.shape)
    step = iota(shape=tensor.shape, axis=time, dtype=counts.dtype)
    place = select(less(step, count), sub(sub(count, 1), step), step)
    return gather_elements(tensor, place, time)


def diagonal(x: Any, first: int = -2, second: int = -1) -> Tensor:
    """Return the elements whose coordinates along two axes of one size are equal, along a new last
    axis."""
    tensor = as_tensor(x)
    axes = [shaping.normal_axis(movement.permute, tensor, axis) for axis in (first, second)]
    if axes[0] == axes[1] or tensor.shape[axes[0]] != tensor.shape[axes[1]]:
        raise _refused(f"axes {first} and {second} of {tensor.type} make no square", tensor)
    rest = [axis for axis in range(tensor.ndim) if axis not in axes]
    size = tensor.shape[axes[0]]
    lead = tuple(tensor.shape[axis] for axis in rest)
    moved = movement.permute(tensor, axes=(*rest, *axes))
    flat: Tensor = movement.reshape(moved, shape=(*lead, size * size))
    return _range(flat, len(lead), 0, size * size, size + 1) if size else flat


def one_hot_values(index: Any, depth: int, off: Any, on: Any, axis: int = -1) -> Tensor:
    """Return `on` at `index` along a new axis of `depth`, `off` elsewhere (ONNX OneHot).

    Negative positions count from the end; what lies beyond either end is `off` everywhere.
    """
    tensor = as_tensor(index)
    place = axis + tensor.ndim + 1 if axis < 0 else axis
    if not 0 <= place <= tensor.ndim:
        raise _refused(f"there is no axis {axis} to put into {tensor.type}", tensor)
    shape = (*tensor.shape[:place], depth, *tensor.shape[place:])
    here = iota(shape=shape, axis=place, dtype=tensor.dtype)
    ones = (*tensor.shape[:place], 1, *tensor.shape[place:])
    wanted = movement.broadcast(movement.reshape(tensor, shape=ones), shape=shape)
    if tensor.dtype is DType.I32:
        wanted = select(less(wanted, 0), add(wanted, depth), wanted)
    result: Tensor = select(equal(here, wanted), on, off)
    return result


def col2im(
    columns: Any,
    size: Sequence[int],
    kernel: Sequence[int],
    dilation: Sequence[int] | None = None,
    padding: Sequence[tuple[int, int]] | None = None,
    stride: Sequence[int] | None = None,
) -> Tensor:
    """Return images of `size` in which patches `[n, c * prod(kernel), places]` are added up.

    ONNX calls it Col2Im, PyTorch `fold`.
    """
    tensor = as_tensor(columns)
    rank = len(size)
    dilated, step = tuple(dilation or (1,) * rank), tuple(stride or (1,) * rank)
    border = tuple(padding or ((0, 0),) * rank)
    whole = [n + low + high for n, (low, high) in zip(size, border, strict=True)]
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilated, strict=True)]
    counts = tuple((w - r) // s + 1 for w, r, s in zip(whole, reach, step, strict=True))
    patch = prod(kernel)
    if tensor.ndim != 3 or tensor.shape[1] % patch or tensor.shape[2] != prod(counts):
        raise _refused(f"{tensor.type} are no patches of {tuple(kernel)} in {tuple(size)}", tensor)
    n, channels = tensor.shape[0], tensor.shape[1] // patch
    cut = movement.reshape(tensor, shape=(n, channels, patch, *counts))
    total: Tensor | None = None
    for number, offsets in enumerate(np.ndindex(*kernel)):
        part = movement.reshape(_range(cut, 2, number, number + 1), shape=(n, channels, *counts))
        spread = movement.dilate(part, steps=(1, 1, *step))
        low = [o * d - b for o, d, (b, _) in zip(offsets, dilated, border, strict=True)]
        high = [s - a - e for s, a, e in zip(size, low, spread.shape[2:], strict=True)]
        fill = 0.0 if tensor.dtype.is_float else 0
        placed = movement.pad(spread, low=(0, 0, *low), high=(0, 0, *high), fill=fill)
        total = placed if total is None else add(total, placed)
    assert total is not None
    return total


# -- einsum ---------------------------------------------------------------------------------------


def einsum(equation: str, *operands: Any) -> Tensor:
    """Return sums of products by letters, as `numpy.einsum` does, with `...` and repeated letters.

    Operands are contracted from the left, each pair in one product.

    Raises:
        ShapeError: the equation does not fit the operands.
    """
    tensors = [as_tensor(operand) for operand in operands]
    terms, result = _parsed(equation, tensors)
    terms = [_without_repeats(term, tensor) for term, tensor in zip(terms, tensors, strict=True)]  # type: ignore[misc]
    pairs: list[tuple[str, Tensor]] = terms  # type: ignore[assignment]
    while len(pairs) > 1:
        first, second, *rest = pairs
        later = set(result).union(*(term for term, _ in rest))
        pairs = [_contracted(first, second, later), *rest]
    term, tensor = _summed(*pairs[0], set(result))
    return _ordered(term, tensor, result)


def _parsed(equation: str, tensors: Sequence[Tensor]) -> tuple[list[str], str]:
    """Return a letter per axis of each operand and of the result; `...` becomes letters too."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(tensors):
        raise _refused(f"einsum: {equation!r} has {len(terms)} operands", *tensors)
    used = set(left)
    spare = [chr(code) for code in range(0x3B1, 0x3B1 + 64) if chr(code) not in used]
    ranks = [
        tensor.ndim - len(term.replace("...", "")) if "..." in term else 0
        for term, tensor in zip(terms, tensors, strict=True)
    ]
    dots = "".join(spare[: max(ranks, default=0)])
    found = []
    for term, tensor, rank in zip(terms, tensors, ranks, strict=True):
        letters = term.replace("...", dots[len(dots) - rank :] if rank > 0 else "")
        if len(letters) != tensor.ndim:
            raise _refused(f"einsum: {term!r} does not name the axes of {tensor.type}", *tensors)
        found.append(letters)
    if arrow:
        result = right.replace("...", dots)
    else:
        counts = "".join(term.replace("...", "") for term in terms)
        result = dots + "".join(
            sorted(letter for letter in set(counts) if counts.count(letter) == 1)
        )
    if len(set(result)) != len(result) or not set(result) <= set("".join(found)):
        raise _refused(f"einsum: {equation!r} has no such result", *tensors)
    _check_sizes(equation, found, tensors)
    return found, result


def _check_sizes(equation: str, terms: Sequence[str], tensors: Sequence[Tensor]) -> None:
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, tensors, strict=True):
        for letter, size in zip(term, tensor.shape, strict=True):
            if 1 not in (size, sizes.get(letter, size)) and sizes.get(letter, size) != size:
                message = f"einsum: {letter} is {sizes[letter]} and {size} in {equation!r}"
                raise _refused(message, *tensors)
            sizes[letter] = max(sizes.get(letter, size), size) if size else 0


def _without_repeats(term: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Take diagonals until no letter stands twice."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            first = term.index(letter)
            second = term.index(letter, first + 1)
            tensor = diagonal(tensor, first, second)
            term = term[:first] + term[first + 1 : second] + term[second + 1 :] + letter
    return term, tensor


def _summed(term: str, tensor: Tensor, kept: set[str]) -> tuple[str, Tensor]:
    axes = tuple(axis for axis, letter in enumerate(term) if letter not in kept)
    if not axes:
        return term, tensor
    return "".join(letter for letter in term if letter in kept), reduce_sum(tensor, axes=axes)


def _ordered(term: str, tensor: Tensor, wanted: str) -> Tensor:
    if term == wanted:
        return tensor
    result: Tensor = movement.permute(tensor, axes=tuple(term.index(each) for each in wanted))
    return result


def _contracted(
    first: tuple[str, Tensor], second: tuple[str, Tensor], later: set[str]
) -> tuple[str, Tensor]:
    """Return the product of two operands, summed over letters that nothing needs later."""
    a, x = _summed(*first, later | set(second[0]))
    b, y = _summed(*second, later | set(a))
    first_sizes, second_sizes = _sizes(a, x), _sizes(b, y)
    sizes = {letter: first_sizes.get(letter, 1) for letter in a + b}
    sizes |= {letter: size for letter, size in second_sizes.items() if sizes[letter] == 1}
    x, y = _widened(a, x, b, sizes), _widened(b, y, a, sizes)
    both = [letter for letter in a if letter in b]
    batch = [letter for letter in both if letter in later]
    inner = [letter for letter in both if letter not in later]
    rows = [letter for letter in a if letter not in b]
    columns = [letter for letter in b if letter not in a]
    if not inner and not (rows and columns) and x.dtype is not None:
        return _elementwise(a, x, b, y)
    if not x.dtype.is_float:
        letters = "".join([*batch, *rows, *columns, *inner])
        term, product = _elementwise(a, x, b, y)
        return _summed(term, product, set(letters) - set(inner))
    left = movement.reshape(
        _ordered(a, x, "".join([*batch, *rows, *inner])),
        shape=(*(sizes[each] for each in batch), _size(rows, sizes), _size(inner, sizes)),
    )
    right = movement.reshape(
        _ordered(b, y, "".join([*batch, *inner, *columns])),
        shape=(*(sizes[each] for each in batch), _size(inner, sizes), _size(columns, sizes)),
    )
    letters = "".join([*batch, *rows, *columns])
    product = matmul(left, right)
    return letters, movement.reshape(product, shape=tuple(sizes[each] for each in letters))


def _sizes(term: str, tensor: Tensor) -> dict[str, int]:
    return dict(zip(term, tensor.shape, strict=True))


def _size(letters: Sequence[str], sizes: dict[str, int]) -> int:
    return prod(sizes[letter] for letter in letters)


def _widened(term: str, tensor: Tensor, other: str, sizes: dict[str, int]) -> Tensor:
    """Repeat axes of size 1 that are wider in the other operand."""
    shape = tuple(sizes[each] if each in other else n for each, n in _sizes(term, tensor).items())
    if shape == tensor.shape:
        return tensor
    result: Tensor = movement.broadcast(tensor, shape=shape)
    return result


def _elementwise(a: str, x: Tensor, b: str, y: Tensor) -> tuple[str, Tensor]:
    """Return the product of operands with all letters kept."""
    letters = a + "".join(letter for letter in b if letter not in a)
    aligned = []
    for term, tensor in ((a, x), (b, y)):
        own = [letter for letter in letters if letter in term]
        ordered = _ordered(term, tensor, "".join(own))
        shape = tuple(_sizes(term, tensor).get(letter, 1) for letter in letters)
        aligned.append(movement.reshape(ordered, shape=shape))
    return letters, aligned[0] * aligned[1]


METHODS = (diagonal, roll)
