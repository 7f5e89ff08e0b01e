"""Python's collector of circular garbage, paused where many objects are made that all stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Keep the collector from looking through everything again and again inside the block.

    Graphs and plans hold no circles, so it finds nothing there, and takes a fifth of a compilation.
    Where it is off already, by the user or in a block around this one, it stays off.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
