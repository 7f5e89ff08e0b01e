"""Broken ONNX models, by the thousand: bytes changed, fields changed, nodes made up.

`judge` imports one. Whatever comes, the import either yields a graph that is well formed or ends in
one of ASG's own errors.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper, parser

import asg
from asg.onnx.operators import TABLE

HEAD = '<ir_version: 8, opset_import: ["" : 17, "own" : 1]>\n'
TEXTS = (
    """g (float[batch,4] x, int64[k] shape) => (float[a,b] y, int64[2] s)
    <float[4,3] w = {1,2,3,4,5,6,7,8,9,10,11,12}, float half = {0.5}, int64[1] rest = {-1}>
    {
      h = MatMul(x, w)
      s = Shape(h)
      f = Concat<axis=0>(rest, three)
      three = Constant<value_ints=[3]>()
      m = Mul(h, half)
      r = Relu(m)
      y = Reshape(r, shape)
    }""",
    """g (float[2] x) => (float[2] y, float[N,2] all)
    <int64 trips = {3}, bool go = {1}>
    {
      y, all = Loop (trips, go, x) <
        body = b (int64 i, bool c, float[2] v) => (bool d, float[2] w, float[2] kept) {
          d = Identity(c)
          s = Add(v, x)
          w = Mul(s, v)
          kept = Identity(s)
        } >
    }""",
    """g (float[2] start, float[4,2] xs, bool yes) => (float[2] end, float[4,2] sums)
    {
      mid, sums = Scan (start, xs) < num_scan_inputs = 1,
        body = b (float[2] a, float[2] x) => (float[2] n, float[2] out) {
          n = Add(a, x)
          out = own.twice(n)
        } >
      end = If (yes) < then_branch = t () => (float[2] p) { p = Add(mid, mid) },
                       else_branch = e () => (float[2] q) { q = Relu(mid) } >
    }
    <opset_import: ["" : 17], domain: "own">
    twice (v) => (w) { two = Constant<value_float=2.0>() w = Mul(v, two) }""",
    """g (float[1,2,6,6] x) => (float[N] y)
    {
      s = Shape(x)
      t = Slice(s, a, b)
      a = Constant<value_ints=[1]>()
      b = Constant<value_ints=[3]>()
      p = Cast<to=7>(t)
      z = ConstantOfShape(p)
      u = Expand(z, s)
      v = Softplus(x)
      q = Add(u, v)
      flat = Constant<value_ints=[-1]>()
      y = Reshape(q, flat)
    }""",
)
ROOM = 1 << 30  # bytes that an import of such small models may take
HAS_LIMITS = sys.platform == "linux"
NUMBERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 5, 17, 2**16, 2**31 - 1, 2**31, 2**62)
ARRAYS = (np.float32, np.int64, np.int32, np.bool_, np.uint8, np.float16, np.int8, np.float64)


def judge(source: bytes | onnx.ModelProto | Path) -> str:
    """Import a model; return what came of it."""
    try:
        graph = asg.onnx.load(source)
        if isinstance(graph, asg.Graph):
            asg.verify(graph)
            return "graph"
        return "open graph"
    except asg.errors.InternalError:
        raise
    except asg.AsgError as error:
        if isinstance(error.__cause__, MemoryError):  # sizes are judged before memory is taken
            raise error.__cause__ from None
        return type(error).__name__


def bases() -> list[onnx.ModelProto]:
    """Models to break; the nodes of some are out of order, which is a fault of its own."""
    models = [parser.parse_model(HEAD + text) for text in TEXTS]
    for model in models:
        nodes = sorted(model.graph.node, key=lambda node: node.op_type != "Constant")
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    large = numpy_helper.from_array(np.ones((4, 3, 40), np.float32), "large")
    models[0].graph.initializer.append(large)
    return models


def broken(seed: int, models: list[onnx.ModelProto]) -> bytes | onnx.ModelProto:
    """Return a broken model; the same for the same seed."""
    chance = random.Random(seed)
    base = chance.choice(models)
    kind = chance.randrange(4)
    if kind == 0:
        return _changed_bytes(base.SerializeToString(), chance)
    if kind == 1:
        return made_up(chance)
    model = onnx.ModelProto()
    model.CopyFrom(base)
    for _ in range(chance.randint(1, 3)):
        chance.choice(CHANGES)(model, chance)
    return model


def _changed_bytes(data: bytes, chance: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        place = chance.randrange(max(len(found), 1))
        match chance.randrange(4):
            case 0 if found:
                found[place] = chance.randrange(256)
            case 1:
                del found[place : place + chance.randint(1, 9)]
            case 2:
                found[place:place] = bytes(chance.choices(range(256), k=chance.randint(1, 9)))
            case _:
                del found[max(place, 1) :]
    return bytes(found) or b"\0"


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for each in value if hasattr(value, "add") else [value]:
                yield from _messages(each)


def _change_field(model: onnx.ModelProto, chance: random.Random) -> None:
    """Give one field anywhere another value of its kind."""
    found = chance.choice(list(_messages(model)))
    fields = [(field, value) for field, value in found.ListFields()]
    if not fields:
        return
    field, value = chance.choice(fields)
    is_many = hasattr(value, "append") or hasattr(value, "add")
    if chance.random() < 0.3:
        found.ClearField(field.name)
    elif is_many and len(value):
        place = chance.randrange(len(value))
        if chance.random() < 0.5 or field.type == field.TYPE_MESSAGE:
            copy = value[place]
            if chance.random() < 0.5:
                del value[place]
            elif field.type == field.TYPE_MESSAGE:
                value.add().CopyFrom(copy)
            else:
                value.append(copy)
        else:
            with suppress(ValueError):  # out of the field's range
                value[place] = _another(value[place], chance, model)
    elif not is_many and field.type != field.TYPE_MESSAGE:
        with suppress(ValueError):
            setattr(found, field.name, _another(value, chance, model))


def _another(value: Any, chance: random.Random, model: onnx.ModelProto) -> Any:
    if isinstance(value, str):
        names = [name for node in model.graph.node for name in (*node.input, *node.output)]
        ops = [op for _, op in TABLE.converters]
        return chance.choice([*names, *ops, "", "x", "../x", "\0"])
    if isinstance(value, bytes):
        return _changed_bytes(value or b"\0", chance)
    if isinstance(value, float):
        return chance.choice((0.0, -1.0, float("nan"), float("inf"), 1e30))
    return chance.choice((*NUMBERS, value + 1, value - 1))


def _swap_nodes(model: onnx.ModelProto, chance: random.Random) -> None:
    nodes = list(model.graph.node)
    chance.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _change_op(model: onnx.ModelProto, chance: random.Random) -> None:
    if not model.graph.node:
        return
    node = chance.choice(list(model.graph.node))
    node.op_type = chance.choice([op for _, op in TABLE.converters])


CHANGES: tuple[Callable[[onnx.ModelProto, random.Random], None], ...] = (
    _change_field, _change_field, _change_field, _change_op, _swap_nodes
)  # fmt: skip


def made_up(chance: random.Random) -> onnx.ModelProto:
    """Return a model of one node, with operands and attributes drawn by ONNX's schema."""
    domain, op = chance.choice(list(TABLE.converters))
    opset = chance.randint(7, min(defs.onnx_opset_version(), 22))
    try:
        schema = defs.get_schema(op, opset, domain)
        count = chance.randint(schema.min_input, min(schema.max_input, schema.min_input + 3))
        attributes = {
            name: _attribute(each, chance)
            for name, each in schema.attributes.items()
            if each.required or chance.random() < 0.4
        }
    except defs.SchemaError:
        count, attributes = chance.randint(0, 4), {}
    names = [f"x{place}" if chance.random() < 0.95 else "" for place in range(count)]
    inputs, weights = [], []
    for name in filter(None, names):
        array = _array(chance)
        if chance.random() < 0.5:
            weights.append(numpy_helper.from_array(array, name))
        else:
            code = helper.np_dtype_to_tensor_dtype(array.dtype)
            sizes = list(array.shape)
            if sizes and chance.random() < 0.1:
                sizes[0] = chance.choice((17, 2**16, 2**31 - 1, 2**31, 2**62))
            inputs.append(helper.make_tensor_value_info(name, code, sizes))
    results = [f"y{place}" for place in range(chance.choice((1, 1, 2, 3)))]
    node = helper.make_node(op, names, results, domain=domain)
    for name, value in attributes.items():
        if value is not None:
            node.attribute.append(helper.make_attribute(name, value))
    outputs = [helper.make_empty_tensor_value_info(name) for name in results]
    graph = helper.make_graph([node], "made_up", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", opset)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _attribute(schema: Any, chance: random.Random) -> Any:
    kinds = defs.OpSchema.AttrType
    small = [chance.choice((-2, -1, 0, 1, 1, 2, 3)) for _ in range(chance.randint(1, 4))]
    if chance.random() < 0.1:
        small[0] = chance.choice(NUMBERS)
    match schema.type:
        case kinds.INT:
            return chance.choice((*NUMBERS, 0, 1, 1))
        case kinds.FLOAT:
            return chance.choice((0.0, 0.5, 1.0, -1.0, float("nan")))
        case kinds.INTS:
            return small
        case kinds.FLOATS:
            return [float(each) for each in small]
        case kinds.STRING:
            return chance.choice(("", "NOTSET", "SAME_UPPER", "linear", "nearest", "sum", "add"))
        case kinds.TENSOR:
            return numpy_helper.from_array(_array(chance), "t")
    return None


def _array(chance: random.Random) -> np.ndarray[Any, Any]:
    shape = tuple(chance.choice((0, 1, 2, 3, 4)) for _ in range(chance.randint(0, 4)))
    kept = NUMBERS if chance.random() < 0.1 else (-2, -1, 0, 1, 2, 3)
    count = int(np.prod(shape))
    numbers = np.array([chance.choice(kept) for _ in range(count)], np.int64)
    with np.errstate(invalid="ignore", over="ignore"):
        return numbers.reshape(shape).astype(chance.choice(ARRAYS))


@contextmanager
def patience(seconds: int) -> Iterator[None]:
    """Stop what takes longer; tests run on the main thread."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def memory(room: int) -> Iterator[None]:
    """Refuse this process more than `room` bytes on top of what it has, where the system can."""
    if not HAS_LIMITS:
        yield
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + room
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def fuzz(seconds: float, first: int = 0, note: Path | None = None) -> dict[str, int]:
    """Judge broken models until the time is up; return how often each outcome came.

    The seed at work is written to the file `note`, for whoever finds this process dead.
    """
    models, found = bases(), dict[str, int]()
    end = time.monotonic() + seconds
    with memory(ROOM), (note or Path(os.devnull)).open("wb", buffering=0) as noted:
        for seed in itertools.count(first):
            if time.monotonic() > end:
                break
            noted.seek(0)
            noted.write(b"%d" % seed)
            try:
                with patience(20):
                    outcome = judge(broken(seed, models))
            except Exception as error:
                raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
            found[outcome] = found.get(outcome, 0) + 1
    return found


def fuzz_apart(seconds: float, first: int, note: Path) -> dict[str, int]:
    """Do `fuzz` in a process of its own: what kills that one is an error that names the seed."""
    code = "import sys; from support import onnx_fuzz; onnx_fuzz.main(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(seconds), str(first), str(note)],
        capture_output=True, text=True, check=False, timeout=2 * seconds + 120,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(
            f"seed {note.read_text('ascii')} ended the process with {done.returncode}:\n"
            f"{done.stderr[-6000:]}"
        )
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(seconds: str, first: str, note: str) -> None:
    """Fuzz, and print what was found."""
    print(json.dumps(fuzz(float(seconds), int(first), Path(note))))
