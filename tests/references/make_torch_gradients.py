"""Write PyTorch's gradients and second derivatives of what is differentiable in `asg`, as
gradients.npz.

Run it where torch 2.13.0 is installed: `python tests/references/make_torch_gradients.py`. All is
computed in float64, from numbers that f32 holds. A case is named after the function or the op that
it is about; what follows a dot tells cases apart. Keys are `case/field`: operands `x` (and
others), results `y0`, `y1` …, their cotangents `w0`, `w1` …, and gradients `x.grad` of the sum of
all results times cotangents; then directions `x.dir`, and `x.second`, the gradients of the sum of
all `x.grad` times `x.dir`, where they are not all zero. Without directions a case has no second
derivatives.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

HERE = Path(__file__).parent
Array = np.ndarray
Draw = Callable[[np.random.Generator], Array]
INF, NAN = math.inf, math.nan


@dataclass(frozen=True)
class Case:
    function: Callable[..., Any]
    operands: dict[str, Draw]
    second: bool = True


CASES: dict[str, Case] = {}


def case(name: str, function: Callable[..., Any], second: bool = True, **operands: Any) -> None:
    assert name not in CASES, name
    draws = {key: one if callable(one) else given(one) for key, one in operands.items()}
    CASES[name] = Case(function, draws, second)


def between(low: float, high: float, *shape: int) -> Draw:
    """Multiples of 1/64, none of them whole, so that kinks at whole numbers are not met."""

    def draw(chance: np.random.Generator) -> Array:
        steps = chance.integers(math.ceil(low * 64), math.floor(high * 64) + 1, shape)
        return ((steps | 1) / 64).astype(np.float32)

    return draw


def normal(*shape: int) -> Draw:
    return between(-2.0, 2.0, *shape)


def distinct(*shape: int) -> Draw:
    """No two elements alike."""
    count = math.prod(shape)
    return lambda chance: (
        ((chance.permutation(count) * 2 - count) | 1).reshape(shape) / 16
    ).astype(np.float32)


def ties(*shape: int) -> Draw:
    return lambda chance: chance.integers(-2, 3, shape).astype(np.float32)


def whole(low: int, high: int, *shape: int) -> Draw:
    """Integers from low to before high."""
    return lambda chance: chance.integers(low, high, shape).astype(np.int32)


def truth(*shape: int) -> Draw:
    return lambda chance: chance.random(shape) < 0.6


def given(values: Any) -> Draw:
    array = np.asarray(values)
    array = array.astype(np.float32) if array.dtype.kind == "f" else array
    array = array.astype(np.int32) if array.dtype == np.int64 else array
    return lambda chance: array


# -- elementwise functions of one operand

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -30.0, 30.0, 100.0, -100.0, 1e4, -1e4, INF, -INF, NAN]
UNARY: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {
    "neg": (torch.neg, -2, 2),
    "abs": (torch.abs, -2, 2),
    "exp": (torch.exp, -2, 2),
    "log": (torch.log, 0.25, 4),
    "log1p": (torch.log1p, -0.75, 4),
    "expm1": (torch.expm1, -2, 2),
    "sqrt": (torch.sqrt, 0.25, 4),
    "rsqrt": (torch.rsqrt, 0.25, 4),
    "reciprocal": (torch.reciprocal, 0.25, 4),
    "sin": (torch.sin, -4, 4),
    "cos": (torch.cos, -4, 4),
    "tan": (torch.tan, -1.25, 1.25),
    "tanh": (torch.tanh, -2, 2),
    "sigmoid": (torch.sigmoid, -2, 2),
    "erf": (torch.erf, -2, 2),
    "asin": (torch.asin, -0.9, 0.9),
    "acos": (torch.acos, -0.9, 0.9),
    "atan": (torch.atan, -2, 2),
    "sinh": (torch.sinh, -2, 2),
    "cosh": (torch.cosh, -2, 2),
    "asinh": (torch.asinh, -2, 2),
    "acosh": (torch.acosh, 1.25, 4),
    "atanh": (torch.atanh, -0.9, 0.9),
    "square": (torch.square, -2, 2),
    "relu": (torch.relu, -2, 2),
    "gelu": (F.gelu, -3, 3),
    "gelu.tanh": (lambda x: F.gelu(x, approximate="tanh"), -3, 3),
    "gelu.op": (F.gelu, -3, 3),
    "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), -3, 3),
    "silu": (F.silu, -3, 3),
    "softplus": (F.softplus, -3, 3),
    "sign": (torch.sign, -2, 2),
    "floor": (torch.floor, -2, 2),
    "ceil": (torch.ceil, -2, 2),
    "round": (torch.round, -2, 2),
    "trunc": (torch.trunc, -2, 2),
}
for name, (function, low, high) in UNARY.items():
    case(name, function, x=between(low, high, 11))
    parts = name.split(".")
    case(".".join([*parts, "special"]), function, second=False, x=SPECIAL)
case("abs.zero", torch.abs, x=[0.0, -0.0, 2.0])
case("relu.zero", torch.relu, x=[0.0, -0.0, 2.0, -2.0])
case("softplus.zero", F.softplus, x=[0.0, -0.0])
case("gelu.zero", F.gelu, x=[0.0, -0.0])
case("stop_gradient", lambda x: x.detach() * x, x=normal(5))
case("copy", lambda x: x.clone() * x, x=normal(5))
case("cast", lambda x: x * x, x=[0.5, -1.5, 2.0])

# -- two operands

for name, function in {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}.items():
    case(name, function, x=normal(3, 4), y=normal(3, 4))
    case(f"{name}.broadcast", function, x=normal(3, 1), y=normal(2, 1, 4))
    case(f"{name}.ties", function, x=ties(4, 5), y=ties(4, 5))
    special = [[a for a in SPECIAL for _ in SPECIAL], [b for _ in SPECIAL for b in SPECIAL]]
    case(f"{name}.special", function, second=False, x=special[0], y=special[1])
case("true_divide", torch.true_divide, x=normal(3, 4), y=between(0.25, 2, 4))
case("true_divide.zero", torch.true_divide, x=[0.0, 1.0, 2.0], y=[0.0, 0.0, -4.0])
case("remainder", torch.remainder, x=between(-9, 9, 13), y=[-2.25] * 6 + [1.75] * 7)
case("fmod", torch.fmod, x=between(-9, 9, 13), y=[-2.25] * 6 + [1.75] * 7)
case("pow", torch.pow, x=between(0.25, 3, 3, 4), y=between(-2, 3, 3, 4))
BASES = [0.0, 2.0, -2.0, -1.5]
POWERS = [0.0, 1.0, 2.0, 3.0, -1.0, 0.5]
PAIRS = list(itertools.product(BASES, POWERS))
case(
    "pow.borders", torch.pow, second=False,
    x=[a for a, _ in PAIRS], y=[b for _, b in PAIRS],
)  # fmt: skip
case("pow.inf", torch.pow, second=False, x=[INF, -INF, NAN, INF, 3.0], y=[0.0, 0.0, 0.0, 2.0, INF])
for power in (0, 1, 2, 3, 4, 7, -1, -2, 0.5, -0.5, 2.5):
    spelt = f"pow.by_{power}".replace("-", "minus_").replace("by_0.5", "by_half")
    case(spelt.replace("_2.5", "_five_halves").replace("_0.5", "_half"),
         lambda x, power=power: torch.pow(x, power), x=between(0.25, 2, 5))  # fmt: skip
for power in (0, 1, 2, 3):
    case(f"pow.zero_by_{power}", lambda x, power=power: torch.pow(x, power), x=[0.0, -2.0])
case("where", torch.where, c=truth(3, 4), x=normal(3, 4), y=normal(4))
case(
    "where.nan_not_taken",
    lambda x: torch.where(x > 0, torch.sqrt(x), torch.zeros_like(x)),
    second=False, x=[1.0, 4.0, -1.0, 0.0],
)  # fmt: skip
case(
    "where.twice",
    lambda x: torch.where(x > 0, torch.sqrt(torch.where(x > 0, x, 1.0)), torch.zeros_like(x)),
    x=[1.0, 4.0, -1.0, 0.0],
)
case("clip", lambda x: torch.clamp(x, -1, 1), x=normal(9))
case("clip.borders", lambda x: torch.clamp(x, -1, 1), x=[-2.0, -1.0, 0.0, 1.0, 2.0, NAN, INF])
case("clip.low", lambda x: torch.clamp(x, min=-1), x=[-2.0, -1.0, 0.0])
case("clip.high", lambda x: torch.clamp(x, max=1), x=[0.0, 1.0, 2.0])
case(
    "clip.tensors", torch.clamp,
    x=[-2.0, -1.0, 0.0, 1.0, 2.0], low=[-1.0] * 5, high=[1.0] * 5,
)  # fmt: skip

# -- reductions

for name, function in {
    "sum": torch.sum,
    "mean": torch.mean,
    "max": torch.amax,
    "min": torch.amin,
}.items():
    case(name, lambda x, f=function: f(x, dim=(0, 2)), x=distinct(4, 3, 2))
    case(f"{name}.all", lambda x, f=function: f(x, dim=(0, 1)), x=distinct(4, 2))
    case(f"{name}.ties", lambda x, f=function: f(x, dim=1), x=ties(4, 5))
    case(f"{name}.kept", lambda x, f=function: f(x, dim=1, keepdim=True) * x, x=distinct(4, 3))
case("max.nan", lambda x: torch.amax(x, 1), second=False, x=[[1.0, NAN, 2.0], [INF, 1.0, INF]])
case("min.nan", lambda x: torch.amin(x, 1), second=False, x=[[1.0, NAN, 2.0], [-INF, 1.0, 5.0]])
case("mean.thirds", lambda x: torch.mean(x * x, 1), x=normal(4, 3))
case("prod", lambda x: torch.prod(x, 1), x=normal(3, 5))
case("prod.axes", lambda x: torch.prod(torch.prod(x, 2), 0), x=normal(2, 3, 2))
case("prod.all", lambda x: torch.prod(x), x=normal(2, 3))
ZEROS = [[0.0, 2.0, 3.0, -1.0], [0.0, 0.0, 3.0, 5.0], [0.0, 0.0, 0.0, 5.0], [1.0, 2.0, 3.0, 4.0]]
case("prod.zeros", lambda x: torch.prod(x, 1), x=ZEROS)
for ddof in (0, 1):
    case(f"var.less_{ddof}", lambda x, d=ddof: torch.var(x, 1, correction=d), x=normal(3, 5))
    case(f"std.less_{ddof}", lambda x, d=ddof: torch.std(x, 1, correction=d), x=normal(3, 5))
    case(
        f"var.constant_{ddof}", lambda x, d=ddof: torch.var(x, 1, correction=d),
        x=[[1.5] * 4, [0.0] * 4],
    )  # fmt: skip
    case(
        f"std.constant_{ddof}", lambda x, d=ddof: torch.std(x, 1, correction=d),
        second=False, x=[[1.5] * 4, [1.0, 2.0, 3.0, 4.0]],
    )  # fmt: skip
    case(
        f"var.one_element_{ddof}", lambda x, d=ddof: torch.var(x, 1, correction=d),
        second=False, x=[[1.5], [0.0]],
    )  # fmt: skip
    case(
        f"std.one_element_{ddof}", lambda x, d=ddof: torch.std(x, 1, correction=d),
        second=False, x=[[1.5], [0.0]],
    )  # fmt: skip
case("var.axes", lambda x: torch.var(x, (0, 2), correction=0), x=normal(3, 2, 4))
case("sqrt.norm", lambda x: torch.sqrt((x * x).sum(1)), x=normal(3, 4))
case("sqrt.norm_of_zeros", lambda x: torch.sqrt((x * x).sum(1)), second=False, x=[[0.0] * 3])
case("logsumexp", lambda x: torch.logsumexp(x, 1), x=normal(3, 5))
case("logsumexp.all", lambda x: torch.logsumexp(x, (0, 1)), x=normal(3, 5))
case("logsumexp.large", lambda x: torch.logsumexp(x, 1), x=[[1e4, 1e4, -1e4], [-1e4, -1e4, -1e4]])
case("logsumexp.ties", lambda x: torch.logsumexp(x, 1), x=ties(3, 5))
case("logsumexp.part_inf", lambda x: torch.logsumexp(x, 1), second=False, x=[[1.0, -INF, 2.0]])
INFINITE_ROWS = [[-INF] * 3, [INF, 1.0, 2.0], [INF, INF, -INF], [NAN, 1.0, 2.0]]
case("logsumexp.inf", lambda x: torch.logsumexp(x, 1), second=False, x=INFINITE_ROWS)
for name, function in {"softmax": torch.softmax, "log_softmax": torch.log_softmax}.items():
    for axis in (0, 1, 2):
        case(f"{name}.axis_{axis}", lambda x, f=function, a=axis: f(x, a), x=normal(3, 4, 2))
    case(f"{name}.ties", lambda x, f=function: f(x, 1), x=ties(3, 5))
    case(f"{name}.large", lambda x, f=function: f(x, 1), x=[[1e4, 1e4, -1e4], [0.0, 90.0, 80.0]])
    case(f"{name}.part_inf", lambda x, f=function: f(x, 1), second=False, x=[[1.0, -INF, 2.0]])
    case(f"{name}.inf", lambda x, f=function: f(x, 1), second=False, x=INFINITE_ROWS)
case(
    "softmax.axes", lambda x: torch.softmax(x.reshape(3, 8), 1).reshape(3, 4, 2), x=normal(3, 4, 2)
)
case(
    "log_softmax.axes", lambda x: torch.log_softmax(x.reshape(3, 8), 1).reshape(3, 4, 2),
    x=normal(3, 4, 2),
)  # fmt: skip

# -- running, ordering

case("cumsum", lambda x: torch.cumsum(x, 1), x=normal(2, 7, 3))
case(
    "cumsum.exclusive_reverse",
    lambda x: torch.flip(torch.cumsum(torch.flip(x, [0]), 0), [0]) - x, x=normal(6, 2),
)  # fmt: skip
case("cumprod", lambda x: torch.cumprod(x, 1), x=normal(2, 5))
case(
    "cumprod.zeros", lambda x: torch.cumprod(x, 1), x=[[2.0, 0.0, 3.0, 0.0, 5.0], [1.5, 2, 3, 0, 4]]
)
case("cummax", lambda x: torch.cummax(x, 1)[0], x=distinct(3, 7))
case("cummax.ties", lambda x: torch.cummax(x, 1)[0], x=ties(3, 9))
case("cummin", lambda x: torch.cummin(x, 0)[0], x=distinct(7, 3))
case("cummin.ties", lambda x: torch.cummin(x, 0)[0], x=ties(9, 3))


def recurrence(a: Tensor, b: Tensor) -> Tensor:
    rows = [b[:, 0]]
    for k in range(1, b.shape[1]):
        rows.append(a[:, k] * rows[-1] + b[:, k])
    return torch.stack(rows, 1)


case("linear_recurrence", recurrence, a=normal(3, 6), b=normal(3, 6))
case("linear_recurrence.zeros", recurrence, a=ties(3, 6), b=ties(3, 6))
case("sort", lambda x: torch.sort(x, dim=1, stable=True)[0] ** 2, x=distinct(3, 7))
case("sort.ties", lambda x: torch.sort(x, dim=1, stable=True)[0], x=ties(3, 9))
case(
    "sort.descending_ties",
    lambda x: torch.sort(x, dim=0, descending=True, stable=True)[0],
    x=ties(9, 2),
)
case("topk", lambda x: torch.topk(x, 3, 1)[0] ** 2, x=distinct(3, 7))
case("topk.smallest", lambda x: torch.topk(x, 2, 0, largest=False)[0], x=distinct(5, 3))

# -- views, joins

case("reshape", lambda x: torch.reshape(x, (2, 6)) ** 2, x=normal(3, 4))
case("permute", lambda x: torch.permute(x, (2, 0, 1)) ** 2, x=normal(2, 3, 4))
case("transpose", lambda x: x.mT @ x, x=normal(3, 4))
case("swapaxes", lambda x: torch.swapaxes(x, 0, 2), x=normal(2, 3, 4))
case("broadcast_to", lambda x: torch.broadcast_to(x, (2, 3, 4)) ** 2, x=normal(3, 1))
case("expand_dims", lambda x: x[:, None], x=normal(3, 4))
case("unsqueeze", lambda x: x[:, None], x=normal(3, 4))
case("squeeze", lambda x: x[:, 0], x=normal(3, 1, 4))
case("flatten", lambda x: torch.flatten(x, 1) ** 2, x=normal(2, 3, 4))
case("getitem", lambda x: x[1:, None, -1, 1::2] ** 2, x=normal(3, 4, 5))
case("getitem.array", lambda x: x[[2, 0, 2]] ** 2, x=normal(3, 4))
case("dilate", lambda x: torch.stack([x, 0 * x, 0 * x], 1).reshape(-1)[:-2] ** 2, x=normal(5))
case("flip", lambda x: torch.flip(x, [0, 2]), x=normal(2, 3, 4))
case("roll", lambda x: torch.roll(x, (2, -4), (0, 1)), x=normal(3, 7))
case("tril", lambda x: torch.tril(x, -1), x=normal(4, 5))
case("triu", lambda x: torch.triu(x, 1), x=normal(4, 5))
case("diagonal", lambda x: torch.diagonal(x, 0, 0, 2), x=normal(4, 3, 4))
case("concatenate", lambda x, y: torch.cat([x, y, x], 1) ** 2, x=normal(2, 3), y=normal(2, 1))
case("stack", lambda x, y: torch.stack([x, y, x], 1) ** 2, x=normal(2, 3), y=normal(2, 3))
case("split", lambda x: torch.split(x, [1, 3], 1), x=normal(2, 4))
case(
    "pack",
    lambda x, y: torch.cat([x.reshape(-1), torch.zeros(2).double(), y.reshape(-1)]) ** 2,
    x=normal(2, 3), y=normal(4),
)  # fmt: skip
case("full_like", lambda x: torch.full_like(x, 2.0) * x, x=normal(3))
PADS = {"constant": "constant", "edge": "replicate", "reflect": "reflect", "wrap": "circular"}
for name, mode in PADS.items():
    case(
        f"pad.{name}", lambda x, mode=mode: F.pad(x, (3, 2, 1, 2), mode) ** 2, x=normal(1, 2, 4, 5)
    )
case("pad.negative", lambda x: F.pad(x, (-1, 2)), x=normal(2, 5))
case(
    "pad.symmetric",
    lambda x: torch.cat([x[:, [1, 0]], x, x[:, [-1, -2, -3]]], 1) ** 2, x=normal(2, 4),
)  # fmt: skip
case("depth_to_space", lambda x: F.pixel_shuffle(x, 2), x=normal(1, 8, 3, 2))
case(
    "space_to_depth",
    lambda x: x.reshape(1, 2, 2, 2, 3, 2).permute(0, 3, 5, 1, 2, 4).reshape(1, 8, 2, 3),
    x=normal(1, 2, 4, 6),
)
case(
    "reverse_sequence",
    lambda x: torch.stack(
        [torch.cat([x[:n, b].flip(0), x[n:, b]]) for b, n in enumerate((3, 1))], 1
    ),
    x=normal(4, 2, 2),
)
case(
    "col2im",
    lambda x: F.fold(x, (5, 6), (3, 2), dilation=(1, 2), padding=(1, 0), stride=(2, 1)),
    x=normal(1, 12, 12),
)
case("one_hot_values", lambda off, on: torch.stack([off, on, off]), off=given(0.5), on=given(2.0))
case("full", lambda x: x * torch.ones(3).double(), x=given(1.5))

# -- products

case("matmul", torch.matmul, x=normal(2, 3, 4), y=normal(4, 5))
case("matmul.vector", torch.matmul, x=normal(3, 4), y=normal(4))
case("matmul.batch", torch.matmul, x=normal(2, 1, 3, 4), y=normal(3, 4, 2))
case("linear", F.linear, x=normal(2, 3, 4), weight=normal(5, 4), bias=normal(5))
EQUATIONS = {
    "attention": ("b...id,b...jd->b...ij", (2, 2, 3, 4), (2, 2, 5, 4)),
    "chain": ("iij,jk,k->i", (3, 3, 4), (4, 5), (5,)),
    "trace": ("...ii->...", (2, 4, 4)),
    "outer": ("i,j", (3,), (4,)),
    "hadamard": ("ij,ij->ij", (3, 4), (3, 4)),
}
for name, (equation, *shapes) in EQUATIONS.items():
    case(
        f"einsum.{name}", lambda *xs, equation=equation: torch.einsum(equation, *xs),
        **{"xyz"[i]: normal(*shape) for i, shape in enumerate(shapes)},
    )  # fmt: skip

# -- places known at run time

case("take", lambda x, index: x[:, index.long()] ** 2, x=normal(3, 5), index=[0, 4, 4, 1])
case(
    "take.negative", lambda x, index: x[index.long()] ** 2, x=normal(5, 2), index=[[-1, 2], [2, 0]]
)
case("embedding", lambda weight, index: F.embedding(index.long(), weight) ** 2,
     weight=normal(5, 3), index=[[0, 4], [4, 2]])  # fmt: skip
case("take_along_axis", lambda x, index: torch.gather(x, 1, index.long()) ** 2,
     x=normal(3, 5), index=whole(0, 5, 3, 4))  # fmt: skip
case("gather_elements", lambda x, index: torch.gather(x, 0, index.long()) ** 2,
     x=normal(4, 3), index=whole(0, 4, 6, 3))  # fmt: skip
case("gather_nd", lambda x, index: x[index[:, 0].long(), index[:, 1].long()] ** 2,
     x=normal(3, 4, 2), index=[[0, 1], [2, 3], [0, 1]])  # fmt: skip
case("dynamic_slice", lambda x: x[:, 2:5] ** 2, x=normal(2, 6))
case("dynamic_update_slice", lambda x, y: torch.cat([x[:1], y, x[3:]]) ** 2,
     x=normal(5, 2), y=normal(2, 2))  # fmt: skip
case("scatter_add", lambda x, index, updates: torch.index_add(x, 0, index, updates) ** 2,
     x=normal(4, 3), index=[3, 0, 3], updates=normal(3, 3))  # fmt: skip
for combine, mode in {"mul": "prod", "max": "amax", "min": "amin"}.items():
    for kind, draw in {"": normal, "_ties": ties}.items():
        case(
            f"scatter.{combine}{kind}",
            lambda x, index, updates, mode=mode: x.scatter_reduce(0, index.long(), updates, mode),
            second=False, x=draw(4), index=[0, 2, 0, 0, 2, 1], updates=draw(6),
        )  # fmt: skip
case("scatter.add", lambda x, index, updates: x.scatter_add(1, index.long(), updates) ** 2,
     x=normal(2, 4), index=whole(0, 4, 2, 6), updates=normal(2, 6))  # fmt: skip
case("scatter.none", lambda x, index, updates: x.scatter(0, index.long(), updates) ** 2,
     x=normal(5), index=[4, 0, 2], updates=normal(3))  # fmt: skip
case("scatter_nd.none", lambda x, index, updates: x.index_put(
    (index[:, 0].long(), index[:, 1].long()), updates) ** 2,
     x=normal(3, 4, 2), index=[[0, 1], [2, 3]], updates=normal(2, 2))  # fmt: skip
case("scatter_nd.add", lambda x, index, updates: x.index_put(
    (index[:, 0].long(), index[:, 1].long()), updates, accumulate=True) ** 2,
     x=normal(3, 4, 2), index=[[0, 1], [2, 3], [0, 1]], updates=normal(3, 2))  # fmt: skip
case("dequantize", lambda scale: (
    torch.tensor([[1.0], [-15.0], [0.0], [3.0]]).double() * scale) ** 2,
     scale=[[0.5]])  # fmt: skip

# -- images

GRIDS = list(
    itertools.product(("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"))
)
for (mode, padding), align in itertools.product(GRIDS, (False, True)):
    case(
        f"grid_sample.{mode}_{padding}_{int(align)}",
        lambda x, grid, mode=mode, padding=padding, align=align: F.grid_sample(
            x, grid, mode, padding, align_corners=align
        ),
        second=False, x=normal(1, 2, 4, 3), grid=between(-1.6, 1.6, 1, 3, 2, 2),
    )  # fmt: skip
case("grid_sample.volume", lambda x, grid: F.grid_sample(x, grid, align_corners=False),
     second=False, x=normal(1, 1, 3, 4, 2), grid=between(-1.1, 1.1, 1, 2, 2, 1, 3))  # fmt: skip
for align in (False, True):
    case(
        f"affine_grid.plane_{int(align)}",
        lambda x, a=align: F.affine_grid(x, (2, 1, 3, 5), align_corners=a),
        x=normal(2, 2, 3),
    )
    case(
        f"affine_grid.volume_{int(align)}",
        lambda x, a=align: F.affine_grid(x, (1, 1, 3, 4, 2), align_corners=a),
        x=normal(1, 3, 4),
    )
RESIZES: dict[str, tuple[tuple[int, ...], dict[str, Any], tuple[int, ...]]] = {
    "linear": ((7, 3), {"mode": "bilinear"}, (1, 2, 5, 6)),
    "corners": ((7, 9), {"mode": "bilinear", "align_corners": True}, (1, 1, 5, 6)),
    "cubic": ((7, 9), {"mode": "bicubic"}, (1, 1, 5, 6)),
    "antialias": ((3, 4), {"mode": "bilinear", "antialias": True}, (1, 1, 8, 11)),
    "nearest": ((7,), {"mode": "nearest"}, (2, 1, 5)),
    "line": ((9,), {"mode": "linear"}, (1, 2, 5)),
    "volume": ((3, 5, 4), {"mode": "trilinear"}, (1, 1, 2, 3, 4)),
}
for name, (size, options, shape) in RESIZES.items():
    case(f"resize.{name}", lambda x, s=size, o=options: F.interpolate(x, s, **o), x=normal(*shape))

# -- convolutions and pools

CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "conv1d.plain": ((2, 3, 8), (4, 3, 3), {}),
    "conv1d.all": ((1, 4, 11), (6, 2, 3), {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}),
    "conv1d.same": ((1, 2, 7), (3, 2, 4), {"padding": "same", "dilation": 2}),
    "conv2d.plain": ((1, 2, 5, 6), (3, 2, 3, 2), {}),
    "conv2d.stride": ((1, 2, 7, 6), (3, 2, 3, 3), {"stride": (2, 3), "padding": (1, 2)}),
    "conv2d.dilation": ((1, 2, 7, 8), (2, 2, 3, 2), {"dilation": (2, 3)}),
    "conv2d.groups": ((1, 4, 5, 5), (6, 2, 3, 3), {"groups": 2, "padding": 1}),
    "conv2d.depthwise": ((1, 3, 5, 5), (6, 1, 3, 3), {"groups": 3, "padding": 1, "stride": 2}),
    "conv2d.same": ((1, 2, 5, 6), (2, 2, 3, 2), {"padding": "same"}),
    "conv2d.point": ((1, 3, 4, 4), (5, 3, 1, 1), {}),
    "conv3d.plain": ((1, 2, 4, 4, 3), (2, 2, 2, 3, 2), {}),
    "conv3d.all": ((1, 2, 5, 4, 5), (2, 1, 2, 2, 2),
                   {"stride": (2, 1, 2), "padding": 1, "dilation": (1, 2, 1), "groups": 2}),
    "conv_transpose1d.plain": ((2, 3, 5), (3, 2, 3), {}),
    "conv_transpose1d.all": ((1, 4, 5), (4, 2, 3), {
        "stride": 3, "padding": 1, "output_padding": 2, "groups": 2, "dilation": 2}),
    "conv_transpose2d.plain": ((1, 2, 3, 4), (2, 3, 3, 2), {}),
    "conv_transpose2d.all": ((1, 2, 3, 4), (2, 2, 3, 2), {
        "stride": 2, "padding": 1, "output_padding": (1, 0), "groups": 2, "dilation": (1, 2)}),
    "conv_transpose3d.plain": ((1, 2, 2, 3, 2), (2, 1, 2, 2, 2), {"stride": 2}),
    "conv_transpose3d.all": ((1, 2, 2, 3, 2), (2, 1, 2, 2, 2), {
        "stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
}  # fmt: skip
for name, (shape, kernel, options) in CONVOLUTIONS.items():
    function = getattr(F, name.split(".")[0])
    is_transposed = "transpose" in name
    channels = kernel[1] * options.get("groups", 1) if is_transposed else kernel[0]
    case(
        name, lambda x, weight, bias, f=function, o=options: f(x, weight, bias, **o),
        x=normal(*shape), weight=normal(*kernel), bias=normal(channels),
    )  # fmt: skip
for mode in ("reflect", "replicate", "circular"):
    case(
        f"conv2d.pad_{mode}",
        lambda x, weight, mode=mode: F.conv2d(F.pad(x, (1, 1, 1, 1), mode), weight),
        x=normal(1, 2, 4, 4), weight=normal(2, 2, 3, 3),
    )  # fmt: skip
POOLS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "avg_pool1d.plain": ((1, 2, 8), {"kernel_size": 2}),
    "avg_pool1d.all": ((1, 2, 9), {"kernel_size": 4, "stride": 3, "padding": 1, "ceil_mode": True}),
    "avg_pool2d.plain": ((1, 2, 6, 6), {"kernel_size": 2}),
    "avg_pool2d.all": ((1, 2, 7, 6), {"kernel_size": (4, 2), "stride": 2, "padding": 1,
                                      "ceil_mode": True}),
    "avg_pool2d.not_padding": ((1, 2, 7, 6), {"kernel_size": 4, "stride": 2, "padding": 1,
                                              "count_include_pad": False}),
    "avg_pool2d.divisor": ((1, 1, 6, 6), {"kernel_size": 2, "divisor_override": 8}),
    "avg_pool3d.plain": ((1, 1, 4, 4, 4), {"kernel_size": 2}),
    "max_pool1d.plain": ((1, 2, 8), {"kernel_size": 2}),
    "max_pool1d.all": ((1, 2, 11), {"kernel_size": 3, "stride": 2, "padding": 1, "dilation": 2,
                                    "ceil_mode": True}),
    "max_pool2d.plain": ((1, 2, 6, 6), {"kernel_size": 2}),
    "max_pool2d.overlap": ((1, 2, 7, 6), {"kernel_size": 3, "stride": 2, "padding": 1}),
    "max_pool3d.plain": ((1, 1, 4, 5, 4), {"kernel_size": 2, "stride": (2, 1, 2)}),
    "adaptive_avg_pool1d.plain": ((1, 2, 7), {"output_size": 4}),
    "adaptive_avg_pool2d.plain": ((1, 2, 8, 6), {"output_size": (4, 3)}),
    "adaptive_avg_pool2d.uneven": ((1, 1, 7, 5), {"output_size": (3, 2)}),
    "adaptive_avg_pool3d.plain": ((1, 1, 4, 3, 5), {"output_size": 2}),
    "adaptive_max_pool1d.plain": ((1, 2, 7), {"output_size": 4}),
    "adaptive_max_pool2d.plain": ((1, 2, 7, 5), {"output_size": (3, 2)}),
    "adaptive_max_pool3d.plain": ((1, 1, 4, 3, 5), {"output_size": 2}),
}  # fmt: skip
for name, (shape, options) in POOLS.items():
    function = getattr(F, name.split(".")[0])
    case(name, lambda x, f=function, o=options: f(x, **o) ** 2, x=distinct(*shape))
case("max_pool2d.ties", lambda x: F.max_pool2d(x, 3, 2, 1), x=ties(1, 2, 6, 5))
case("adaptive_max_pool2d.ties", lambda x: F.adaptive_max_pool2d(x, 3), x=ties(1, 1, 7, 8))

# -- norms

EPS = 2.0**-10
case("layer_norm", lambda x, weight, bias: F.layer_norm(x, (4,), weight, bias, EPS),
     x=normal(3, 4), weight=normal(4), bias=normal(4))  # fmt: skip
case("layer_norm.axes", lambda x, weight: F.layer_norm(x, (3, 4), weight, None, 1e-5),
     x=normal(2, 3, 4), weight=normal(3, 4))  # fmt: skip
case("layer_norm.constant", lambda x: F.layer_norm(x, (4,), None, None, EPS), x=[[1.5] * 4])
case("layer_norm.one_element", lambda x: F.layer_norm(x, (1,), None, None, EPS), x=[[1.5], [0.0]])
case(
    "rms_norm", lambda x, weight: F.rms_norm(x, (4,), weight, EPS), x=normal(3, 4), weight=normal(4)
)
case(
    "rms_norm.zeros", lambda x: F.rms_norm(x, (4,), None, EPS), x=[[0.0] * 4, [1.0, 2.0, 3.0, 4.0]]
)
case("group_norm", lambda x, weight, bias: F.group_norm(x, 2, weight, bias, EPS),
     x=normal(2, 4, 2), weight=normal(4), bias=normal(4))  # fmt: skip
case("instance_norm", lambda x, weight, bias: F.instance_norm(
    x, None, None, weight, bias, True, 0.1, EPS),
     x=normal(2, 2, 4), weight=normal(2), bias=normal(2))  # fmt: skip
case("batch_norm.training", lambda x, weight, bias: F.batch_norm(
    x, None, None, weight, bias, True, 0.1, EPS),
     x=normal(4, 2, 2), weight=normal(2), bias=normal(2))  # fmt: skip
case("batch_norm.evaluation", lambda x, mean, var, weight, bias: (
    x - mean[:, None]) / torch.sqrt(var[:, None] + EPS) * weight[:, None] + bias[:, None],
     x=normal(3, 2, 2), mean=normal(2), var=between(0.5, 2, 2), weight=normal(2),
     bias=normal(2))  # fmt: skip

# -- attention, spelt out where PyTorch has no such option


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, allowed: Tensor | None = None,
    scale: float = 0.5, softcap: float = 0.0,
) -> Tensor:  # fmt: skip
    scores = q @ k.mT * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores + mask
    if allowed is not None:
        allowed = torch.broadcast_to(allowed, scores.shape)
        none = ~allowed.any(-1, keepdim=True)
        scores = torch.where(allowed | none, scores, -INF)
        return torch.where(none, 0.0, torch.softmax(scores, -1)) @ v
    return torch.softmax(scores, -1) @ v


def heads(length: int = 3, keys: int = 5, *lead: int) -> dict[str, Draw]:
    return {"q": normal(*lead, length, 4), "k": normal(*lead, keys, 4), "v": normal(*lead, keys, 3)}


CAUSAL = torch.tril(torch.ones(4, 5, dtype=torch.bool))
ATTENTION = "scaled_dot_product_attention"
case(f"{ATTENTION}.plain", F.scaled_dot_product_attention, **heads(3, 5, 2))
case(f"{ATTENTION}.scale", lambda q, k, v: attend(q, k, v, scale=1.5), **heads())
case(f"{ATTENTION}.causal", lambda q, k, v: attend(q, k, v, allowed=CAUSAL), **heads(4, 5, 2))
case(
    f"{ATTENTION}.bool_mask",
    lambda q, k, v, mask: attend(q, k, v, allowed=mask),
    **heads(),
    mask=[[True, False, True, True, False], [True] * 5, [False, True] + [False] * 3],
)
case(f"{ATTENTION}.hidden_row", lambda q, k, v, mask: attend(q, k, v, allowed=mask),
     **heads(2, 3), mask=[[False] * 3, [True, False, True]])  # fmt: skip
case(f"{ATTENTION}.float_mask", lambda q, k, v, mask: attend(q, k, v, mask),
     **heads(3, 5, 2), mask=normal(3, 5))  # fmt: skip
case(f"{ATTENTION}.gqa", lambda q, k, v: attend(
    q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)),
     q=normal(1, 4, 3, 4), k=normal(1, 2, 5, 4), v=normal(1, 2, 5, 4))  # fmt: skip
case(f"{ATTENTION}.softcap", lambda q, k, v: attend(q, k, v, softcap=2.0), **heads(3, 5, 2))
case(f"{ATTENTION}.span", lambda q, k, v: attend(
    q, k, v, allowed=torch.arange(6) < 4),
     **heads(2, 6))  # fmt: skip
case(f"{ATTENTION}.span_causal", lambda q, k, v: attend(
    q, k, v, allowed=(torch.arange(6) <= torch.arange(2)[:, None] + 3) & (torch.arange(6) < 5),
    softcap=4.0),
     **heads(2, 6))  # fmt: skip

# -- losses

for reduction in ("mean", "sum", "none"):
    case(f"mse_loss.{reduction}", lambda x, y, r=reduction: F.mse_loss(x, y, reduction=r),
         x=normal(2, 4), y=normal(2, 4))  # fmt: skip
    case(f"l1_loss.{reduction}", lambda x, y, r=reduction: F.l1_loss(x, y, reduction=r),
         x=ties(2, 4), y=ties(2, 4))  # fmt: skip
    case(f"binary_cross_entropy_with_logits.{reduction}",
         lambda x, y, r=reduction: F.binary_cross_entropy_with_logits(x, y, reduction=r),
         x=normal(2, 4), y=between(0, 1, 2, 4))  # fmt: skip
    case(f"cross_entropy.{reduction}",
         lambda x, label, r=reduction: F.cross_entropy(x, label.long(), reduction=r),
         x=normal(4, 3), label=[0, 2, 1, 2])  # fmt: skip
    case(f"nll_loss.{reduction}",
         lambda x, label, r=reduction: F.nll_loss(x, label.long(), reduction=r) ** 2,
         x=normal(4, 3), label=[0, 2, 1, 2])  # fmt: skip
case(
    "binary_cross_entropy_with_logits.zero",
    lambda x, y: F.binary_cross_entropy_with_logits(x, y),
    x=[0.0, -0.0],
    y=[0.0, 1.0],
)
case("binary_cross_entropy_with_logits.large",
     lambda x, y: F.binary_cross_entropy_with_logits(x, y, reduction="none"),
     x=[1e4, -1e4, 1e4, -1e4], y=[0.0, 0.0, 1.0, 1.0])  # fmt: skip
case("cross_entropy.smoothing",
     lambda x, label: F.cross_entropy(x, label.long(), label_smoothing=0.125),
     x=normal(4, 4), label=[0, 3, 1, 3])  # fmt: skip
case("cross_entropy.ignored", lambda x, label: F.cross_entropy(x, label.long()),
     x=normal(4, 3), label=[0, -100, 1, -100])  # fmt: skip
case("cross_entropy.places", lambda x, label: F.cross_entropy(x, label.long()),
     x=normal(2, 3, 4), label=whole(0, 3, 2, 4))  # fmt: skip
case("cross_entropy.one_row", lambda x, label: F.cross_entropy(x, label.long()),
     x=normal(5), label=given(np.int32(3)))  # fmt: skip
case("nll_loss.ignored", lambda x, label: F.nll_loss(x, label.long()) ** 2,
     x=normal(4, 3), label=[0, -100, 1, -100])  # fmt: skip


def main() -> None:
    arrays: dict[str, Array] = {}
    for name, each in CASES.items():
        try:
            arrays |= {f"{name}/{field}": array for field, array in record(name, each).items()}
        except Exception as error:
            raise RuntimeError(f"case {name}") from error
    np.savez_compressed(HERE / "gradients.npz", **arrays)
    size = (HERE / "gradients.npz").stat().st_size
    print(f"gradients.npz: {len(CASES)} cases, {len(arrays)} arrays, {size} bytes")


def record(name: str, each: Case) -> dict[str, Array]:
    chance = np.random.default_rng(zlib.crc32(name.encode()))
    operands = {key: draw(chance) for key, draw in each.operands.items()}
    fields: dict[str, Array] = dict(operands)
    tensors = {
        key: torch.tensor(array.astype(np.float64) if array.dtype.kind == "f" else array)
        for key, array in operands.items()
    }
    wanted = {key: tensor for key, tensor in tensors.items() if tensor.is_floating_point()}
    for tensor in wanted.values():
        tensor.requires_grad_()
    found = each.function(*tensors.values())
    results = [found] if isinstance(found, Tensor) else list(found)
    total = torch.zeros((), dtype=torch.float64)
    for place, result in enumerate(results):
        fields[f"y{place}"] = result.detach().numpy()
        weight = eighths(chance, result.shape)
        fields[f"w{place}"] = weight
        total = total + weighted(result, weight)
    gradients = slopes(total, wanted, each.second)
    fields |= {f"{key}.grad": array(gradient) for key, gradient in gradients.items()}
    if each.second:
        moved = torch.zeros((), dtype=torch.float64)
        for key, gradient in gradients.items():
            direction = eighths(chance, gradient.shape)
            fields[f"{key}.dir"] = direction
            moved = moved + weighted(gradient, direction)
        for key, second in slopes(moved, wanted, False).items():
            if (second != 0).any():
                fields[f"{key}.second"] = array(second)
    return fields


def eighths(chance: np.random.Generator, shape: Sequence[int]) -> Array:
    return ((chance.integers(-16, 16, tuple(shape)) * 2 + 1) / 16).astype(np.float32)


def weighted(tensor: Tensor, weight: Array) -> Tensor:
    return (tensor * torch.tensor(weight, dtype=torch.float64)).sum()


def slopes(total: Tensor, wanted: dict[str, Tensor], again: bool) -> dict[str, Tensor]:
    """Gradients; zeros where `total` does not depend on a tensor."""
    if not total.requires_grad:
        return {key: torch.zeros_like(tensor) for key, tensor in wanted.items()}
    found = torch.autograd.grad(total, list(wanted.values()), create_graph=again, allow_unused=True)
    pairs = zip(wanted.items(), found, strict=True)
    return {key: torch.zeros_like(x) if one is None else one for (key, x), one in pairs}


def array(tensor: Tensor) -> Array:
    return tensor.detach().numpy().copy()


if __name__ == "__main__":
    main()
