"""Types that are read quickly are those that cffi reads."""

from __future__ import annotations

from typing import Any

import pytest
from cffi import FFI, CDefError

from asg.runtime.c_types import hasten

HEADER = """
typedef struct BufferImpl* Buffer;
typedef enum { First = 1, Second = 2 } Mode;
typedef struct { int x; Buffer buffer; Mode mode; uint64_t size; } Info;
typedef void (*Callback)(Mode mode, Info const * info, void * data);
struct Node { struct Node *next; char name[4]; };
"""
NARROW = [
    "Buffer", "Buffer[]", "Buffer[3]", "Info *", "Info * ", "Info const *", "struct Node *",
    "Callback", "void(Mode, Info, void *, size_t)", "uint8_t []", "char[5]", "void *",
]  # fmt: skip
WHOLE = ["char[Second]", "struct NeverDeclared *"]


def read(is_hastened: bool) -> tuple[FFI, list[str]]:
    """Return a reader of the header, and the texts that its own parser is given from now on."""
    ffi: Any = FFI()
    ffi.cdef(HEADER)
    asked: list[str] = []
    whole = ffi._parser.parse_type

    def noting(text: str) -> Any:
        asked.append(text)
        return whole(text)

    ffi._parser.parse_type = noting
    if is_hastened:
        hasten(ffi)
    return ffi, asked


def said(ffi: Any, text: str) -> str:
    """Return how cffi says the type that it reads; types of functions are read for callbacks."""
    return str(ffi.typeof(ffi.callback(text, print) if "(" in text else text))


@pytest.mark.parametrize("text", NARROW + WHOLE)
def test_type(text: str) -> None:
    quick, asked = read(is_hastened=True)
    right, _ = read(is_hastened=False)
    assert said(quick, text) == said(right, text)
    assert asked == ([] if text in NARROW else [text])


def test_types_are_shared() -> None:
    ffi, _ = read(is_hastened=True)
    info: Any = ffi.new("Info *", {"x": 7, "size": 1 << 40})
    many: Any = ffi.new("Info *[]", [info])
    assert (many[0].x, many[0].size) == (7, 1 << 40)
    assert ffi.typeof("struct Node *") is ffi.typeof("struct Node").fields[0][1].type


@pytest.mark.parametrize("text", ["Unknown *", "Info **(", "9"])
def test_fault(text: str) -> None:
    quick, _ = read(is_hastened=True)
    right, _ = read(is_hastened=False)
    with pytest.raises(CDefError) as expected:
        right.typeof(text)
    with pytest.raises(type(expected.value)) as found:
        quick.typeof(text)
    assert str(found.value) == str(expected.value)


def test_other_insides() -> None:
    hasten(object())  # is left alone
