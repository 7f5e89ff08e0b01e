"""Measure how far the shaders of elementwise functions are from exact arithmetic, on this device.

Prints a table of the largest errors in units in the last place (ulp) beside what
`asg.tolerances` promises; with --write it goes into docs/numerics.md, between the marks. The
reference is float64. Fails where a promise is broken.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import asg
from asg.ops import TABLE
from asg.tolerances import (
    ACCURACY,
    COMPOSED,
    FAST,
    FAST_COMPOSED,
    NUMERICS,
    Accuracy,
    Numerics,
)

Array = np.ndarray[Any, Any]

PAGE = Path(__file__).resolve().parent.parent / "docs" / "numerics.md"
BEGIN: Mapping[Numerics, str] = {
    "precise": "<!-- Measured by tools/ulp.py --write. -->\n",
    "fast": "<!-- Measured by tools/ulp.py --write: fast. -->\n",
}
END = "<!-- End of what is measured. -->\n"

TINY = 2.0**-126  # the least normal f32
LARGEST = 2.0**128  # what infinity counts as where the other number is finite

# Uniform points in these intervals, beside those of every exponent and around the edges.
INTERVALS = (
    (-1.0, 1.0), (0.5, 2.0), (-10.0, 10.0), (-104.0, 89.0), (-1000.0, 1000.0), (-32768.0, 32768.0),
)  # fmt: skip

# Around each of these (and its negative) the nearest f32 numbers on both sides.
EDGES = (
    0.0, TINY, 2.0**-24, 0.5, math.sqrt(0.5), 1.0, math.sqrt(2), 2.0, 4.0, 8.664339, 9.01, 17.33,
    18.0, 86.9, 87.33655, 88.02969, 88.37626, 88.72284, 103.97208, 32768.0, 2.0**23, 2.0**31,
    3.4e38, *(math.log(2) * (k + 0.5) for k in range(8)),
)  # fmt: skip
NEIGHBOURS = 64
QUARTER_TURNS = 20_000  # multiples of pi / 2, where sine, cosine and tangent are hardest


@dataclass(frozen=True)
class Subject:
    """A function to measure: as a graph builds it, and exactly in float64."""

    name: str
    build: Callable[..., asg.Tensor]
    exact: Callable[..., Array]
    accuracy: Accuracy
    operands: int = 1


@dataclass(frozen=True)
class Finding:
    """The largest error of a subject, and where it is."""

    subject: Subject
    ulp: float
    operands: tuple[float, ...]
    found: float
    exact: float

    @property
    def holds(self) -> bool:
        return self.ulp <= self.subject.accuracy.ulp


def _erfc(x: Array) -> Array:
    result: Array = np.vectorize(math.erfc, otypes=[np.float64])(x)
    return result


def _gelu_tanh(x: Array) -> Array:
    """0.5 x (1 + tanh(u)) = x / (1 + exp(-2u)), which does not cancel."""
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return np.where(np.isneginf(x), np.nan, x / (1 + np.exp(-2 * inner)))


def _gelu(x: Array) -> Array:
    return np.where(np.isneginf(x), np.nan, 0.5 * x * _erfc(-x * math.sqrt(0.5)))


def _silu(x: Array) -> Array:
    return np.where(np.isneginf(x), np.nan, x / (1 + np.exp(-x)))


def subjects(numerics: Numerics = "precise") -> list[Subject]:
    """Return every function that something is promised about, in the mode."""
    promised = FAST if numerics == "fast" else ACCURACY
    made = FAST_COMPOSED if numerics == "fast" else COMPOSED
    composed: Mapping[str, tuple[Callable[..., asg.Tensor], Callable[..., Array]]] = {
        "square": (asg.square, np.square),
        "relu": (asg.relu, partial(np.maximum, 0.0)),
        "silu": (asg.silu, _silu),
        "softplus": (asg.softplus, partial(np.logaddexp, 0.0)),
    }
    exact = {"gelu": _gelu, "gelu_tanh": _gelu_tanh}  # NumPy's formulas cancel
    names = [name for name in promised if name not in ("select", "stop_gradient")]
    return [
        *(
            Subject(
                name, TABLE[name], exact.get(name, TABLE[name].numpy), promised[name], _arity(name)
            )
            for name in names
        ),
        *(Subject(name, *composed[name], accuracy) for name, accuracy in made.items()),
    ]


def _arity(name: str) -> int:
    return len(TABLE[name].samples[0].types)


def points(per_exponent: int, uniform: int, seed: int = 0) -> Array:
    """Return f32 numbers of every sign and exponent, infinity and NaN included, and of the
    intervals and edges above."""
    chance = np.random.default_rng(seed)
    mantissas = chance.integers(0, 1 << 23, (512, per_exponent), np.uint32)
    mantissas[:, :3] = (0, 1, 0x7FFFFF)
    words = (np.arange(512, dtype=np.uint32)[:, None] << 23) | mantissas
    parts = [words.reshape(-1).view(np.float32)]
    parts += [chance.uniform(*interval, uniform).astype(np.float32) for interval in INTERVALS]
    edges = np.array(EDGES, np.float32).view(np.uint32).astype(np.int64)
    near = np.maximum(edges[:, None] + np.arange(-NEIGHBOURS, NEIGHBOURS + 1), 0)
    positive = near.astype(np.uint32).view(np.float32).reshape(-1)
    turns = (np.arange(1, min(uniform, QUARTER_TURNS)) * (math.pi / 2)).astype(np.float32)
    return np.concatenate([*parts, positive, -positive, turns, np.nextafter(turns, np.float32(0))])


def operands_of(subject: Subject, points_: Array, seed: int = 1) -> tuple[Array, ...]:
    """Return operands; of two, the second is a shuffled first, or near it in size."""
    if subject.operands == 1:
        return (points_,)
    chance = np.random.default_rng(seed)
    other = chance.permutation(points_)
    with np.errstate(all="ignore"):
        near = (points_ * chance.uniform(-2, 2, points_.size)).astype(np.float32)
    base = np.exp2(chance.uniform(-3, 3, points_.size)).astype(np.float32)
    power = (chance.uniform(-126, 126, points_.size) / np.log2(base)).astype(np.float32)
    first = np.concatenate([points_, points_, base])
    return first, np.concatenate([other, near, power])


def errors(found: Array, exact: Array, scale: Array, least: float = TINY) -> Array:
    """Return errors in ulp of `scale`; what is below `least` may be taken as 0."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
        is_same = (found == exact) | (found == rounded) & np.isinf(rounded)
        is_same |= np.isnan(found) & np.isnan(rounded)
        bound = np.clip(exact, -LARGEST, LARGEST)
        value = np.clip(found.astype(np.float64), -LARGEST, LARGEST)
        size = np.clip(np.abs(scale), TINY, LARGEST / 2).astype(np.float32)
        error = np.abs(value - bound) / np.spacing(size).astype(np.float64)
    is_flushed = (np.abs(exact) < least) & (np.abs(value) <= least)
    error = np.where(is_same | is_flushed, 0.0, error)
    return np.where(np.isnan(error), np.inf, error)


def run(
    subject: Subject,
    operands: tuple[Array, ...],
    schedule: str | None = None,
    numerics: Numerics = "precise",
) -> Array:
    """Compute a function of whole vectors on the device."""
    specs = [asg.spec(each.shape) for each in operands]
    graph = asg.trace(lambda *x: {"y": subject.build(*x)}, *specs)
    names = list(graph.input_names("input"))
    with asg.compile(graph, schedule=schedule, numerics=numerics) as executable:
        return np.asarray(executable(dict(zip(names, operands, strict=True)))["y"])


def measure(
    subject: Subject,
    operands: tuple[Array, ...],
    schedule: str | None = None,
    numerics: Numerics = "precise",
) -> Finding:
    """Return the largest error over four lanes at once and, by an odd length, over single ones."""
    whole = operands[0].size // 4 * 4
    worst: Finding | None = None
    for count in (whole, whole - 1):
        given = tuple(each[:count] for each in operands)
        found = run(subject, given, schedule, numerics)
        with np.errstate(all="ignore"):
            exact = np.asarray(subject.exact(*(each.astype(np.float64) for each in given)))
        largest = np.max(np.abs(given), axis=0)
        scale = np.maximum(np.abs(exact), largest) if subject.accuracy.of_operand else exact
        ulps = errors(found, exact, scale, subject.accuracy.least)
        at = int(np.argmax(ulps))
        place = tuple(float(each[at]) for each in given)
        finding = Finding(subject, float(ulps[at]), place, float(found[at]), float(exact[at]))
        if worst is None or finding.ulp > worst.ulp:
            worst = finding
    assert worst is not None
    return worst


def sweep(per_exponent: int, uniform: int, numerics: Numerics) -> Iterator[Finding]:
    """Measure every function over the same points."""
    drawn = points(per_exponent, uniform)
    for subject in subjects(numerics):
        yield measure(subject, operands_of(subject, drawn), numerics=numerics)


def table(findings: list[Finding]) -> str:
    """Return what was found as a Markdown table."""
    lines = [
        "| function | promised | WGSL may add | measured | at |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in findings:
        accuracy = each.subject.accuracy
        unit = " of x" if accuracy.of_operand else ""
        place = ", ".join(f"{operand:.9g}" for operand in each.operands) if each.ulp else ""
        added = f"{accuracy.allowance:g}" if accuracy.allowance else ""
        lines.append(
            f"| `{each.subject.name}` | {accuracy.ulp:g}{unit} | {added} "
            f"| {each.ulp:.2f} | {place} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print, and write where that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/numerics.md")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the points")
    parser.add_argument("--numerics", choices=NUMERICS, help="only this mode")
    options = parser.parse_args()
    counts = (32, 1 << 12) if options.quick else (2048, 1 << 18)
    modes = NUMERICS if options.numerics is None else (options.numerics,)
    kept = [_measured(mode, counts, options.write) for mode in modes]
    return 0 if all(kept) else 1


def _measured(numerics: Numerics, counts: tuple[int, int], is_written: bool) -> bool:
    """Measure the functions of a mode; tell whether all promises hold."""
    findings = []
    for finding in sweep(*counts, numerics):
        findings.append(finding)
        mark = "" if finding.holds else "   BROKEN"
        print(f"{finding.subject.name:12} {finding.ulp:8.3f}{mark}", flush=True)
    if is_written:
        begin = BEGIN[numerics]
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
        _, _, tail = rest.partition(END)
        PAGE.write_text(f"{head}{begin}\n{table(findings)}\n{END}{tail}", encoding="utf-8")
    else:
        print(table(findings))
    return all(finding.holds for finding in findings)


if __name__ == "__main__":
    sys.exit(main())
