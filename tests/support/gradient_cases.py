"""The functions and ops of `asg` whose gradients tests/references/gradients.npz holds, by case."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import asg
from asg.nn import functional as F
from asg.ops import TABLE
from asg.tensor import Tensor

Function = Callable[..., Any]
EPS = 2.0**-10


def _unary() -> dict[str, Function]:
    names = [
        "neg", "abs", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "reciprocal", "sin", "cos",
        "tan", "tanh", "sigmoid", "erf", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh",
        "atanh", "square", "relu", "gelu", "silu", "softplus", "sign", "floor", "ceil", "round",
        "trunc",
    ]  # fmt: skip
    functions: dict[str, Function] = {name: getattr(asg, name) for name in names}
    functions["gelu.tanh"] = partial(asg.gelu, approximate="tanh")
    functions["gelu.op"], functions["gelu_tanh"] = TABLE["gelu"], TABLE["gelu_tanh"]
    special = {f"{name}.special": function for name, function in functions.items()}
    zero = {f"{name}.zero": functions[name] for name in ("abs", "relu", "softplus", "gelu")}
    return {
        **functions,
        **special,
        **zero,
        "stop_gradient": lambda x: asg.stop_gradient(x) * x,
        "copy": lambda x: TABLE["copy"](x) * x,
        "cast": lambda x: asg.cast(asg.cast(x, "f16"), "f32") * x,
    }


def _binary() -> dict[str, Function]:
    cases: dict[str, Function] = {}
    for name in ("add", "sub", "mul", "maximum", "minimum"):
        for kind in ("", ".broadcast", ".ties", ".special"):
            cases[name + kind] = getattr(asg, name)
    for name in ("true_divide", "true_divide.zero", "remainder", "fmod", "pow", "where"):
        cases[name] = getattr(asg, name.split(".")[0])
    cases["pow.borders"] = cases["pow.inf"] = asg.pow
    powers = {"0": 0, "1": 1, "2": 2, "3": 3, "4": 4, "7": 7, "minus_1": -1, "minus_2": -2,
              "half": 0.5, "minus_half": -0.5, "five_halves": 2.5}  # fmt: skip
    for name, power in powers.items():
        key = "pow.by_five_halves" if power == 2.5 else f"pow.by_{name}"
        cases[key] = partial(lambda power, x: asg.pow(x, power), power)
    for power in (0, 1, 2, 3):
        cases[f"pow.zero_by_{power}"] = partial(lambda power, x: asg.pow(x, power), power)
    return {
        **cases,
        "where.nan_not_taken": lambda x: asg.where(x > 0, asg.sqrt(x), 0.0),
        "where.twice": lambda x: asg.where(x > 0, asg.sqrt(asg.where(x > 0, x, 1.0)), 0.0),
        "clip": lambda x: asg.clip(x, -1, 1),
        "clip.borders": lambda x: asg.clip(x, -1, 1),
        "clip.low": lambda x: asg.clip(x, low=-1),
        "clip.high": lambda x: asg.clip(x, high=1),
        "clip.tensors": asg.clip,
    }


def _reductions() -> dict[str, Function]:
    cases: dict[str, Function] = {}
    for name in ("sum", "mean", "max", "min"):
        function = getattr(asg, name)
        cases[name] = partial(function, axis=(0, 2))
        cases[f"{name}.all"] = function
        cases[f"{name}.ties"] = partial(function, axis=1)
        cases[f"{name}.kept"] = partial(lambda f, x: f(x, axis=1, keepdims=True) * x, function)
    for ddof in (0, 1):
        for name in ("var", "std"):
            function = partial(getattr(asg, name), axis=1, ddof=ddof)
            cases[f"{name}.less_{ddof}"] = cases[f"{name}.constant_{ddof}"] = function
            cases[f"{name}.one_element_{ddof}"] = function
    for kind in ("large", "ties", "part_inf", "inf"):
        for name in ("logsumexp", "softmax", "log_softmax"):
            cases[f"{name}.{kind}"] = partial(getattr(asg, name), axis=1)
    for name, axis in itertools.product(("softmax", "log_softmax"), range(3)):
        cases[f"{name}.axis_{axis}"] = partial(getattr(asg, name), axis=axis)
    return {
        **cases,
        "max.nan": partial(asg.max, axis=1),
        "min.nan": partial(asg.min, axis=1),
        "mean.thirds": lambda x: asg.mean(x * x, 1),
        "prod": partial(asg.prod, axis=1),
        "prod.axes": partial(asg.prod, axis=(0, 2)),
        "prod.all": asg.prod,
        "prod.zeros": partial(asg.prod, axis=1),
        "var.axes": partial(asg.var, axis=(0, 2)),
        "sqrt.norm": lambda x: asg.sqrt((x * x).sum(1)),
        "sqrt.norm_of_zeros": lambda x: asg.sqrt((x * x).sum(1)),
        "logsumexp": partial(asg.logsumexp, axis=1),
        "logsumexp.all": asg.logsumexp,
        "softmax.axes": partial(asg.softmax, axis=(1, 2)),
        "log_softmax.axes": partial(asg.log_softmax, axis=(1, 2)),
    }


RUNNING: dict[str, Function] = {
    "cumsum": partial(asg.cumsum, axis=1),
    "cumsum.exclusive_reverse": partial(asg.cumsum, axis=0, exclusive=True, reverse=True),
    "cumprod": partial(asg.cumprod, axis=1),
    "cumprod.zeros": partial(asg.cumprod, axis=1),
    "cummax": lambda x: asg.cummax(x, 1)[0],
    "cummax.ties": lambda x: asg.cummax(x, 1)[0],
    "cummin": lambda x: asg.cummin(x, 0)[0],
    "cummin.ties": lambda x: asg.cummin(x, 0)[0],
    "linear_recurrence": partial(asg.linear_recurrence, axis=1),
    "linear_recurrence.zeros": partial(asg.linear_recurrence, axis=1),
    "sort": lambda x: asg.square(asg.sort(x, 1)[0]),
    "sort.ties": lambda x: asg.sort(x, 1)[0],
    "sort.descending_ties": lambda x: asg.sort(x, 0, descending=True)[0],
    "topk": lambda x: asg.square(asg.topk(x, 3, 1)[0]),
    "topk.smallest": lambda x: asg.topk(x, 2, 0, largest=False)[0],
}

_PAD = ((0, 0), (0, 0), (1, 2), (3, 2))
VIEWS: dict[str, Function] = {
    "reshape": lambda x: asg.square(x.reshape(2, 6)),
    "permute": lambda x: asg.square(asg.permute(x, (2, 0, 1))),
    "transpose": lambda x: asg.transpose(x) @ x,
    "swapaxes": lambda x: asg.swapaxes(x, 0, 2),
    "broadcast_to": lambda x: asg.square(asg.broadcast_to(x, (2, 3, 4))),
    "expand_dims": lambda x: asg.expand_dims(x, 1),
    "unsqueeze": lambda x: asg.unsqueeze(x, 1),
    "squeeze": lambda x: asg.squeeze(x, 1),
    "flatten": lambda x: asg.square(asg.flatten(x, 1)),
    "getitem": lambda x: asg.square(x[1:, None, -1, 1::2]),
    "getitem.array": lambda x: asg.square(x[[2, 0, 2]]),
    "dilate": lambda x: asg.square(TABLE["dilate"](x, steps=(3,))),
    "flip": lambda x: asg.flip(x, (0, 2)),
    "roll": lambda x: asg.roll(x, (2, -4), (0, 1)),
    "tril": lambda x: asg.tril(x, -1),
    "triu": lambda x: asg.triu(x, 1),
    "diagonal": lambda x: asg.diagonal(x, 0, 2),
    "concatenate": lambda x, y: asg.square(asg.concatenate([x, y, x], 1)),
    "stack": lambda x, y: asg.square(asg.stack([x, y, x], 1)),
    "split": lambda x: tuple(asg.split(x, [1, 3], 1)),
    "pack": lambda x, y: asg.square(TABLE["pack"](x, y, offsets=(0, 8), total=12)),
    "full_like": lambda x: asg.full_like(x, 2.0) * x,
    "pad.constant": lambda x: asg.square(asg.pad(x, _PAD)),
    **{
        f"pad.{mode}": partial(lambda mode, x: asg.square(asg.pad(x, _PAD, mode=mode)), mode)
        for mode in ("edge", "reflect", "wrap")
    },
    "pad.negative": lambda x: asg.pad(x, ((0, 0), (-1, 2))),
    "pad.symmetric": lambda x: asg.square(asg.pad(x, ((0, 0), (2, 3)), mode="symmetric")),
    "depth_to_space": lambda x: asg.depth_to_space(x, 2, "CRD"),
    "space_to_depth": lambda x: asg.space_to_depth(x, 2),
    "reverse_sequence": lambda x: asg.reverse_sequence(x, np.array([3, 1])),
    "col2im": lambda x: asg.col2im(x, (5, 6), (3, 2), (1, 2), ((1, 1), (0, 0)), (2, 1)),
    "one_hot_values": lambda off, on: asg.one_hot_values(np.array(1), 3, off, on),
    "full": lambda x: x * asg.full((3,), 1.0),
    "matmul": asg.matmul,
    "matmul.vector": asg.matmul,
    "matmul.batch": asg.matmul,
    "linear": F.linear,
    "einsum.attention": partial(asg.einsum, "b...id,b...jd->b...ij"),
    "einsum.chain": partial(asg.einsum, "iij,jk,k->i"),
    "einsum.trace": partial(asg.einsum, "...ii->..."),
    "einsum.outer": partial(asg.einsum, "i,j"),
    "einsum.hadamard": partial(asg.einsum, "ij,ij->ij"),
}


def _dequantized(scale: Tensor) -> Tensor:
    """Four rows of 8 bits, whose numbers are 1, -15, 0 and 3."""
    words = np.array([[0x83807181]], np.uint32)
    found: Tensor = TABLE["dequantize"](words, scale, bits=8, rows=4, group_size=4)
    return found


PLACES: dict[str, Function] = {
    "take": lambda x, index: asg.square(asg.take(x, index, 1)),
    "take.negative": lambda x, index: asg.square(asg.take(x, index)),
    "embedding": lambda weight, index: asg.square(F.embedding(index, weight)),
    "take_along_axis": lambda x, index: asg.square(asg.take_along_axis(x, index, 1)),
    "gather_elements": lambda x, index: asg.square(asg.gather_elements(x, index, 0)),
    "gather_nd": lambda x, index: asg.square(asg.gather_nd(x, index)),
    "dynamic_slice": lambda x: asg.square(asg.dynamic_slice(x, 2, 3, 1)),
    "dynamic_update_slice": lambda x, y: asg.square(asg.dynamic_update_slice(x, y, 1)),
    "scatter_add": lambda x, index, updates: asg.square(asg.scatter_add(x, index, updates)),
    **{
        f"scatter.{combine}{kind}": partial(
            lambda combine, x, index, updates: asg.scatter(x, index, updates, 0, combine), combine
        )
        for combine in ("mul", "max", "min")
        for kind in ("", "_ties")
    },
    "scatter.add": lambda x, index, updates: asg.square(asg.scatter(x, index, updates, 1, "add")),
    "scatter.none": lambda x, index, updates: asg.square(asg.scatter(x, index, updates)),
    "scatter_nd.none": lambda x, index, updates: asg.square(asg.scatter_nd(x, index, updates)),
    "scatter_nd.add": lambda x, index, updates: asg.square(
        asg.scatter_nd(x, index, updates, "add")
    ),
    "dequantize": lambda scale: asg.square(_dequantized(scale)),
}

IMAGES: dict[str, Function] = {
    **{
        f"grid_sample.{mode}_{padding}_{int(align)}": partial(
            asg.grid_sample, mode=mode, padding_mode=padding, align_corners=align
        )
        for mode in ("bilinear", "nearest", "bicubic")
        for padding in ("zeros", "border", "reflection")
        for align in (False, True)
    },
    "grid_sample.volume": asg.grid_sample,
    **{
        f"affine_grid.{kind}_{int(align)}": partial(asg.affine_grid, size=size, align_corners=align)
        for kind, size in (("plane", (2, 1, 3, 5)), ("volume", (1, 1, 3, 4, 2)))
        for align in (False, True)
    },
    "resize.linear": lambda x: asg.resize(x, (1, 2, 7, 3), mode="linear"),
    "resize.corners": lambda x: asg.resize(
        x, (1, 1, 7, 9), mode="linear", coordinates="align_corners"
    ),
    "resize.cubic": lambda x: asg.resize(x, (1, 1, 7, 9), mode="cubic"),
    "resize.antialias": lambda x: asg.resize(
        x, (1, 1, 3, 4), mode="linear", antialias=True, exclude_outside=True
    ),
    "resize.nearest": lambda x: asg.resize(x, (2, 1, 7), coordinates="asymmetric", nearest="floor"),
    "resize.line": lambda x: asg.resize(x, (1, 2, 9), mode="linear"),
    "resize.volume": lambda x: asg.resize(x, (1, 1, 3, 5, 4), mode="linear"),
}


def _convolutions() -> dict[str, Function]:
    options: dict[str, dict[str, Any]] = {
        "conv1d.plain": {},
        "conv1d.all": {"stride": 2, "padding": 2, "dilation": 2, "groups": 2},
        "conv1d.same": {"padding": "same", "dilation": 2},
        "conv2d.plain": {},
        "conv2d.stride": {"stride": (2, 3), "padding": (1, 2)},
        "conv2d.dilation": {"dilation": (2, 3)},
        "conv2d.groups": {"groups": 2, "padding": 1},
        "conv2d.depthwise": {"groups": 3, "padding": 1, "stride": 2},
        "conv2d.same": {"padding": "same"},
        "conv2d.point": {},
        "conv3d.plain": {},
        "conv3d.all": {"stride": (2, 1, 2), "padding": 1, "dilation": (1, 2, 1), "groups": 2},
        "conv_transpose1d.plain": {},
        "conv_transpose1d.all": {
            "stride": 3, "padding": 1, "output_padding": 2, "groups": 2, "dilation": 2,
        },
        "conv_transpose2d.plain": {},
        "conv_transpose2d.all": {
            "stride": 2, "padding": 1, "output_padding": (1, 0), "groups": 2, "dilation": (1, 2),
        },
        "conv_transpose3d.plain": {"stride": 2},
        "conv_transpose3d.all": {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2},
    }  # fmt: skip
    border = ((0, 0), (0, 0), (1, 1), (1, 1))
    return {
        **{name: partial(getattr(F, name.split(".")[0]), **each) for name, each in options.items()},
        **{
            f"conv2d.pad_{name}": partial(
                lambda mode, x, weight: F.conv2d(asg.pad(x, border, mode=mode), weight), mode
            )
            for name, mode in (("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap"))
        },
    }


def _pools() -> dict[str, Function]:
    every = {"kernel_size": 4, "stride": 3, "padding": 1, "ceil_mode": True}
    some = {"kernel_size": 4, "stride": 2, "padding": 1, "count_include_pad": False}
    wide = {"kernel_size": (4, 2), "stride": 2, "padding": 1, "ceil_mode": True}
    options: dict[str, dict[str, Any]] = {
        "avg_pool1d.plain": {"kernel_size": 2},
        "avg_pool1d.all": every,
        "avg_pool2d.plain": {"kernel_size": 2},
        "avg_pool2d.all": wide,
        "avg_pool2d.not_padding": some,
        "avg_pool2d.divisor": {"kernel_size": 2, "divisor_override": 8},
        "avg_pool3d.plain": {"kernel_size": 2},
        "max_pool1d.plain": {"kernel_size": 2},
        "max_pool1d.all": {**every, "kernel_size": 3, "stride": 2, "dilation": 2},
        "max_pool2d.plain": {"kernel_size": 2},
        "max_pool2d.overlap": {"kernel_size": 3, "stride": 2, "padding": 1},
        "max_pool3d.plain": {"kernel_size": 2, "stride": (2, 1, 2)},
        "adaptive_avg_pool1d.plain": {"output_size": 4},
        "adaptive_avg_pool2d.plain": {"output_size": (4, 3)},
        "adaptive_avg_pool2d.uneven": {"output_size": (3, 2)},
        "adaptive_avg_pool3d.plain": {"output_size": 2},
        "adaptive_max_pool1d.plain": {"output_size": 4},
        "adaptive_max_pool2d.plain": {"output_size": (3, 2)},
        "adaptive_max_pool3d.plain": {"output_size": 2},
    }
    squared = partial(lambda name, kept, x: asg.square(getattr(F, name)(x, **kept)))
    return {
        **{name: partial(squared, name.split(".")[0], kept) for name, kept in options.items()},
        "max_pool2d.ties": lambda x: F.max_pool2d(x, 3, 2, 1),
        "adaptive_max_pool2d.ties": lambda x: F.adaptive_max_pool2d(x, 3),
    }


NORMS: dict[str, Function] = {
    "layer_norm": lambda x, weight, bias: F.layer_norm(x, 4, weight, bias, EPS),
    "layer_norm.axes": lambda x, weight: F.layer_norm(x, (3, 4), weight),
    "layer_norm.constant": lambda x: F.layer_norm(x, 4, eps=EPS),
    "layer_norm.one_element": lambda x: F.layer_norm(x, 1, eps=EPS),
    "rms_norm": lambda x, weight: F.rms_norm(x, 4, weight, EPS),
    "rms_norm.zeros": lambda x: F.rms_norm(x, 4, eps=EPS),
    "group_norm": lambda x, weight, bias: F.group_norm(x, 2, weight, bias, EPS),
    "instance_norm": lambda x, weight, bias: F.instance_norm(x, weight=weight, bias=bias, eps=EPS),
    "batch_norm.training": lambda x, weight, bias: F.batch_norm(
        x, None, None, weight, bias, training=True, eps=EPS
    ),
    "batch_norm.evaluation": partial(F.batch_norm, eps=EPS),
}

_attend = F.scaled_dot_product_attention
ATTENTION: dict[str, Function] = {
    "plain": _attend,
    "scale": partial(_attend, scale=1.5),
    "causal": partial(_attend, is_causal=True),
    "bool_mask": _attend,
    "hidden_row": _attend,
    "float_mask": _attend,
    "gqa": partial(_attend, enable_gqa=True),
    "softcap": partial(_attend, softcap=2.0),
    "span": partial(_attend, span=np.array([0, 4])),
    "span_causal": partial(_attend, is_causal=True, softcap=4.0, span=np.array([3, 5])),
}


def _losses() -> dict[str, Function]:
    names = ["mse_loss", "l1_loss", "cross_entropy", "nll_loss"]
    names += ["binary_cross_entropy_with_logits"]
    cases: dict[str, Function] = {
        f"{name}.{reduction}": partial(getattr(F, name), reduction=reduction)
        for name in names
        for reduction in ("mean", "sum", "none")
    }
    for reduction in ("mean", "sum", "none"):
        cases[f"nll_loss.{reduction}"] = partial(
            lambda reduction, x, label: asg.square(F.nll_loss(x, label, reduction=reduction)),
            reduction,
        )
    for kind in ("ignored", "places", "one_row"):
        cases[f"cross_entropy.{kind}"] = F.cross_entropy
    return {
        **cases,
        "binary_cross_entropy_with_logits.zero": F.binary_cross_entropy_with_logits,
        "binary_cross_entropy_with_logits.large": cases["binary_cross_entropy_with_logits.none"],
        "cross_entropy.smoothing": partial(F.cross_entropy, label_smoothing=0.125),
        "nll_loss.ignored": lambda x, label: asg.square(F.nll_loss(x, label)),
    }


FUNCTIONS: dict[str, Function] = {
    **_unary(),
    **_binary(),
    **_reductions(),
    **RUNNING,
    **VIEWS,
    **PLACES,
    **IMAGES,
    **_convolutions(),
    **_pools(),
    **NORMS,
    **{f"scaled_dot_product_attention.{name}": each for name, each in ATTENTION.items()},
    **_losses(),
}
