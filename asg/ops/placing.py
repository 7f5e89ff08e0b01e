"""Updates put into rows at places known only at run time, in a fixed order.

Updates are sorted by the row that they go to, so that those of a row follow each other, in the
order in which they were given. Each row then finds its own by bisection and goes through them:
there are no atomics, and the same inputs give the same bits.
"""

from __future__ import annotations

from math import prod

import numpy as np

from asg.errors import DTypeError, ShapeError
from asg.graph import Attrs
from asg.op import (
    Array,
    BadSample,
    Combine,
    Composite,
    Example,
    Op,
    Procedure,
    Sample,
    no_gradient,
    not_differentiable,
)
from asg.ops.arithmetic import div, mul, sub
from asg.ops.bits import bitwise_and
from asg.ops.convert import cast
from asg.ops.cumulative import linear_recurrence, shifted
from asg.ops.indexing import gather
from asg.ops.logic import equal, greater, greater_equal, less, select
from asg.ops.movement import broadcast, flip, reshape, slice_
from asg.ops.rules import NUMBER, accept, expect
from asg.ops.sorting import LAST, sort_rows
from asg.ops.sources import constant, iota
from asg.tensor import Tensor
from asg.types import DType, Shape, TensorType

COMBINES = {
    "none": None,
    "add": Combine.SUM,
    "mul": Combine.PROD,
    "max": Combine.MAX,
    "min": Combine.MIN,
}
_NUMPY: dict[Combine, np.ufunc] = {
    Combine.SUM: np.add,
    Combine.PROD: np.multiply,
    Combine.MAX: np.maximum,
    Combine.MIN: np.minimum,
}


def _search_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 2)
    keys, wanted = types
    if keys.dtype is not DType.U32 or wanted.dtype is not DType.U32:
        raise DTypeError(f"keys must be u32, got {keys} and {wanted}")
    if keys.rank == 0 or keys.shape[:-1] != wanted.shape[:-1] or wanted.rank == 0:
        raise ShapeError(f"each row of {wanted} is looked for in a row of {keys}")
    return TensorType(wanted.shape, DType.I32)


def _search_numpy(keys: Array, wanted: Array, right: bool) -> Array:
    rows = keys.reshape(prod(keys.shape[:-1]), keys.shape[-1])
    found = np.zeros(wanted.shape, np.int32)
    table = found.reshape(rows.shape[0], wanted.shape[-1])
    for row, each in enumerate(wanted.reshape(table.shape)):
        table[row] = np.searchsorted(rows[row], each, "right" if right else "left")
    return found


search_rows = Op(
    name="search_rows",
    doc="How many keys of a sorted row are less than each wanted one; with `right`, not greater.",
    kind=Procedure("search"),
    shape=_search_rule,
    numpy=_search_numpy,
    grad=not_differentiable("a position has no gradient"),
    examples=[
        Example([[[1, 3, 3, 7]], [[3, 0, 9]]], [[1, 0, 4]], {"right": False}, dtypes=["u32"] * 2),
        Example([[1, 3, 3, 7], [3, 0, 9]], [3, 0, 4], {"right": True}, dtypes=["u32"] * 2),
    ],
    samples=[
        Sample(["u32[3, 1]", "u32[3, 5]"], {"right": False}, low=0, high=4),
        Sample(["u32[1]", "u32[7]"], {"right": True}, low=0, high=4),
        Sample(["u32[2, 0]", "u32[2, 3]"], {"right": True}, low=0, high=4),
    ],
    errors=[
        BadSample(["i32[3]", "u32[3]"], "search_rows: keys must be u32", {"right": False}),
        BadSample(["u32[2, 3]", "u32[3]"], "each row of u32[3]", {"right": False}),
    ],
)


def _segments_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 5)
    x, first, end, order, updates = types
    accept(x, NUMBER)
    if updates.dtype is not x.dtype:
        raise DTypeError(f"updates must be {x.dtype} like x, got {updates}")
    if any(each.dtype is not DType.I32 for each in (first, end, order)):
        raise DTypeError(f"places must be i32, got {first}, {end} and {order}")
    is_matrix = x.rank == 2 and updates.rank == 2 and updates.shape[1] == x.shape[1]
    is_listed = first.shape == end.shape == x.shape[:1] and order.shape == updates.shape[:1]
    if not is_matrix or not is_listed:
        raise ShapeError(f"rows and updates do not go together: {x}, {first}, {order}, {updates}")
    return x


def _segments(name: str, combine: Combine, doc: str, found: list[float]) -> Op:
    function = _NUMPY[combine]

    def numpy(x: Array, first: Array, end: Array, order: Array, updates: Array) -> Array:
        result = np.array(x)
        for step in range(int(np.max(end - first, initial=0))):
            rows = np.flatnonzero(first + step < end)
            result[rows] = function(result[rows], updates[order[first[rows] + step]])
        return result

    return Op(
        name=name,
        doc=f"{doc} of each row of `x` and the updates `order[first]` up to `order[end - 1]`.",
        kind=Procedure("segments", combine),
        shape=_segments_rule,
        numpy=numpy,
        grad=no_gradient("gradients are taken before updates are sorted"),
        examples=[
            Example(
                [[[2.0], [1.0]], [0, 2], [2, 2], [1, 0, 2], [[3.0], [-5.0], [9.0]]],
                [[found[0]], [found[1]]],
                dtypes=["f32", "i32", "i32", "i32", "f32"],
            )
        ],
        samples=[
            Sample(
                ["f32[3, 2]", "i32[3]", "i32[3]", "i32[5]", "f32[5, 2]"],
                lows=[-2, 0, 1, 0, -2],
                highs=[2, 2, 5, 4, 2],
            )
        ],
        errors=[
            BadSample(["f32[3]", "i32[3]", "i32[3]", "i32[5]", "f32[5]"], "do not go together"),
            BadSample(["f32[3, 1]", "u32[3]", "i32[3]", "i32[5]", "f32[5, 1]"], "must be i32"),
            BadSample(["i32[3, 1]", "i32[3]", "i32[3]", "i32[5]", "f32[5, 1]"], "must be i32 like"),
        ],
    )


segments_sum = _segments("segments_sum", Combine.SUM, "The sum", [0.0, 1.0])
segments_prod = _segments("segments_prod", Combine.PROD, "The product", [-30.0, 1.0])
segments_max = _segments("segments_max", Combine.MAX, "The largest", [3.0, 1.0])
segments_min = _segments("segments_min", Combine.MIN, "The smallest", [-5.0, 1.0])
_SEGMENTS = {
    "add": segments_sum,
    "mul": segments_prod,
    "max": segments_max,
    "min": segments_min,
}


def _scatter_rule(types: tuple[TensorType, ...], attrs: Attrs) -> TensorType:
    expect(types, 3)
    x, places, updates = types
    if attrs["combine"] not in COMBINES:
        raise ShapeError(f"combine is one of {', '.join(COMBINES)}, got {attrs['combine']!r}")
    if attrs["combine"] != "none":
        accept(x, NUMBER)
    if updates.dtype is not x.dtype:
        raise DTypeError(f"updates must be {x.dtype} like x, got {updates}")
    if places.dtype is not DType.I32:
        raise DTypeError(f"places must be i32, got {places}")
    if x.rank != 2 or places.rank != 1 or updates.shape != (places.size, x.shape[1]):
        raise ShapeError(f"{updates} at {places} are no rows of {x}")
    return x


def _scatter_numpy(x: Array, places: Array, updates: Array, combine: str) -> Array:
    result = np.array(x)
    inside = (places >= 0) & (places < x.shape[0])
    rows, given = places[inside], updates[inside]
    kind = COMBINES[combine]
    if kind is None:
        for row, update in zip(rows, given, strict=True):
            result[row] = update
    else:
        _NUMPY[kind].at(result, rows, given)
    return result


def _sorted(places: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Return the rows that updates go to in order, as keys, and which update each one is."""
    is_inside = bitwise_and(greater_equal(places, 0), less(places, rows))
    key = select(is_inside, cast(places, DType.U32), constant(LAST, DType.U32))
    keys, order = sort_rows(key, count=places.size)
    return keys, order


def _ranges(keys: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Return for each row where its updates begin and end among the sorted ones."""
    wanted = iota(shape=(rows + 1,), axis=0, dtype=DType.U32)
    bounds = search_rows(keys, wanted, right=False)
    return tuple(
        slice_(bounds, starts=(start,), stops=(start + rows,), steps=(1,)) for start in (0, 1)
    )


def _spread(column: Tensor, shape: Shape) -> Tensor:
    result: Tensor = broadcast(reshape(column, shape=(*column.shape, 1)), shape=shape)
    return result


def add_sorted(x: Tensor, places: Tensor, updates: Tensor) -> Tensor:
    """Add the rows `updates` to those of `x` that they go to, in order."""
    keys, order = _sorted(places, x.shape[0])
    result: Tensor = segments_sum(x, *_ranges(keys, x.shape[0]), order, updates)
    return result


def _scatter_expand(attrs: Attrs, x: Tensor, places: Tensor, updates: Tensor) -> Tensor:
    if x.size == 0 or places.size == 0:
        whole: Tensor = reshape(x, shape=x.shape)
        return whole
    rows = x.shape[0]
    keys, order = _sorted(places, rows)
    first, end = _ranges(keys, rows)
    if attrs["combine"] != "none":
        found: Tensor = _SEGMENTS[attrs["combine"]](x, first, end, order, updates)
        return found
    winner = gather(order, sub(end, 1), axis=0)
    result: Tensor = select(
        _spread(greater(end, first), x.shape), gather(updates, winner, axis=0), x
    )
    return result


def _at(rows: Tensor, places: Tensor) -> Tensor:
    """Return the rows that updates go to; zeros for what is dropped."""
    is_inside = bitwise_and(greater_equal(places, 0), less(places, rows.shape[0]))
    shape = (places.size, rows.shape[1])
    result: Tensor = select(
        _spread(is_inside, shape), gather(rows, select(is_inside, places, 0), axis=0), 0.0
    )
    return result


def _zeros(shape: Shape) -> Tensor:
    result: Tensor = broadcast(constant(0.0), shape=shape)
    return result


def _scatter_grad(
    node: Tensor, g: Tensor, x: Tensor, places: Tensor, updates: Tensor
) -> list[Tensor | None]:
    if x.size == 0 or places.size == 0:
        return [g, None, _zeros(updates.shape)]
    match node.attrs["combine"]:
        case "none":
            return _replaced_grad(g, x, places, updates)
        case "add":
            return [g, None, _at(g, places)]
        case "mul":
            return _product_grad(g, x, places, updates)
        case _:
            return _extreme_grad(node, g, x, places, updates)


def _replaced_grad(g: Tensor, x: Tensor, places: Tensor, updates: Tensor) -> list[Tensor | None]:
    """Only the last update of a row has a part in the result, and where there is one, `x` none."""
    number = reshape(iota(shape=places.shape, axis=0, dtype=DType.I32), shape=(places.size, 1))
    none = broadcast(constant(-1), shape=(x.shape[0], 1))
    last = scatter_rows(none, places, number, combine="none")
    is_kept = broadcast(less(last, 0), shape=x.shape)
    wins = equal(gather(last, select(less(places, 0), 0, places), axis=0), number)
    return [
        select(is_kept, g, 0.0),
        None,
        select(broadcast(wins, shape=updates.shape), _at(g, places), 0.0),
    ]


def _extreme_grad(
    node: Tensor, g: Tensor, x: Tensor, places: Tensor, updates: Tensor
) -> list[Tensor | None]:
    """All that equal the result share its cotangent."""
    own = equal(x, node)
    chosen = equal(updates, _at(node, places))
    count = scatter_rows(cast(own, DType.F32), places, cast(chosen, DType.F32), combine="add")
    share = div(g, count)
    return [select(own, share, 0.0), None, select(chosen, _at(share, places), 0.0)]


def _product_grad(g: Tensor, x: Tensor, places: Tensor, updates: Tensor) -> list[Tensor | None]:
    """A factor's cotangent is multiplied by all others: by `x`, and by those before and after it
    among the sorted updates of its row. Nothing is divided, so zeros are no special case."""
    rows = x.shape[0]
    keys, order = _sorted(places, rows)
    factors = gather(updates, order, axis=0)
    before = _others(keys, factors)
    after = flip(_others(flip(keys, axes=(0,)), flip(factors, axes=(0,))), axes=(0,))
    _, rank = sort_rows(cast(order, DType.U32), count=places.size)
    others = gather(mul(before, after), rank, axis=0)
    ones = broadcast(constant(1.0), shape=x.shape)
    product = scatter_rows(ones, places, updates, combine="mul")
    return [mul(g, product), None, mul(_at(mul(g, x), places), others)]


def _others(keys: Tensor, factors: Tensor) -> Tensor:
    """Return the product of the factors before each one that have its key."""
    same = equal(keys, shifted(keys, 0, 1, 0))
    is_first = equal(iota(shape=keys.shape, axis=0, dtype=DType.I32), 0)
    goes_on = _spread(bitwise_and(same, equal(is_first, constant(False))), factors.shape)
    step = select(goes_on, shifted(factors, 0, 1, 1), 0.0)
    result: Tensor = linear_recurrence(step, select(goes_on, 0.0, 1.0), axis=0)
    return result


def _example(combine: str, found: list[float]) -> Example:
    return Example(
        [[[1.0], [2.0], [4.0]], [2, 0, 2, 3, -1], [[10.0], [20.0], [3.0], [7.0], [7.0]]],
        [[each] for each in found],
        {"combine": combine},
        dtypes=["f32", "i32", "f32"],
    )


scatter_rows = Op(
    name="scatter_rows",
    doc="Rows of `x`, combined with the rows `updates` that go to `places`, in the order given:"
    " `add`, `mul`, `max`, `min`, or `none`, where the last one replaces what was there. Places"
    " that are no row are left out.",
    kind=Composite(_scatter_expand),
    shape=_scatter_rule,
    numpy=_scatter_numpy,
    grad=_scatter_grad,
    examples=[
        _example("none", [20.0, 2.0, 3.0]),
        _example("add", [21.0, 2.0, 17.0]),
        _example("mul", [20.0, 2.0, 120.0]),
        _example("max", [20.0, 2.0, 10.0]),
        _example("min", [1.0, 2.0, 3.0]),
    ],
    samples=[
        Sample(
            ["f32[5, 3]", "i32[7]", "f32[7, 3]"],
            {"combine": combine},
            lows=[-2, -2, -2],
            highs=[2, 6, 2],
        )
        for combine in COMBINES
    ]
    + [
        Sample(["i32[4, 1]", "i32[9]", "i32[9, 1]"], {"combine": "mul"}, low=-3, high=3),
        Sample(["bool[4, 2]", "i32[3]", "bool[3, 2]"], {"combine": "none"}, low=0, high=3),
        Sample(["f32[3, 2]", "i32[0]", "f32[0, 2]"], {"combine": "add"}),
        Sample(["f32[0, 2]", "i32[2]", "f32[2, 2]"], {"combine": "none"}),
    ],
    errors=[
        BadSample(["f32[3, 1]", "i32[2]", "f32[2, 1]"], "combine is one of", {"combine": "div"}),
        BadSample(["f32[3, 1]", "f32[2]", "f32[2, 1]"], "places must be i32", {"combine": "add"}),
        BadSample(["f32[3, 1]", "i32[2]", "f32[2, 2]"], "are no rows of", {"combine": "add"}),
        BadSample(["bool[3, 1]", "i32[2]", "bool[2, 1]"], "needs a number", {"combine": "add"}),
    ],
)

OPS = (scatter_rows, segments_sum, segments_prod, segments_max, segments_min, search_rows)
