"""Index maps of views and joins move data as their NumPy rules do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from asg import ops
from asg.index import Index, Var, variable
from asg.op import Join, Op, Sample, Source, View
from asg.types import parse_type
from support.samples import draw, name_sample, sample_graph

Array = np.ndarray[Any, Any]

VIEWS = [(op, s) for op in ops.TABLE.values() if isinstance(op.kind, View) for s in op.samples]
JOINS = [(op, s) for op in ops.TABLE.values() if isinstance(op.kind, Join) for s in op.samples]


def _ids(cases: list[tuple[Op, Sample]]) -> list[str]:
    return [name_sample(op, sample) for op, sample in cases]


def _variables(shape: tuple[int, ...]) -> tuple[Index, ...]:
    return tuple(variable(f"i{axis}", size) for axis, size in enumerate(shape))


def _at(place: tuple[int, ...], shape: tuple[int, ...]) -> dict[Any, int]:
    sizes = enumerate(zip(place, shape, strict=True))
    return {Var(f"i{axis}", 0, size - 1): c for axis, (c, size) in sizes}


@pytest.mark.parametrize(("op", "sample"), VIEWS, ids=_ids(VIEWS))
def test_access_reads_what_numpy_moves(op: Op, sample: Sample) -> None:
    assert isinstance(op.kind, View)
    attrs, (x,) = sample.attrs or {}, draw(op, sample)
    shape = sample_graph(op, sample).outputs["y0"].type.shape
    if math.prod(shape) == 0:
        return
    access = op.kind.access(attrs, x.shape, shape, _variables(shape))
    expected = op.numpy(x, **attrs)
    for place in np.ndindex(shape):
        values = _at(place, shape)
        inside = all(low <= i.evaluate(values) < high for i, low, high in access.guards)
        source = tuple(i.evaluate(values) for i in access.coordinates)
        assert expected[place] == (x[source] if inside else attrs.get("fill", 0))


@pytest.mark.parametrize(("op", "sample"), VIEWS, ids=_ids(VIEWS))
def test_inverse_undoes_access(op: Op, sample: Sample) -> None:
    assert isinstance(op.kind, View)
    if op.kind.inverse is None:
        return
    attrs, source = sample.attrs or {}, parse_type(sample.types[0]).shape
    shape = sample_graph(op, sample).outputs["y0"].type.shape
    if math.prod(shape) == 0:
        return
    back = op.kind.inverse(attrs, source, shape, _variables(source))
    there = op.kind.access(attrs, source, shape, back).coordinates
    for place in np.ndindex(source):
        values = _at(place, source)
        assert tuple(i.evaluate(values) for i in there) == place


@pytest.mark.parametrize(("op", "sample"), JOINS, ids=_ids(JOINS))
def test_joins_put_operands_at_their_starts(op: Op, sample: Sample) -> None:
    assert isinstance(op.kind, Join)
    attrs, arrays = sample.attrs or {}, draw(op, sample)
    types = tuple(parse_type(text) for text in sample.types)
    axis = op.kind.axis(attrs)
    result = op.numpy(*arrays, **attrs)
    seen = np.zeros(result.shape, bool)
    for array, start in zip(arrays, op.kind.starts(attrs, types), strict=True):
        part = array.reshape(-1) if op.kind.flat else array
        place = (slice(None),) * axis + (slice(start, start + part.shape[axis]),)
        np.testing.assert_array_equal(result[place], part)
        seen[place] = True
    assert not result[~seen].any()


def test_iota_is_its_coordinate() -> None:
    kind = ops.sources.iota.kind
    assert isinstance(kind, Source)
    assert kind.index is not None
    coordinates = _variables((3, 4))
    assert kind.index({"axis": 1}, coordinates) == coordinates[1]
