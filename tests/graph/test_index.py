"""Index expressions: exact for every value of their variables, and as simple as they can be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asg.index import Index, Var, constant, flatten, opaque, render, unflatten, variable

VARIABLES = (variable("a", 7), variable("b", 16), variable("c", 4), variable("d", 30))


def _atom(index: Index) -> Var:
    atom = index.terms[0][0]
    assert isinstance(atom, Var)
    return atom


@st.composite
def _expressions(draw: st.DrawFn) -> tuple[Index, str]:
    """An expression, and the same as Python source."""
    index, text = draw(st.sampled_from([(v, _atom(v).name) for v in VARIABLES]))
    for _ in range(draw(st.integers(0, 6))):
        match draw(st.integers(0, 4)):
            case 0:
                other, name = draw(st.sampled_from([(v, _atom(v).name) for v in VARIABLES]))
                index, text = index + other, f"({text} + {name})"
            case 1:
                number = draw(st.integers(-9, 9))
                index, text = index + number, f"({text} + {number})"
            case 2:
                number = draw(st.sampled_from([-3, -1, 2, 3, 4, 8, 12]))
                index, text = index * number, f"({text} * {number})"
            case 3:
                number = draw(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16]))
                index, text = index // number, f"({text} // {number})"
            case _:
                number = draw(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16]))
                index, text = index % number, f"({text} % {number})"
    return index, text


@given(_expressions(), st.randoms(use_true_random=False))
def test_simplified_means_the_same(made: tuple[Index, str], chance: object) -> None:
    index, text = made
    for _ in range(8):
        values = {_atom(v): chance.randint(0, v.high) for v in VARIABLES}  # type: ignore[attr-defined]
        names = {atom.name: value for atom, value in values.items()}
        expected = eval(text, {}, names)
        assert index.evaluate(values) == expected
        assert index.low <= expected <= index.high


@given(_expressions())
def test_nothing_negative_is_divided(made: tuple[Index, str]) -> None:
    """Kernels compute in u32: an operand of / or % must not be negative."""
    pending = [made[0]]
    while pending:
        for atom, _ in pending.pop().terms:
            if hasattr(atom, "operand"):
                assert atom.operand.low >= 0
                pending.append(atom.operand)


@pytest.mark.parametrize("shape", [(4, 16, 16), (1, 7, 3), (5,), (2, 1, 2)])
def test_flatten_undoes_unflatten(shape: tuple[int, ...]) -> None:
    size = 1
    for each in shape:
        size *= each
    i = variable("i", size)
    assert flatten(unflatten(i, shape), shape) == i


def test_reshapes_cancel() -> None:
    quad, lane = variable("q", 256), variable("e", 4)
    flat = quad * 4 + lane
    for shape in ((4, 16, 16), (16, 64), (2, 512)):
        assert flatten(unflatten(flat, shape), shape) == flat


def test_rows_of_a_transposed_view() -> None:
    row, column = variable("row", 12), variable("column", 8)
    assert flatten((column, row), (8, 12)) == column * 12 + row
    assert (row * 8 + column) // 8 == row
    assert (row * 8 + column) % 8 == column


def test_text() -> None:
    i = variable("i", 100)
    text = render(i // 8 * 12 + i % 8 + 3, lambda atom: atom.name, "u")  # type: ignore[union-attr]
    assert text == "i / 8u * 12u + i % 8u + 3u"
    assert render(constant(0), str) == "0"
    assert render(opaque("place", 5) * 2, lambda atom: str(atom.key)) == "place * 2"  # type: ignore[union-attr]


def test_division_by_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="divided by positive constants only, got 0"):
        variable("i", 4) // 0


def test_reduced_remainders_meet_their_quotients() -> None:
    """`4 k % 3` is written `k % 3`, and still belongs to `4 k // 3`."""
    k, lane = variable("k", 144), variable("e", 4)
    for shape in ((64, 3, 3), (8, 8, 3, 3), (12, 12, 4)):
        assert flatten(unflatten(k * 4 + lane, shape), shape) == k * 4 + lane
        assert flatten(unflatten(k * 4, shape), shape) == k * 4


def test_remainders_within_a_remainder_are_one() -> None:
    k = variable("k", 4 * 14 * 14)
    assert k // 14 % 14 * 14 + k % 14 == k % 196
    assert (k // 14 % 14 * 14 + k % 14) * 3 + k // 196 * 588 == k * 3
    _, row, column = unflatten(k, (4, 14, 14))
    assert flatten((row, column), (14, 14)) == k % 196
    assert k // 14 % 13 * 14 + k % 14 == k % 182
    assert str(k // 14 % 14 * 13 + k % 14) != str(k % 196)
