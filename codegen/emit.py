"""Writes the WGSL statements that compute graph values at given coordinates.

An `Emitter` pulls: asked for a value at some coordinates, it follows elementwise ops and views
back to loads from bindings and to values that the kernel already holds (`bound`), and appends one
`let` per fused op. Coordinates are index expressions; views only change them. Where coordinates
run over a lane variable (0 … 3), values become vec4: loads of four neighbours are one vec4 load,
what does not vary stays scalar, and what can't be vectorised is computed lane by lane.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from asg.codegen.bindings import Binding, Place, in_range
from asg.codegen.memory import read_one, read_quad, write_one, write_quad, write_words
from asg.codegen.text import (
    LANES,
    SCALAR,
    VECTOR,
    Operand,
    atom_name,
    fill,
    helper_calls,
    identifier,
    literal,
    number_dtype,
)
from asg.errors import InternalError
from asg.graph import Literal, Node, Value
from asg.index import ZERO, Index, Opaque, Var, constant, flatten, opaque, render
from asg.op import (
    Elementwise,
    Gather,
    Join,
    Source,
    View,
)
from asg.passes.pull import join_coordinates
from asg.passes.signs import is_never_positive
from asg.types import DType

Coordinates = tuple[Index, ...]


@dataclass
class Emitter:
    """Statements under construction.

    Attributes:
        places: values to load, and where.
        targets: values to store, and where.
        bound: values that the kernel holds in variables, whatever the coordinates.
        names: readable names of values.
        lane: the variable that runs over a vec4's lanes, if the kernel has one.
        turns: whether four lanes that lie in four aligned vec4s, all at the same place, are
            picked from these; other rows of the kernel's block pick the rest.
        crossed: positions of loads whose lanes are no neighbours.
    """

    places: Mapping[Value, Place]
    targets: Mapping[Value, Place]
    names: Mapping[Value, str]
    lane: Var | None = None
    turns: bool = False
    crossed: list[Index] = field(default_factory=list)
    bound: dict[Value, Operand] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    helpers: dict[str, None] = field(default_factory=dict)
    _memo: dict[tuple[Value, Coordinates], Operand] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _rows: dict[tuple[str, int], Operand] = field(default_factory=dict)
    _quads: dict[tuple[Value, Index], str] = field(default_factory=dict)
    _pairs: dict[tuple[str, Index], str] = field(default_factory=dict)
    _outer: Emitter | None = None
    _loop: tuple[Var, ...] = ()

    def fork(self, loop: tuple[Var, ...] = ()) -> Emitter:
        """Return an emitter for a nested block: it sees what is computed so far, keeps its own.

        With `loop`, the block is a loop over these variables, and what does not depend on them
        is written before it, by this emitter.
        """
        return Emitter(
            self.places,
            self.targets,
            self.names,
            self.lane,
            self.turns,
            self.crossed,
            dict(self.bound),
            [],
            self.helpers,
            dict(self._memo),
            self._counts,
            dict(self._rows),
            dict(self._quads),
            dict(self._pairs),
            self if loop else None,
            loop,
        )

    def take(self) -> list[str]:
        """Return the statements written so far and start anew."""
        lines, self.lines = self.lines, []
        return lines

    def value(self, value: Value, coordinates: Coordinates) -> Operand:
        """Return an operand that holds `value` at `coordinates`, writing what it needs."""
        pending = [(value, coordinates)]
        while pending:
            wanted = pending[-1]
            if self._known(wanted) is not None:
                pending.pop()
                continue
            if self._outer is not None and self._is_invariant(wanted[1]):
                self._memo[wanted] = self._outer.value(*wanted)
                continue
            missing = [need for need in self._needs(*wanted) if self._known(need) is None]
            if missing:
                pending.extend(missing)
                continue
            self._memo[wanted] = self._compute(*wanted)
            pending.pop()
        result = self._known((value, coordinates))
        assert result is not None
        return result

    def widen(self, operand: Operand, width: int) -> str:
        """Return the operand's text with `width` lanes."""
        if operand.width == width or width == 1:
            return operand.text
        return f"{VECTOR[operand.dtype]}({operand.text})"

    def index(self, index: Index) -> str:
        """Return an index expression as u32 text."""
        return render(index, atom_name, "u")

    def let(self, stem: str, text: str) -> str:
        """Write `let` and return the new variable's name."""
        name = self.fresh(stem)
        self.lines.append(f"let {name} = {text};")
        return name

    def fresh(self, stem: str) -> str:
        """Return an unused variable name made of `stem`."""
        clean = identifier(stem, "v_")
        name = clean
        while name in self._counts:
            self._counts[clean] = self._counts.get(clean, 0) + 1
            name = f"{clean}_{self._counts[clean]}"
        self._counts[name] = 0
        return name

    def pair(self, binding: Binding, index: Index) -> str:
        """Write the load of two quads, unless it is there; return its name."""
        key = (binding.name, index)
        if key not in self._pairs:
            self._pairs[key] = self.let("pair", binding.read(self.index(index)))
        return self._pairs[key]

    def call(self, name: str, width: int) -> str:
        """Return the name of a helper for `width` lanes and remember that it is needed."""
        full = name if width == 1 else f"{name}_v4"
        self.helpers[full] = None
        return full

    def number(self, value: float | int | bool, dtype: DType) -> Operand:
        """Return a number as text; infinities and NaN come from bits, as no literal can."""
        if dtype.is_float and dtype.is_narrow:
            with np.errstate(over="ignore"):
                value = float(np.float64(value).astype(dtype.numpy))
        if dtype.is_float and not math.isfinite(np.float32(value)):
            bits = int(np.float32(value).view(np.uint32))
            return Operand(f"{self.call('asg_from_bits', 1)}(0x{bits:08x}u)", 1, dtype)
        return literal(value, dtype)

    def store(self, value: Value, flat: Index, operand: Operand) -> None:
        """Write `operand` to `value`'s element(s) at row-major position `flat`."""
        place = self.targets[value]
        binding, position = place.binding, flat + place.offset
        step = self._lane_step(position)
        if step == 0:
            binding.scalar_uses += 1
            self.lines.append(write_one(self, binding, position, operand))
            return
        base = self._without_lane(position)
        is_aligned = step == 1 and (base % LANES) == ZERO
        binding.count(is_aligned)
        if is_aligned and not binding.is_vector:
            binding.store_half(base // LANES, "")
        if is_aligned and (binding.is_vector or binding.is_packed):
            self.lines += write_quad(self, binding, base, operand)
            return
        text = self.let("lanes", operand.text) if operand.width == LANES else operand.text
        for lane in range(LANES):
            part = f"{text}.{'xyzw'[lane]}" if operand.width == LANES else text
            here = self._at_lane(position, lane)
            self.lines.append(write_one(self, binding, here, Operand(part, 1, operand.dtype)))

    def store_rest(self, value: Value, flat: Index, operands: Sequence[Operand]) -> None:
        """Write the last elements of `value`, from row-major position `flat` on, fewer than four:
        those of narrow types as whole words."""
        place = self.targets[value]
        position = flat + place.offset
        if operands[0].dtype.is_narrow:
            self.lines += write_words(self, place.binding, position, operands)
            return
        for number, operand in enumerate(operands):
            place.binding.scalar_uses += 1
            self.lines.append(write_one(self, place.binding, position + number, operand))

    def _is_invariant(self, coordinates: Coordinates) -> bool:
        """Tell whether a loop's variables have no part in these coordinates."""
        assert self._outer is not None
        known = {row.text for row in self._outer._rows.values()}
        atoms = {atom for index in coordinates for atom in index.atoms()}
        return not any(
            atom.key not in known if isinstance(atom, Opaque) else atom in self._loop
            for atom in atoms
        )

    def _known(self, wanted: tuple[Value, Coordinates]) -> Operand | None:
        return self.bound.get(wanted[0]) or self._memo.get(wanted)

    def _needs(self, value: Value, coordinates: Coordinates) -> list[tuple[Value, Coordinates]]:
        """Return the operands, at their coordinates, that `value` is computed from."""
        if value in self.places:
            return []
        node = value.node
        kind = node.op.kind
        match kind:
            case Elementwise():
                return [(operand, coordinates) for operand in node.inputs]
            case View():
                access = self._access(kind, node, coordinates)
                return [(node.inputs[0], access)]
            case Join():
                return list(zip(node.inputs, self._join(kind, node, coordinates)[0], strict=True))
            case Gather():
                axis = node.attrs["axis"]
                rank = node.inputs[1].type.rank
                where = (node.inputs[1], coordinates[axis : axis + rank])
                if self._known(where) is None:
                    return [where]
                picked = self._picked(node, coordinates)
                return [] if picked is None else [(node.inputs[0], picked)]
            case Source():
                return []
            case _:  # kinds with loops of their own
                raise InternalError(f"codegen: {node.op.name} is computed inside a map")

    def _compute(self, value: Value, coordinates: Coordinates) -> Operand:
        if value in self.places:
            return self._load(value, coordinates)
        node = value.node
        kind = node.op.kind
        match kind:
            case Elementwise():
                return self._elementwise(kind, value, coordinates)
            case View():
                return self._view(kind, node, coordinates)
            case Join():
                return self._select_operand(kind, node, coordinates)
            case Gather():
                picked = self._picked(node, coordinates)
                if picked is None:
                    return self._by_lane(value, coordinates, node.inputs[1] in self.bound)
                return self.value(node.inputs[0], picked)
            case Source():
                return self._source(kind, value, coordinates)
            case _:  # kinds with loops of their own
                raise InternalError(f"codegen: {node.op.name} is computed inside a map")

    def _elementwise(self, kind: Elementwise, value: Value, coordinates: Coordinates) -> Operand:
        node = value.node
        operands = [self.value(operand, coordinates) for operand in node.inputs]
        width = max((operand.width for operand in operands), default=1)
        template = kind.expression(node.inputs[0].type.dtype, value.type.dtype)
        if kind.falling and is_never_positive(node.inputs[0]):
            template = kind.falling
        if template == "{0}":
            return replace(operands[0], dtype=value.type.dtype)
        text = self.fill(template, node, operands, width)
        if len(node.types) == 1:
            name = self.let(self.names[value], text)
            return Operand(name, width, value.type.dtype)
        stem = self.let(node.op.name, text)
        for other in node.values:
            part = Operand(f"{stem}.r{other.index}", width, other.type.dtype)
            self._memo[other, coordinates] = part
        return self._memo[value, coordinates]

    def fill(self, template: str, node: Node, operands: Sequence[Operand], width: int) -> str:
        """Fill an op's WGSL expression with operands of `width` lanes."""
        numbers = {
            key: self.widen(self.number(value, number_dtype(value)), width)
            for key, value in node.attrs.items()
            if f"{{{key}}}" in template
        }
        wide = [self.widen(operand, width) for operand in operands]
        text = fill(template, wide, numbers, width, node.type.dtype)
        for helper in helper_calls(template):
            text = text.replace(f"{helper}(", f"{self.call(helper, width)}(")
        return text

    def _access(self, kind: View, node: Node, coordinates: Coordinates) -> Coordinates:
        source = node.inputs[0].type.shape
        return kind.access(node.attrs, source, node.type.shape, coordinates).coordinates

    def _view(self, kind: View, node: Node, coordinates: Coordinates) -> Operand:
        source = node.inputs[0].type
        access = kind.access(node.attrs, source.shape, node.type.shape, coordinates)
        inner = self.value(node.inputs[0], access.coordinates)
        if not access.guards:
            return inner
        tests = [self.guard(*guard) for guard in access.guards]
        conditions = [condition for condition in tests if condition is not None]
        if not conditions:
            return inner
        width = max(inner.width, *(condition.width for condition in conditions))
        inside = " & ".join(f"({self.widen(condition, width)})" for condition in conditions)
        fill = self.widen(self.number(node.attrs.get("fill", 0), source.dtype), width)
        text = f"select({fill}, {self.widen(inner, width)}, {inside})"
        return Operand(self.let(node.op.name, text), width, source.dtype)

    def guard(self, index: Index, low: int, high: int) -> Operand | None:
        """Return the test `low <= index < high`, or None where it always holds.

        u32 arithmetic wraps, so one unsigned comparison tests both ends.
        """
        if low <= index.low and index.high < high:
            return None
        shifted = self.integer(index - low)
        bound = f"{max(high - low, 0)}u"
        if shifted.width == LANES:
            bound = f"vec4u({bound})"
        return Operand(f"{shifted.text} < {bound}", shifted.width, DType.BOOL)

    def integer(self, index: Index) -> Operand:
        """Return an index expression as a u32 operand, of four lanes where it varies."""
        step = self._lane_step(index)
        if step == 0:
            return Operand(f"({self.index(index)})", 1, DType.U32)
        if step is not None:
            base = self.index(self._without_lane(index))
            lanes = ", ".join(f"{(lane * step) % 2**32}u" for lane in range(LANES))
            return Operand(f"(vec4u({base}) + vec4u({lanes}))", LANES, DType.U32)
        parts = [self.index(self._at_lane(index, lane)) for lane in range(LANES)]
        return Operand(f"vec4u({', '.join(parts)})", LANES, DType.U32)

    def _join(
        self, kind: Join, node: Node, coordinates: Coordinates
    ) -> tuple[list[Coordinates], list[tuple[Index, int, int]]]:
        """Return for each operand its coordinates, and the guard inside which it is read."""
        inner = join_coordinates(kind, node, coordinates)
        types = tuple(operand.type for operand in node.inputs)
        axis = 0 if kind.flat else kind.axis(node.attrs)
        guards = [
            (coordinates[axis], start, start + (each.size if kind.flat else each.shape[axis]))
            for start, each in zip(kind.starts(node.attrs, types), types, strict=True)
        ]
        return inner, guards

    def _select_operand(self, kind: Join, node: Node, coordinates: Coordinates) -> Operand:
        inner, guards = self._join(kind, node, coordinates)
        result = literal(0, node.type.dtype)
        for operand, where, guard in zip(node.inputs, inner, guards, strict=True):
            part = self.value(operand, where)
            condition = self.guard(*guard)
            if condition is None:
                result = part
                continue
            width = max(result.width, part.width, condition.width)
            wide = [self.widen(each, width) for each in (result, part, condition)]
            text = f"select({wide[0]}, {wide[1]}, {wide[2]})"
            result = Operand(self.let(node.op.name, text), width, node.type.dtype)
        return result

    def _picked(
        self, node: Node, coordinates: Coordinates, lane: int | None = None
    ) -> Coordinates | None:
        """Return the operand's coordinates of a gather, or None where the index varies by lane."""
        axis = node.attrs["axis"]
        rank = node.inputs[1].type.rank
        index = self._known((node.inputs[1], coordinates[axis : axis + rank]))
        assert index is not None
        if index.width == LANES and lane is None:
            return None
        if index.width == LANES and lane is not None:
            index = Operand(f"{index.text}.{'xyzw'[lane]}", 1, index.dtype)
        size = node.inputs[0].type.shape[axis]
        if (index.text, size) not in self._rows:
            self._rows[index.text, size] = self._clamped(index, size)
        clamped = self._rows[index.text, size]
        return (
            *coordinates[:axis],
            opaque(clamped.text, size),
            *coordinates[axis + rank :],
        )

    def _clamped(self, index: Operand, size: int) -> Operand:
        """Write the row that an index means: negative ones count from the end, then clamp."""
        last = max(size - 1, 0)
        if index.dtype is DType.U32:
            return Operand(self.let("row", f"min({index.text}, {last}u)"), 1, DType.U32)
        wrapped = f"select({index.text}, {index.text} + {size}, {index.text} < 0)"
        return Operand(self.let("row", f"u32(clamp({wrapped}, 0, {last}))"), 1, DType.U32)

    def _source(self, kind: Source, value: Value, coordinates: Coordinates) -> Operand:
        dtype = value.type.dtype
        if kind.index is not None:
            operand = self.integer(kind.index(value.node.attrs, coordinates))
            if dtype is DType.U32:
                return operand
            types = VECTOR if operand.width == LANES else SCALAR
            return Operand(f"{types[dtype]}({operand.text})", operand.width, dtype)
        data = value.node.attrs.get("value")
        if isinstance(data, Literal) and data.array.size == 1:
            return self.number(data.array.reshape(()).item(), dtype)
        raise InternalError(f"codegen: {self.names[value]} is neither loaded nor computed")

    def _load(self, value: Value, coordinates: Coordinates) -> Operand:
        place = self.places[value]
        position = flatten(coordinates, value.type.shape) + place.offset
        step = self._lane_step(position)
        stem = self.names[value]
        if step == 0:
            place.binding.scalar_uses += 1
            text = read_one(self, place.binding, in_range(position, place, value), value)
            return Operand(self.let(stem, text), 1, value.type.dtype)
        base = self._without_lane(position) if step is not None else position
        is_aligned = step == 1 and (base % LANES) == ZERO
        if not is_aligned:
            self.crossed.append(position)
        turn = self._turn(position) if self.turns and not is_aligned else None
        place.binding.count(is_aligned or turn is not None)
        if is_aligned:
            place.binding.load_half(base // LANES)
        if turn is not None:
            place.binding.lone_uses += 1
        if is_aligned and place.binding.is_vector:
            return Operand(self._quad(value, base), LANES, value.type.dtype)
        if turn is not None and place.binding.is_vector:
            quads = [self._quad(value, self._at_lane(position, n) - turn) for n in range(LANES)]
            lanes = ", ".join(f"{quad}.{'xyzw'[turn]}" for quad in quads)
            text = f"{VECTOR[value.type.dtype]}({lanes})"
            return Operand(self.let(stem, text), LANES, value.type.dtype)
        parts = []
        for lane in range(LANES):
            here = in_range(self._at_lane(position, lane), place, value)
            parts.append(read_one(self, place.binding, here, value))
        text = f"{VECTOR[value.type.dtype]}({', '.join(parts)})"
        return Operand(self.let(stem, text), LANES, value.type.dtype)

    def _quad(self, value: Value, position: Index) -> str:
        """Write the load of four aligned neighbours, unless it is there; return its name."""
        place = self.places[value]
        if (value, position) not in self._quads:
            first = in_range(position, place, value)
            text = read_quad(self, place.binding, first, value)
            self._quads[value, position] = self.let(self.names[value], text)
        return self._quads[value, position]

    def _turn(self, position: Index) -> int | None:
        """Return the place inside their vec4s that all four lanes have, if it is the same."""
        places = {self._at_lane(position, lane) % LANES for lane in range(LANES)}
        (place, *others) = places
        return None if others or not place.is_const else place.const

    def _by_lane(self, value: Value, coordinates: Coordinates, is_held: bool = False) -> Operand:
        """Compute each lane for itself (of a gather at what the kernel holds) and join them."""
        parts = []
        for lane in range(LANES):
            each = tuple(self._at_lane(index, lane) for index in coordinates)
            picked = self._picked(value.node, each, lane) if is_held else None
            wanted = (value, each) if picked is None else (value.node.inputs[0], picked)
            parts.append(self.value(*wanted).text)
        dtype = value.type.dtype
        name = self.let(self.names[value], f"{VECTOR[dtype]}({', '.join(parts)})")
        return Operand(name, LANES, dtype)

    def _lane_step(self, index: Index) -> int | None:
        """How far the index moves from lane to lane; None where that is irregular."""
        return 0 if self.lane is None else index.coefficient(self.lane)

    def _without_lane(self, index: Index) -> Index:
        return self._at_lane(index, 0)

    def _at_lane(self, index: Index, lane: int) -> Index:
        assert self.lane is not None
        return index.substitute({self.lane: constant(lane)})
