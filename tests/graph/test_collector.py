"""The collector of circular garbage is as it was after a block in which it is paused."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from asg.collector import paused
from asg.compiler import lower
from support.large_graphs import deep_chain


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.enable()
    yield
    if not was_on:
        gc.disable()


def test_paused() -> None:
    with paused():
        assert not gc.isenabled()
        with paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_a_fault_ends_the_pause() -> None:
    with pytest.raises(ValueError, match="inside"), paused():
        raise ValueError("inside")
    assert gc.isenabled()


def test_what_is_off_stays_off() -> None:
    gc.disable()
    with paused():
        pass
    assert not gc.isenabled()


def test_compiling_collects_at_the_end_at_most() -> None:
    graph = deep_chain(200)
    lower({"main": graph})  # what is made once is made now
    runs: list[str] = []

    def note(phase: str, info: dict[str, int]) -> None:
        runs.append(phase)

    gc.callbacks.append(note)
    try:
        lower({"main": graph})
    finally:
        gc.callbacks.remove(note)
    assert runs in ([], ["start", "stop"])
    assert gc.isenabled()


def test_compiling_leaves_no_circular_garbage() -> None:
    """So pausing the collector costs no memory."""
    graph = deep_chain(900)
    lower({"main": graph})
    gc.collect()
    gc.disable()
    artefact = lower({"main": graph})
    assert gc.collect() == 0
    assert artefact.kernels
