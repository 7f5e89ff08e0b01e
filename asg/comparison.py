"""A device's array beside its yardstick: right, wrong, or beyond what f32 can tell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from asg.tolerances import EPSILON, MEANINGLESS, SAFETY, STORED, TINY, half_step
from asg.types import DType, TensorType, is_floating

Array = np.ndarray[Any, Any]
Verdict = Literal["right", "undecided", "wrong"]

_MANY = 0.1  # of the elements; when so many are undecided, the tensor is


@dataclass(frozen=True)
class Yardstick:
    """What one value should be, and how sure that is.

    `exact` is its reference, of narrow types before it is rounded, `single` what NumPy gets in
    float32. `spread` is how far disturbed runs (`asg.yardstick`) were from the reference at most;
    of values that are no floats, whether they changed.
    """

    exact: Array
    single: Array
    spread: Array


@dataclass(frozen=True)
class Difference:
    """How one value differs from its reference; `index` is where it does so most.

    `error` and `allowed` are those of that element. `undecided` elements are visibly off, but not
    by more than rounding may do to them: the computation is ill-conditioned there.
    """

    name: str
    type: str
    verdict: Verdict
    elements: int
    wrong: int
    undecided: int
    index: tuple[int, ...]
    got: float
    expected: float
    error: float
    allowed: float

    @property
    def is_wrong(self) -> bool:
        return self.verdict == "wrong"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; what JSON has no number for is text."""
        fields = asdict(self)
        for key in ("got", "expected", "error", "allowed"):
            if not np.isfinite(fields[key]):
                fields[key] = str(fields[key])
        return {**fields, "index": list(self.index)}

    def __str__(self) -> str:
        if self.elements == 0:
            return f"{self.name}: {self.type}, nothing to compare"
        place = f" at {list(self.index)}" if self.index else ""
        text = f"{self.name}: {self.type}"
        if self.verdict == "wrong":
            text += (
                f", {self.wrong} of {self.elements} elements wrong; got {self.got:.9g}, "
                f"expected {self.expected:.9g}{place} (off by {self.error:.3g}, "
                f"allowed {self.allowed:.3g})"
            )
        else:
            text += f", largest error {self.error:.3g}{place} (allowed {self.allowed:.3g})"
        if self.undecided:
            text += f"; {self.undecided} of {self.elements} elements too ill-conditioned to tell"
        return text


def compare(name: str, type_: TensorType, got: Array, yardstick: Yardstick) -> Difference:
    """Return how `got` differs from what it should be; floats may be in double precision."""
    is_fitting = (
        is_floating(got) if type_.dtype.is_float else (got.dtype.kind == type_.dtype.numpy.kind)
    )
    if got.shape != type_.shape or not is_fitting:
        raise ValueError(f"{name} is {type_}, got {got.dtype}{list(got.shape)}")
    if type_.size == 0:
        return Difference(name, str(type_), "right", 0, 0, 0, (), 0.0, 0.0, 0.0, 0.0)
    judge = _judge_floats if type_.dtype.is_float else _judge_others
    error, allowed, wrong, undecided = judge(got, yardstick, type_.dtype)
    with np.errstate(all="ignore"):
        ratio = np.where(wrong, np.inf, np.nan_to_num(error / np.maximum(allowed, TINY)))
        # Among the wrong ones the largest error is the most telling.
        ratio = np.where(wrong & wrong.any(), 1e300 + np.nan_to_num(error, nan=np.inf), ratio)
    place = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    verdict: Verdict = "right"
    if wrong.any():
        verdict = "wrong"
    elif np.count_nonzero(undecided) > _MANY * type_.size:
        verdict = "undecided"
    return Difference(
        name=name,
        type=str(type_),
        verdict=verdict,
        elements=type_.size,
        wrong=int(np.count_nonzero(wrong)),
        undecided=int(np.count_nonzero(undecided)),
        index=tuple(int(position) for position in place),
        got=float(got[place]),
        expected=float(yardstick.exact[place]),
        error=float(error[place]),
        allowed=float(allowed[place]),
    )


def exactly(array: Array) -> Yardstick:
    """Return the yardstick of what is only moved."""
    if is_floating(array):
        return Yardstick(array.astype(np.float64), array, np.zeros(array.shape))
    return Yardstick(array, array, np.zeros(array.shape, np.bool_))


Judged = tuple[Array, Array, Array, Array]  # error, allowed, wrong, undecided


def _judge_others(got: Array, yardstick: Yardstick, _: DType) -> Judged:
    """Judge integers and bools: equal, unless rounding decides what they are."""
    differs = got != yardstick.single
    error = np.abs(got.astype(np.float64) - yardstick.single.astype(np.float64))
    wrong = differs & ~yardstick.spread
    return error, np.zeros(got.shape), wrong, differs & yardstick.spread


def _judge_floats(got: Array, yardstick: Yardstick, dtype: DType) -> Judged:
    exact, single = yardstick.exact, yardstick.single.astype(np.float64)
    wide = got.astype(np.float64)
    with np.errstate(all="ignore"):
        allowed = SAFETY * (yardstick.spread + EPSILON * np.abs(exact) + TINY)
        if dtype.is_narrow:  # of a number that is not rounded yet
            allowed += half_step(exact, dtype)
        allowed = np.where(np.isfinite(exact), allowed, 0.0)
        error = np.abs(wide - exact)
        is_near = error <= allowed
    is_same = (wide == single) | (np.isnan(wide) & np.isnan(single))
    error = np.where(is_same & ~np.isfinite(single), 0.0, error)
    # An infinite spread says that some of the reference runs overflow or lose their number here.
    is_unsure = ~np.isfinite(yardstick.spread)
    wrong = ~(is_same | is_near | is_unsure) | (np.isnan(wide) & ~np.isnan(single) & ~is_unsure)
    # Half the distance of neighbours is no flaw.
    meaningless = max(MEANINGLESS, 4 * STORED[dtype][0])
    undecided = ~wrong & ~is_same & ~(error <= meaningless * _sizes(exact))
    return error, allowed, wrong, undecided


def _sizes(exact: Array) -> Array:
    """Return what an error in an element is to be compared with: it, and those around it."""
    finite = np.where(np.isfinite(exact), exact, 0.0)
    typical = np.sqrt(np.mean(finite * finite))
    # Below this a device that flushes small numbers to zero has none left to compare.
    sizes: Array = np.maximum(np.maximum(np.abs(finite), typical), 1e3 * TINY)
    return sizes
