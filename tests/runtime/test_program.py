"""Which steps a call for some outputs runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from asg.artefact import Artefact, Dispatch, Entry, Slot
from asg.errors import InputError, InternalError
from asg.runtime.program import Bytes, Program, find_entry, plan_program
from asg.types import spec
from support.artefacts import model


def plan(artefact: Artefact, entry: str, outputs: list[str] | None) -> Program:
    return plan_program(artefact, find_entry(artefact, entry), outputs)


@pytest.mark.parametrize(
    ("entry", "outputs", "steps"),
    [
        ("predict", None, (0, 1)),
        ("predict", ["z"], (0, 1)),
        ("predict", ["y"], (0,)),
        ("predict", [], ()),
        ("train", None, (0, 1, 2)),
        ("train", [], (1, 2)),  # updates always happen
    ],
)
def test_steps(entry: str, outputs: list[str] | None, steps: tuple[int, ...]) -> None:
    assert plan(model(), entry, outputs).steps == steps


def test_inputs_that_nothing_needs_may_be_left_out() -> None:
    assert plan(model(), "predict", ["y"]).inputs == {"x"}
    assert plan(model(), "predict", []).inputs == frozenset()


def test_outputs_come_in_the_order_asked_for() -> None:
    names = [slot.name for slot in plan(model(), "predict", ["z", "y", "z"]).outputs]
    assert names == ["z", "y"]


def test_unknown_names() -> None:
    with pytest.raises(InputError) as caught:
        plan(model(), "predict", ["loss"])
    assert str(caught.value) == "predict has no output 'loss'; outputs: y, z"
    with pytest.raises(InputError) as caught:
        find_entry(model(), "evaluate")
    assert str(caught.value) == "tiny has no entry 'evaluate'; entries: predict, train"


def chain(*steps: tuple[str, str], places: dict[str, int], outputs: dict[str, int]) -> Entry:
    """An entry of steps `(reads, writes)`, names parted by spaces; `places` are offsets."""
    values = {name: Slot(name, spec((64,)), 0, at) for name, at in places.items()}
    return Entry(
        name="main",
        inputs=(values["x"],),
        outputs=tuple(Slot(name, spec((64,)), 0, at) for name, at in outputs.items()),
        updates={},
        steps=tuple(Dispatch("k", (), tuple(r.split()), tuple(w.split())) for r, w in steps),
        values=values,
    )


def steps_for(entry: Entry, *outputs: str) -> tuple[int, ...]:
    return plan_program(replace(model(), entries={"main": entry}), entry, outputs).steps


def test_reused_memory_does_not_confuse() -> None:
    # c takes a's place, so the bytes of output `c` are first a's and then its own.
    entry = chain(
        ("x", "a"), ("a", "b"), ("x", "c"),
        places={"x": 0, "a": 256, "b": 512, "c": 256},
        outputs={"b": 512, "c": 256},
    )  # fmt: skip
    assert steps_for(entry, "c") == (2,)
    assert steps_for(entry, "b") == (0, 1)


def test_output_inside_another_value() -> None:
    # Two steps each write a part of a concatenation; the output is the whole.
    entry = chain(
        ("x", "left"), ("x", "right"), ("x", "other"),
        places={"x": 0, "left": 256, "right": 512, "other": 768},
        outputs={"left_half": 256, "other": 768},
    )  # fmt: skip
    assert steps_for(entry, "left_half") == (0,)


def test_value_written_in_parts() -> None:
    entry = chain(
        ("x", "a"), ("x", "a"), ("x", "b"),
        places={"x": 0, "a": 256, "b": 512},
        outputs={"a": 256, "b": 512},
    )  # fmt: skip
    assert steps_for(entry, "a") == (0, 1)


def test_in_place_update_keeps_what_made_the_value() -> None:
    entry = chain(
        ("x", "a"), ("a x", "b"),
        places={"x": 0, "a": 256, "b": 256},
        outputs={"b": 256},
    )  # fmt: skip
    assert steps_for(entry, "b") == (0, 1)


def test_output_that_is_an_input() -> None:
    entry = chain(("x", "a"), places={"x": 0, "a": 256}, outputs={"same": 0, "a": 256})
    assert steps_for(entry, "same") == ()
    program = plan_program(model(), entry, ["same"])
    assert program.inputs == {"x"}


def test_value_without_a_place() -> None:
    entry = chain(("x", "ghost"), places={"x": 0}, outputs={})
    with pytest.raises(InternalError) as caught:
        steps_for(entry)
    assert str(caught.value) == (
        "internal: main: step 0 (k) names the value 'ghost', which has no place"
    )


def test_byte_sets() -> None:
    def slot(first: int, size: int, buffer: int = 0) -> Slot:
        return Slot("s", spec((size // 4,)), buffer, first)

    matters = Bytes()
    matters.add(slot(0, 100))
    matters.add(slot(200, 100))
    matters.add(slot(40, 200))
    assert matters.touches(slot(299, 4))
    assert not matters.touches(slot(300, 4))
    assert not matters.touches(slot(0, 400, buffer=1))
    matters.remove(slot(100, 100))
    assert not matters.touches(slot(100, 100))
    assert matters.touches(slot(96, 4))
    assert matters.touches(slot(200, 4))
    assert not matters.touches(slot(0, 0))
