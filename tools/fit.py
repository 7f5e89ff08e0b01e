"""Compute the polynomials of shaders/helpers/ whose comments name this script: minimax fits.

Prints f32 coefficients, the constant first, and the fit's largest error before rounding. All is
computed in float64 by the exchange algorithm on a fine grid, in a Chebyshev basis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial, chebyshev

Array = np.ndarray[Any, Any]

_erfc = np.vectorize(math.erfc, otypes=[np.float64])
POINTS = 8001


def exchange(basis: Array, wanted: Array) -> tuple[float, Array]:
    """Return the least largest error of a combination of `basis` columns, and the combination."""
    count = basis.shape[1]
    turns = (1 - np.cos(np.pi * np.arange(count + 1) / count)) / 2
    chosen = np.round(turns * (len(wanted) - 1)).astype(int)
    best = (np.inf, np.zeros(count))
    for _ in range(60):
        signs = (-1.0) ** np.arange(count + 1)
        solved = np.linalg.solve(np.hstack([basis[chosen], signs[:, None]]), wanted[chosen])
        error = basis @ solved[:-1] - wanted
        largest = float(np.abs(error).max())
        best = min(best, (largest, solved[:-1]), key=lambda each: each[0])
        runs = np.split(np.arange(len(error)), np.nonzero(np.diff(np.sign(error)))[0] + 1)
        peaks = [run[np.argmax(np.abs(error[run]))] for run in runs]
        while len(peaks) > count + 1:
            peaks = peaks[1:] if abs(error[peaks[0]]) < abs(error[peaks[-1]]) else peaks[:-1]
        if largest <= abs(solved[-1]) * 1.0005 or len(peaks) <= count:
            break
        chosen = np.array(peaks)
    return best


def fit(
    wanted: Callable[[Array], Array],
    weight: Callable[[Array], Array],
    variable: Callable[[Array], Array],
    interval: tuple[float, float],
    count: int,
) -> tuple[float, Array]:
    """Fit weight(t) p(variable(t)) to weight(t) wanted(t) for t of the interval; p has `count`
    coefficients."""
    low, high = interval
    t = low + (high - low) * (1 - np.cos(np.linspace(1e-3, np.pi - 1e-3, POINTS))) / 2
    u = variable(t)
    middle, half = (u.max() + u.min()) / 2, (u.max() - u.min()) / 2
    basis = chebyshev.chebvander((u - middle) / half, count - 1) * weight(t)[:, None]
    error, found = exchange(basis, weight(t) * wanted(t))
    series = Chebyshev(found, domain=[middle - half, middle + half])
    return error, np.asarray(series.convert(kind=Polynomial).coef)


def below(x: Array) -> Array:
    """Return the normal distribution's probability of being above |x|."""
    result: Array = 0.5 * _erfc(np.abs(x) * math.sqrt(0.5))
    return result


def above_tanh(x: Array) -> Array:
    """Return the same where the probability is approximated by tanh."""
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    result: Array = 1 / (1 + np.exp(2 * inner))
    return result


def log_odds(count: int) -> tuple[float, Array]:
    """Fit p(x²) = log2((1 - P) / P) / x, so that P(x) = 1 / (1 + 2^(x p))."""

    def weight(x: Array) -> Array:
        result: Array = below(x) * (1 - below(x)) * math.log(2) * x
        return result

    return fit(lambda x: np.log2(below(x) / (1 - below(x))) / x, weight, np.square, (0, 6.5), count)


def power(count: int) -> tuple[float, Array]:
    """Fit p(r) = (2^r - 1) / r for |r| <= 1/2, relatively to 2^r."""
    return fit(
        lambda r: np.expm1(r * math.log(2)) / r,
        lambda r: r * np.exp2(-r),
        lambda r: r,
        (-0.5, 0.5),
        count,
    )


def centred(tail: Callable[[Array], Array], end: float, count: int) -> tuple[float, Array]:
    """Fit p(x² - end²/2) = (P - 1/2) / x up to `end`, where P is 1 but for as much as the fit
    is wrong."""
    return fit(
        lambda x: (0.5 - tail(x)) / x,
        lambda x: x,
        lambda x: x * x - end * end / 2,
        (0, end),
        count,
    )


def erf(end: float, count: int) -> tuple[float, Array]:
    """Fit p(x² - end²/2) = erf(x) / x up to `end`, relatively."""

    def wanted(x: Array) -> Array:
        result: Array = (1 - _erfc(x)) / x
        return result

    return fit(wanted, lambda x: 1 / wanted(x), lambda x: x * x - end * end / 2, (0, end), count)


def tanh(end: float, above: int, under: int) -> tuple[float, Array]:
    """Fit x p(x²) / q(x²) to tanh up to `end`, relatively; the coefficients of p come first, then
    those of q without its constant 1. Each round weighs by the denominator of the one before."""
    x = end * (1 - np.cos(np.linspace(1e-3, np.pi, POINTS))) / 2
    z, size = (x / end) ** 2, end * end
    scale = np.array([size**i for i in (*range(above), *range(1, under + 1))])
    best, below_ = (np.inf, np.zeros(above + under)), np.ones_like(x)
    for _ in range(30):
        weight = 1 / (np.tanh(x) * below_)
        columns = [x * z**i * weight for i in range(above)]
        columns += [-np.tanh(x) * z**i * weight for i in range(1, under + 1)]
        found = exchange(np.stack(columns, axis=1), 1 / below_)[1]
        below_ = 1 + sum(c * z**i for i, c in enumerate(found[above:], start=1))
        over = sum(c * z**i for i, c in enumerate(found[:above]))
        error = float(np.abs(x * over / below_ / np.tanh(x) - 1).max())
        best = min(best, (error, found / scale), key=lambda each: each[0])
    return best


FITS: dict[str, Callable[[], tuple[float, Array]]] = {
    "asg_gelu: log odds": lambda: log_odds(7),
    "asg_gelu, asg_gelu_tanh: (2^r - 1) / r": lambda: power(6),
    "fast/asg_gelu": lambda: centred(below, 4.1, 8),
    "fast/asg_gelu_tanh": lambda: centred(above_tanh, 4.0, 8),
    "fast/asg_exp, fast/asg_exp2, fast/asg_sigmoid: (2^r - 1) / r": lambda: power(4),
    "fast/asg_erf": lambda: erf(3.0, 9),
    "fast/asg_tanh": lambda: tanh(7.0, 4, 3),
}


def main() -> None:
    """Print every fit."""
    for name, made in FITS.items():
        error, found = made()
        print(f"{name}: {error:.2e}")
        print("   ", ", ".join(repr(float(np.float32(each))) for each in found))


if __name__ == "__main__":
    main()
