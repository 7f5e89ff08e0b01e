"""Quicker reading of C types for the library under wgpu.

cffi parses the text of a type (`WGPUBuffer *`) behind a declaration of every name that the header
has, hundreds of them, which takes 15 ms for each of the forty types that a program uses. Only the
names in the text matter.
"""

from __future__ import annotations

import re
from typing import Any

_WORD = re.compile(r"\w+")
_KINDS = ("typedef", "struct", "union", "enum")


def hasten(ffi: Any) -> None:
    """Let `ffi` read types as described above; what that can't read is read as ever.

    This knows cffi from inside. One that is made otherwise is left as it is.
    """
    parser: Any = getattr(ffi, "_parser", None)
    if not hasattr(parser, "parse_type") or not hasattr(parser, "_declarations"):
        return
    parse_whole = parser.parse_type

    def parse_type(text: str) -> Any:
        try:
            found = _parse_narrow(parser, text)
        except Exception:  # the whole parser words the fault, if it is one
            found = None
        return parse_whole(text) if found is None else found

    parser.parse_type = parse_type


def _parse_narrow(parser: Any, text: str) -> Any:
    """Return a type read with the names in its text only; None if it declares more names."""
    narrow, known = type(parser)(), parser._declarations
    keys = [f"{kind} {word}" for word in set(_WORD.findall(text)) for kind in _KINDS]
    narrow._declarations = {key: known[key] for key in keys if key in known}
    count = len(narrow._declarations)
    found = narrow.parse_type(text)
    # What declares something new has to be known to all that comes later.
    return found if len(narrow._declarations) == count else None
