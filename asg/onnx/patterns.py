"""What is one operator in ONNX: norms, pools, gelu, the bias of a convolution, attention.

A pattern looks at the last node of what it knows. It holds only where nobody else reads what lies
between, so gradients, which read much of that, leave most operators of a training step apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from asg.graph import Graph, Node, Value
from asg.onnx.export_rules import rule_for
from asg.onnx.writer import Writer
from asg.types import DType

ROOT_HALF, ROOT_2_PI, CUBIC = math.sqrt(0.5), math.sqrt(2 / math.pi), 0.044715


@dataclass(frozen=True)
class Match:
    """An operator for a node and those in `inside`, with its operands and attributes."""

    operator: str
    operands: tuple[Value, ...]
    attrs: Mapping[str, Any]
    inside: tuple[Node, ...]

    def write(self, to: Writer, operands: list[str]) -> str:
        """Write the operator."""
        return to(self.operator, *operands, **self.attrs)


def find_patterns(graph: Graph, opset: int) -> dict[Node, Match]:
    """Return the nodes that are best written as the end of a pattern."""
    found: dict[Node, Match] = {}
    for node in graph.nodes:
        for least, pattern in PATTERNS.get(node.op.name, ()):
            match = pattern(node) if opset >= least else None
            if match is not None and _is_private(graph, node, match):
                found[node] = match
                break
    return found


def _is_private(graph: Graph, last: Node, match: Match) -> bool:
    """Tell whether only the pattern reads what lies inside, and the first result of the last."""
    own = {last, *match.inside}
    values = [value for node in match.inside for value in node.values]
    return not any(
        value in graph.results or any(user not in own for user in graph.users.get(value, ()))
        for value in (*values, *last.values[1:])
    )


class _Walk:
    """Steps down from a node, which remember what they passed."""

    def __init__(self) -> None:
        self.passed: list[Node] = []

    def to(self, value: Value, op: str) -> Node | None:
        """Return the node under a value if it is of this op."""
        if value.node.op.name != op:
            return None
        self.passed.append(value.node)
        return value.node

    def pair(self, node: Node, op: str) -> tuple[Node, Value] | None:
        """Return the operand that is of this op, and the other one."""
        for one, other in (node.inputs, node.inputs[::-1]):
            if one.node.op.name == op:
                self.passed.append(one.node)
                return one.node, other
        return None

    def per_channel(self, value: Value, rank: int) -> Value | None:
        """Return the vector under a value that has one number for each channel (axis 1)."""
        spread = self.to(value, "broadcast")
        if spread is None:
            return None
        shaped = self.to(spread.inputs[0], "reshape")
        vector = shaped.inputs[0] if shaped else None
        if vector is None or vector.type.rank != 1:
            return None
        sizes = spread.inputs[0].type.shape
        is_aligned = len(sizes) == rank - 1 and sizes == (vector.type.size, *[1] * (rank - 2))
        return vector if is_aligned else None


def scalar(value: Value) -> float | None:
    """Return the number that a value is everywhere."""
    node = value.node
    if node.op.name == "broadcast":
        node = node.inputs[0].node
    array = node.attrs["value"].array if node.op.name == "constant" else None
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def _is(value: Value, number: float) -> bool:
    found = scalar(value)
    return found is not None and math.isclose(found, number, rel_tol=1e-6)


def _times(node: Node, number: float) -> Value | None:
    """Return x of x * number."""
    for one, other in (node.inputs, node.inputs[::-1]):
        if _is(other, number):
            return one
    return None


def _gelu(node: Node) -> Match | None:
    """x / 2 (1 + erf(x / sqrt 2)), or with tanh(sqrt(2 / pi) (x + 0.044715 x³))."""
    walk = _Walk()
    first = walk.pair(node, "add")
    half = walk.to(first[1], "mul") if first else None
    if first is None or half is None or (x := _times(half, 0.5)) is None:
        return None
    curve = _times(first[0], 1.0) if first[0].op.name == "mul" else None
    curve = next((a for a, b in _orders(first[0]) if _is(b, 1.0)), curve)
    if curve is None or (bent := walk.to(curve, curve.node.op.name)) is None:
        return None
    scaled = walk.to(bent.inputs[0], "mul") if bent.inputs else None
    if scaled is None:
        return None
    if bent.op.name == "erf" and _times(scaled, ROOT_HALF) == x:
        return Match("Gelu", (x,), {}, tuple(walk.passed))
    inner = _times(scaled, ROOT_2_PI) if bent.op.name == "tanh" else None
    total = walk.to(inner, "add") if inner else None
    if total is None or x not in total.inputs:
        return None
    other = total.inputs[1] if total.inputs[0] == x else total.inputs[0]
    cubic = walk.to(other, "mul")
    cube = _times(cubic, CUBIC) if cubic else None
    third = walk.to(cube, "mul") if cube else None
    if third is None or x not in third.inputs:
        return None
    square = walk.to(third.inputs[1] if third.inputs[0] == x else third.inputs[0], "mul")
    if square is None or square.inputs != (x, x):
        return None
    return Match("Gelu", (x,), {"approximate": "tanh"}, tuple(walk.passed))


def _orders(node: Node) -> list[tuple[Value, Value]]:
    return [(a, b) for a, b in (node.inputs, node.inputs[::-1])]


def _layer_norm(node: Node) -> Match | None:
    """A standardised operand times a weight, and perhaps a bias, along the last axes."""
    walk = _Walk()
    scaled = walk.pair(node, "mul")
    inner = walk.pair(scaled[0], "standardize") if scaled else None
    if scaled is None or inner is None or rule_for(inner[0]) is None:
        return None
    axes = inner[0].attrs["axes"]
    weights = []
    for value in (inner[1], scaled[1]):
        spread = walk.to(value, "broadcast")
        if spread is None or spread.inputs[0].type.shape != node.type.shape[axes[0] :]:
            return None
        weights.append(spread.inputs[0])
    attrs = {"axis": axes[0], "epsilon": inner[0].attrs["eps"]}
    operands = (inner[0].inputs[0], *weights)
    return Match("LayerNormalization", operands, attrs, tuple(walk.passed))


def _batch_norm(node: Node) -> Match | None:
    """(x - mean) / sqrt(var + eps) weight + bias, each by channel."""
    walk, rank = _Walk(), node.type.rank
    outer = walk.pair(node, "mul")
    inner = walk.pair(outer[0], "mul") if outer else None
    if outer is None or inner is None:
        return None
    centred = next((walk.to(v, "sub") for v in inner[0].inputs if v.node.op.name == "sub"), None)
    root = next((walk.to(v, "rsqrt") for v in inner[0].inputs if v.node.op.name == "rsqrt"), None)
    total = walk.to(root.inputs[0], "add") if root else None
    if centred is None or total is None or (eps := scalar(total.inputs[1])) is None:
        return None
    given = (inner[1], outer[1], centred.inputs[1], total.inputs[0])
    vectors = [walk.per_channel(value, rank) for value in given]
    if any(vector is None for vector in vectors):
        return None
    operands = (centred.inputs[0], *(vector for vector in vectors if vector is not None))
    return Match("BatchNormalization", operands, {"epsilon": eps}, tuple(walk.passed))


def _biased_convolution(node: Node) -> Match | None:
    """A convolution that needs nothing before it, plus a number by channel."""
    walk = _Walk()
    found = walk.pair(node, "convolution")
    bias = walk.per_channel(found[1], node.type.rank) if found else None
    if found is None or bias is None or rule_for(found[0]) is None:
        return None
    attrs = found[0].attrs
    low, high = zip(*attrs["padding"], strict=True)
    if min(*low, *high) < 0 or set(attrs["lhs_dilation"]) != {1}:
        return None
    written = {
        "pads": [*low, *high], "strides": list(attrs["strides"]),
        "dilations": list(attrs["dilation"]), "group": attrs["groups"],
        "kernel_shape": list(found[0].inputs[1].type.shape[2:]),
    }  # fmt: skip
    return Match("Conv", (*found[0].inputs, bias), written, tuple(walk.passed))


def _windows(walk: _Walk, value: Value, fill: float) -> tuple[Value, dict[str, Any]] | None:
    """Return what windows look at, and how, for a pool over all axes but the first two."""
    view = walk.to(value, "windows")
    if view is None or len(view.attrs["sizes"]) != view.inputs[0].type.rank - 2:
        return None
    x, count = view.inputs[0], len(view.attrs["sizes"])
    low = high = (0,) * (count + 2)
    if x.node.op.name == "pad" and np.array_equal(x.node.attrs["fill"], fill):
        walk.passed.append(x.node)
        low, high = x.node.attrs["low"], x.node.attrs["high"]
        x = x.node.inputs[0]
    sizes = view.attrs["sizes"]
    pads = [*low[2:], *high[2:]]
    is_inside = all(0 <= each < size for each, size in zip(pads, (*sizes, *sizes), strict=True))
    if not is_inside or any((*low[:2], *high[:2])):
        return None
    return x, {
        "kernel_shape": list(sizes), "strides": list(view.attrs["strides"]),
        "dilations": list(view.attrs["dilation"]), "pads": pads,
    }  # fmt: skip


def _max_pool(node: Node) -> Match | None:
    """The largest in each window; which one ONNX takes beside a NaN is open."""
    walk = _Walk()
    flat = walk.to(node.inputs[0], "reshape")
    found = _windows(walk, flat.inputs[0], -np.inf) if flat else None
    rank = node.type.rank
    if found is None or node.attrs["axis"] != rank or not node.type.dtype.is_float:
        return None
    return Match("MaxPool", (found[0],), found[1], tuple(walk.passed))


def _average_pool(node: Node) -> Match | None:
    """A sum of each window over their size."""
    walk = _Walk()
    sum_ = walk.pair(node, "sum")
    found = _windows(walk, sum_[0].inputs[0], 0.0) if sum_ else None
    if sum_ is None or found is None:
        return None
    x, attrs = found
    count = math.prod(attrs["kernel_shape"])
    rank = node.type.rank
    axes = tuple(range(rank, 2 * rank - 2))
    if tuple(sum_[0].attrs["axes"]) != axes or not _is(sum_[1], 1 / count):
        return None
    if set(attrs.pop("dilations")) != {1}:
        return None
    return Match("AveragePool", (x,), {**attrs, "count_include_pad": 1}, tuple(walk.passed))


def _attention(node: Node) -> Match | None:
    """Attention without a mask; runtimes differ on queries that a mask lets see nothing."""
    attrs, types = node.attrs, [value.type for value in node.inputs]
    has_form = len(types) == 3 and all(
        each.rank == 4 and each.size and each.dtype is DType.F32 for each in types
    )
    if not has_form or attrs["scale"] <= 0:
        return None
    written = {"scale": attrs["scale"], "is_causal": int(attrs["causal"])}
    if attrs.get("softcap"):
        written["softcap"] = attrs["softcap"]
    return Match("Attention", node.inputs, written, ())


Pattern = Callable[[Node], Match | None]

# By the last op; the opset that has the operator, and the pattern.
PATTERNS: Mapping[str, tuple[tuple[int, Pattern], ...]] = {
    "add": ((18, _batch_norm), (18, _layer_norm), (18, _biased_convolution)),
    "mul": ((20, _gelu), (18, _average_pool)),
    "first_max": ((18, _max_pool),),
    "attention": ((23, _attention),),
}
