"""Where gradients are not PyTorch's on purpose, and why. All others are (tests/parity).

`docs/gradients.md` prints this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

NAN, INF = math.nan, math.inf


@dataclass(frozen=True)
class Departure:
    """What `asg` does otherwise, where.

    `cases` are those of the tests: by name, then by what they compute, the elements (numbered in
    row-major order) that differ from PyTorch's, and what they are here.
    """

    functions: tuple[str, ...]
    where: str
    pytorch: str
    here: str
    reason: str
    cases: Mapping[str, Mapping[str, Mapping[int, float]]]


DEPARTURES = (
    Departure(
        ("sign", "abs"), "NaN", "`sign` is 0, and so is the gradient of `abs`", "both are NaN",
        "NumPy's sign of NaN is NaN, and a gradient of 0 would hide where a number was lost",
        {"sign.special": {"y0": {13: NAN}}, "abs.special": {"x.grad": {13: NAN}}},
    ),
    Departure(
        ("clip",), "NaN", "0", "that of the result",
        "NaN passes the bounds unchanged, and its cotangent comes back so",
        {"clip.borders": {"x.grad": {5: -1.0625}}},
    ),
    Departure(
        ("max", "min"), "rows with a NaN", "NaN for the whole row", "0",
        "no element equals NaN, so none has a part in it; the result itself is NaN",
        {
            "max.nan": {"x.grad": {0: 0.0, 1: 0.0, 2: 0.0}},
            "min.nan": {"x.grad": {0: 0.0, 1: 0.0, 2: 0.0}},
        },
    ),
    Departure(
        ("logsumexp",), "rows with +infinity", "0 for elements that are less", "NaN",
        "it is softmax, which both make NaN in such a row",
        {"logsumexp.inf": {"x.grad": {4: NAN, 5: NAN, 8: NAN}}},
    ),
    Departure(
        ("acosh",), "-1, where it has no value", "infinity with the cotangent's sign",
        "infinity with the other sign",
        "x² - 1 is computed as (x - 1)(x + 1), which keeps its digits near 1",
        {"acosh.special": {"x.grad": {3: -INF}}},
    ),
)  # fmt: skip
