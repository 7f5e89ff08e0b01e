"""`If`, `Loop` and `Scan`, whose way is known when the graph is made.

There is no control flow in a graph: the branch that is taken is converted, and bodies are
written out once for each turn. So conditions and trip counts must be known, and be few.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from asg import functions as F
from asg.onnx.call import Call, Operand, Typed
from asg.onnx.dtypes import numpy_type
from asg.onnx.registry import converter

TURNS = 4096  # of a loop
NODES = 200_000  # that loops may become, bodies times turns


@converter("If", since=1, statics=(0,))
def if_(call: Call) -> list[Operand]:
    """Only the branch that is taken is converted."""
    condition = call.static(0, "the condition")
    branch = "then_branch" if _truth(call, condition) else "else_branch"
    return call.run(call.get_graph(branch), ())


@converter("Loop", since=1, statics=(0, 1))
def loop(call: Call) -> list[Any]:
    """The body is written out for each turn; its condition must be known after each.

    The body takes the turn's number, the condition and what is carried on, and returns the next
    condition, what is carried on, and elements of what is stacked up.
    """
    body = call.get_graph("body")
    limit = int(call.static(0, "the trip count").item()) if call.has(0) else None
    goes_on = _truth(call, call.static(1, "the condition")) if call.has(1) else True
    carried = [call.operand(place) for place in range(2, call.count)]
    if len(body.input) != 2 + len(carried) or len(body.output) < 1 + len(carried):
        raise call.malformed(f"a body of {len(body.input)} for {len(carried)} values")
    stacked: list[list[Operand]] = [[] for _ in body.output[1 + len(carried) :]]
    turn = 0
    while goes_on and (limit is None or turn < limit):
        _check_turns(call, turn + 1, len(body.node))
        number = Operand("turn", np.dtype(np.int64), array=np.array(turn, np.int64))
        condition = Operand("condition", np.dtype(np.bool_), array=np.array(True))
        first, *results = call.run(body, [number, condition, *carried])
        if first.array is None:
            raise call.unsupported("whether it goes on depends on what is computed at run time")
        goes_on = _truth(call, first.array)
        carried, elements = results[: len(carried)], results[len(carried) :]
        for stack, element in zip(stacked, elements, strict=True):
            stack.append(element)
        turn += 1
    declared = body.output[1 + len(carried) :]
    parts = zip(stacked, declared, strict=True)
    return [*carried, *(_stacked(call, stack, each) for stack, each in parts)]


@converter("Scan", since=8)
def batched_scan(call: Call) -> list[Any]:
    """Opset 8: everything has a batch before, and each of its elements goes through alone."""
    if call.has(0):
        raise call.unsupported("lengths of sequences", "convert the model to opset 9 or newer")
    body = call.get_graph("body")
    count = _scanned_count(call, call.count - 1)
    directions = call.get_ints("directions", [0] * count)
    operands = [call.operand(place) for place in range(1, call.count)]
    batch = {each.shape[0] for each in operands}
    if len(batch) != 1:
        raise call.malformed(f"the operands have batches of {sorted(batch)}")
    results: list[list[Operand]] = []
    members = batch.pop()
    turns = max((each.shape[1] for each in operands[-count:]), default=1)
    _check_turns(call, members * max(turns, 1), len(body.node))
    for member in range(members):
        mine = [_element(call, each, 0, member) for each in operands]
        carried, stacked = _turned(call, body, mine, [0] * count, directions)
        found = [_stacked(call, each, None) for each in stacked]
        whole = [_as_operand(each) for each in found]
        results.append([*carried, *whole])
    return [_stacked(call, list(parts), None) for parts in zip(*results, strict=True)]


def _as_operand(found: Operand | Typed) -> Operand:
    if isinstance(found, Operand):
        return found
    return Operand("stacked", found.dtype, tensor=found.value)


@converter("Scan", since=9)
def scan(call: Call) -> list[Any]:
    """The body is written out for each element along an axis of what is scanned."""
    body = call.get_graph("body")
    count = _scanned_count(call, call.count)
    operands = [call.operand(place) for place in range(call.count)]
    carried, stacked = _turned(
        call,
        body,
        operands,
        call.get_ints("scan_input_axes", [0] * count),
        call.get_ints("scan_input_directions", [0] * count),
    )
    first, outputs = len(carried), len(stacked)
    axes = call.get_ints("scan_output_axes", [0] * outputs)
    directions = call.get_ints("scan_output_directions", [0] * outputs)
    parts = zip(stacked, body.output[first:], axes, directions, strict=True)
    return [
        *carried,
        *(
            _stacked(call, stack[::-1] if is_back else stack, declared, axis)
            for stack, declared, axis, is_back in parts
        ),
    ]


def _scanned_count(call: Call, most: int) -> int:
    """Return how many operands are scanned; one at least."""
    count = call.get_int("num_scan_inputs")
    if not 1 <= count <= most:
        raise call.malformed(f"num_scan_inputs is {count}, but there are {most} operands")
    return count


def _turned(
    call: Call,
    body: Any,
    operands: Sequence[Operand],
    axes: Sequence[int],
    backwards: Sequence[int],
) -> tuple[list[Operand], list[list[Operand]]]:
    """Return what is carried on to the end, and the elements of what is stacked up."""
    first = len(operands) - len(axes)
    outputs = len(body.output) - first
    if not axes or first < 0 or outputs < 0 or len(body.input) != len(operands):
        raise call.malformed(f"a body of {len(body.input)} for {len(operands)} operands")
    carried, scanned = list(operands[:first]), operands[first:]
    lengths = {each.shape[axis] for each, axis in zip(scanned, axes, strict=True)}
    if len(lengths) != 1:
        raise call.malformed(f"what is scanned has lengths {sorted(lengths)}")
    turns = lengths.pop()
    _check_turns(call, turns, len(body.node))
    stacked: list[list[Operand]] = [[] for _ in range(outputs)]
    for turn in range(turns):
        elements = [
            _element(call, each, axis, turns - 1 - turn if is_back else turn)
            for each, axis, is_back in zip(scanned, axes, backwards, strict=True)
        ]
        results = call.run(body, [*carried, *elements])
        carried = results[:first]
        for stack, element in zip(stacked, results[first:], strict=True):
            stack.append(element)
    return carried, stacked


def _truth(call: Call, value: Any) -> bool:
    if np.size(value) != 1:
        raise call.malformed(f"a condition has one element, not {np.size(value)}")
    return bool(np.asarray(value).item())


def _check_turns(call: Call, turns: int, nodes: int) -> None:
    """Refuse loops that would become too many nodes."""
    if turns > TURNS or turns * nodes > NODES:
        raise call.unsupported(
            f"{turns} turns of {nodes} nodes are too many to write out",
            f"at most {TURNS} turns and {NODES:,} nodes",
        )


def _element(call: Call, operand: Operand, axis: int, place: int) -> Operand:
    """Return one element along an axis, without that axis."""
    axis = axis % max(len(operand.shape), 1)
    if operand.array is not None and operand.is_constant:
        return Operand("element", operand.dtype, array=operand.array.take(place, axis))
    x = call.importer.tensor(operand)
    index = (*(slice(None),) * axis, place)
    return Operand("element", operand.dtype, tensor=x[index])


def _stacked(call: Call, parts: Sequence[Operand], declared: Any, axis: int = 0) -> Operand | Typed:
    """Return elements side by side along a new axis; of none, what the body declares."""
    if not parts:
        return _nothing(call, declared, axis)
    dtype = parts[0].dtype
    if all(each.is_constant for each in parts):
        arrays = [np.asarray(each.array) for each in parts]
        return Operand("stacked", dtype, array=np.stack(arrays, axis))
    return Typed(F.stack([call.importer.tensor(each) for each in parts], axis), dtype)


def _nothing(call: Call, declared: Any, axis: int) -> Operand:
    """Return what a loop without turns stacks up: an axis of no elements."""
    if declared is None:
        raise call.unsupported("it makes no turn", "convert the model to opset 9 or newer")
    kind = declared.type.tensor_type
    sizes = [each.dim_value if each.HasField("dim_value") else -1 for each in kind.shape.dim]
    if not kind.elem_type or not kind.HasField("shape") or min(sizes, default=0) < 0:
        raise call.unsupported(
            "it makes no turn, and its body does not say what it would stack up",
            "declare types of the outputs of the body",
        )
    sizes.insert(axis % (len(sizes) + 1), 0)
    dtype = numpy_type(kind.elem_type)
    return Operand("stacked", dtype, array=np.zeros(sizes, dtype))
