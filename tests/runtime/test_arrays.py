"""What is taken for an input of each element type, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import asg
from asg.errors import InputError, NonFiniteError
from asg.runtime import arrays
from asg.runtime.arrays import check_finite, from_words, to_array, to_words
from asg.types import parse_type, spec


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("f32", np.array([1.5, 2.5], np.float32), np.array([1.5, 2.5], np.float32)),
        ("f32", np.array([0.1, np.inf]), np.array([0.1, np.inf], np.float32)),
        ("f32", np.array([1.5, 2.5], np.float16), np.array([1.5, 2.5], np.float32)),
        ("f32", [1, 2], np.array([1, 2], np.float32)),
        ("f32", np.array([1, 2], np.uint8), np.array([1, 2], np.float32)),
        ("i32", [1, -2], np.array([1, -2], np.int32)),
        ("i32", np.array([2**31 - 1, -(2**31)]), np.array([2**31 - 1, -(2**31)], np.int32)),
        ("u32", [0, 2**32 - 1], np.array([0, 2**32 - 1], np.uint32)),
        ("bool", [True, False], np.array([1, 0], np.uint32)),
        ("f32", np.arange(4, dtype=np.float32)[::2], np.array([0, 2], np.float32)),
    ],
)
def test_taken(dtype: str, value: object, expected: np.ndarray[Any, Any]) -> None:
    words = to_words("x", spec((2,), dtype), value)
    assert words.dtype == expected.dtype
    assert words.flags.c_contiguous
    np.testing.assert_array_equal(words, expected)


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        (
            "f32",
            [1.0, 2.0, 3.0],
            "main: input 'x' has shape [3], and [2] is needed (f32[2])",
        ),
        ("f32", 1.0, "main: input 'x' has shape [], and [2] is needed (f32[2])"),
        (
            "i32",
            [1.0, 2.0],
            "main: input 'x' has dtype float64, and i32 is needed\n"
            "  fix: convert it: .astype('int32')",
        ),
        (
            "f32",
            [True, False],
            "main: input 'x' has dtype bool, and f32 is needed\n"
            "  fix: convert it: .astype('float32')",
        ),
        (
            "bool",
            [1, 0],
            "main: input 'x' has dtype int64, and bool is needed\n"
            "  fix: convert it: .astype('bool')",
        ),
        (
            "i32",
            [1, 2**31],
            "main: input 'x' holds 2147483648, outside the range of i32 "
            "(-2147483648 to 2147483647)",
        ),
        (
            "u32",
            [-1, 2],
            "main: input 'x' holds -1, outside the range of u32 (0 to 4294967295)",
        ),
        ("f32", [1.0, 1e39], "main: input 'x' holds values that f32 can't: 1e+39"),
        ("f32", ["a", "b"], "main: input 'x' has dtype <U1, and f32 is needed\n"),
        ("f32", [object(), None], "main: input 'x' is no array of numbers: list"),
        ("f32", [[1.0], [1.0, 2.0]], "main: input 'x' is no array: "),
    ],
)
def test_refused(dtype: str, value: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        to_words("main: input 'x'", spec((2,), dtype), value)
    text = str(caught.value)
    assert text == message or (message.endswith((": ", "\n")) and text.startswith(message))


def test_same_array_is_not_copied() -> None:
    array = np.ones((2, 3), np.float32)
    assert to_array("x", spec((2, 3)), array) is array
    assert np.shares_memory(to_words("x", spec((2, 3)), array), array)


def test_empty_integers_are_in_range() -> None:
    assert to_words("x", spec((0,), "i32"), np.zeros(0, np.int64)).dtype == np.int32


def test_words_become_arrays() -> None:
    data = np.array([1, 0, 7], np.uint32).view(np.uint8)
    found = from_words(data, spec((3,), "bool"))
    assert found.dtype == np.bool_
    assert found.tolist() == [True, False, True]
    source = np.array([1.5], np.float32).view(np.uint8)
    numbers = from_words(source, spec((1, 1)))
    assert numbers.tolist() == [[1.5]]
    assert not np.shares_memory(numbers, source)


def test_nonfinite_results() -> None:
    check_finite("train", {"n": np.array([1, 2]), "loss": np.array(1.0)})
    loss = np.array([[1.0, 2.0], [np.nan, np.inf]], np.float32)
    with pytest.raises(NonFiniteError) as caught:
        check_finite("train", {"n": np.array(1), "loss": loss})
    assert str(caught.value).splitlines()[0] == (
        "train: output 'loss' is not finite: nan at [1, 0], 2 of 4 elements"
    )


@pytest.fixture
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_rounded", set())


@pytest.mark.usefixtures("nothing_told")
def test_rounding_is_told_once_for_each_name(caplog: pytest.LogCaptureFixture) -> None:
    kind = parse_type("f32[2]")
    for _ in range(2):
        found = to_words("main: input 'x'", kind, np.array([0.5, 0.1]))
        np.testing.assert_array_equal(found, np.array([0.5, 0.1], np.float32))
    assert caplog.messages == [
        "main: input 'x' is float64 and is rounded to f32: 0.1 at [1] becomes 0.10000000149011612; "
        "fix: hand it in as float32, which says that this is meant (this is told once)"
    ]
    to_words("main: input 'y'", kind, np.array([2**24 + 1, 3]))
    assert caplog.messages[1:] == [
        "main: input 'y' is int64 and is rounded to f32: 16777217 at [0] becomes 16777216.0; "
        "fix: hand it in as float32, which says that this is meant (this is told once)"
    ]


@pytest.mark.usefixtures("nothing_told")
@pytest.mark.parametrize(
    "given",
    [
        np.array([0.5, 2.0**100]),
        np.array([np.nan, -np.inf]),
        np.array([7, -(2**24)]),
        np.array([0.1, 0.2], np.float32),
        np.array([0.1, 0.2], np.float16),
        [0.1, 0.2],  # Python's numbers have no precision of their own
    ],
)
def test_what_is_exact_is_not_told(given: Any, caplog: pytest.LogCaptureFixture) -> None:
    to_words("main: input 'x'", parse_type("f32[2]"), given)
    assert not caplog.messages


@pytest.mark.usefixtures("nothing_told")
@pytest.mark.parametrize("target", ["numpy", pytest.param("wgpu", marks=pytest.mark.device)])
def test_executables_tell_it(target: str, caplog: pytest.LogCaptureFixture) -> None:
    x = asg.input("x", (3,))
    with asg.compile(asg.graph(outputs={"y": x + x}), target=target) as exe:
        for _ in range(2):
            exe({"x": np.array([0.1, 0.2, 0.3])})
    (told,) = caplog.messages
    assert told.startswith("main: input 'x' is float64 and is rounded to f32: 0.1 at [0] becomes")
