"""One dispatch of an artefact as an artefact of its own: the same text, the same places."""

from __future__ import annotations

from collections.abc import Iterable

from asg.artefact import Artefact, Buffer, Dispatch, Entry, Range, Slot

_BLOCK = 256  # what the size of a buffer and the offset of a binding are a multiple of


def single_kernel(artefact: Artefact, entry: str, position: int, source: str) -> Artefact:
    """Return an artefact that runs step `position` of an entry and nothing else.

    What the step reads are inputs of its only entry, `main`, what it writes are outputs; buffers
    are cut to the part that it binds. `source` is the graph that it computes, as text.
    """
    whole = artefact.entries[entry]
    step = whole.steps[position]
    if not isinstance(step, Dispatch):
        raise ValueError(f"step {position} of {entry} is a copy")
    spans = _spans(step.ranges)
    buffers = {old: new for new, old in enumerate(spans)}

    def moved(slot: Slot) -> Slot:
        return Slot(slot.name, slot.type, buffers[slot.buffer], slot.offset - spans[slot.buffer][0])

    def inside(names: Iterable[str]) -> list[Slot]:
        found = [whole.values[name] for name in names if name in whole.values]
        return [moved(slot) for slot in found if _is_inside(slot, spans)]

    reads, writes = inside(step.reads), inside(step.writes)
    ranges = tuple(
        Range(buffers[each.buffer], each.offset - spans[each.buffer][0], each.size)
        for each in step.ranges
    )
    names = tuple(slot.name for slot in reads), tuple(slot.name for slot in writes)
    main = Entry(
        name="main",
        inputs=tuple(reads),
        outputs=tuple(writes),
        updates={},
        steps=(Dispatch(step.kernel, ranges, *names),),
        values={slot.name: slot for slot in (*reads, *writes)},
    )
    return Artefact(
        name=step.kernel,
        buffers=tuple(
            Buffer(artefact.buffers[old].name, _rounded(last - first), "arena")
            for old, (first, last) in spans.items()
        ),
        persistent=(),
        roles={},
        kernels={step.kernel: artefact.kernels[step.kernel]},
        entries={"main": main},
        values={},
        sources={"main": source},
        report={},
    )


def _spans(ranges: Iterable[Range]) -> dict[int, tuple[int, int]]:
    """Return the first and last byte of each buffer that is bound."""
    spans: dict[int, tuple[int, int]] = {}
    for each in ranges:
        first, last = spans.get(each.buffer, (each.offset, 0))
        spans[each.buffer] = min(first, each.offset), max(last, each.offset + each.size)
    return spans


def _is_inside(slot: Slot, spans: dict[int, tuple[int, int]]) -> bool:
    first, last = spans.get(slot.buffer, (0, 0))
    return first <= slot.offset and slot.offset + slot.type.nbytes <= last


def _rounded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
