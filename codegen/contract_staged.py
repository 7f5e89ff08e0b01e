"""The loop of the family `staged`: a workgroup copies tiles of both operands into its memory.

A stage holds `depth` inner steps. An operand's tile is kept as the quads it was read in. Quads
along `inner` lie in lines of one outer position, a quad longer than needed, so that neighbours in
a column start in different memory banks; columns are dealt out by their place in a quad, for the
same reason. Quads along `outer` lie in lines of one inner step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from asg.codegen.contract_loop import turned
from asg.codegen.contract_operands import Side, clamp, quad_start
from asg.codegen.emit import Coordinates, Emitter
from asg.codegen.text import LANES
from asg.index import Index, variable


@dataclass(frozen=True)
class Stage:
    """One operand's tile in workgroup memory.

    Attributes:
        name: the array in the text.
        side: the operand.
        size: outer positions in the tile.
        depth: inner steps in the tile.
        is_dealt: outer positions are ordered by their place in a quad, then by quad.
    """

    name: str
    side: Side
    size: int
    depth: int
    is_dealt: bool

    @property
    def line(self) -> int:
        """Quads in a line, padding included."""
        return self.depth // LANES + 1 if self.side.along_inner else self.size // LANES

    @property
    def quads(self) -> int:
        """Quads in the array."""
        return self.line * (self.size if self.side.along_inner else self.depth)

    def at_outer(self, outer: Index, inner_quad: Index) -> Index:
        """Return where the inner quad of an outer position lies."""
        line = outer
        if self.is_dealt:
            line = outer % LANES * (self.size // LANES) + outer // LANES
        return line * self.line + inner_quad

    def at_inner(self, inner: Index, outer_quad: Index) -> Index:
        """Return where the outer quad of an inner step lies."""
        return inner * self.line + outer_quad

    def row_vectors(self, emitter: Emitter, first: Index, count: int, quad: Index) -> list[str]:
        """Read rows from workgroup memory; return for each a vec4 along the inner axis."""
        if self.side.along_inner:
            return [self._kept(emitter, self.at_outer(first + i, quad)) for i in range(count)]
        result: list[str] = []
        for part in range(count // LANES):
            reads = self._kept_steps(emitter, first // LANES + part, quad)
            result += [turned(reads, lane) for lane in range(LANES)]
        return result

    def column_matrices(self, emitter: Emitter, quads: Sequence[Index], quad: Index) -> list[str]:
        """Read column quads from workgroup memory; return a mat4x4 of inner steps for each."""
        matrices: list[str] = []
        for each in quads:
            if self.side.along_inner:
                lanes = [self.at_outer(each * LANES + lane, quad) for lane in range(LANES)]
                reads = [self._kept(emitter, lane) for lane in lanes]
                steps = [turned(reads, step) for step in range(LANES)]
            else:
                steps = self._kept_steps(emitter, each, quad)
            matrices.append(f"mat4x4f({', '.join(steps)})")
        return matrices

    def _kept_steps(self, emitter: Emitter, outer_quad: Index, quad: Index) -> list[str]:
        inner = quad * LANES
        return [
            self._kept(emitter, self.at_inner(inner + step, outer_quad)) for step in range(LANES)
        ]

    def _kept(self, emitter: Emitter, position: Index) -> str:
        return emitter.let(f"from_{self.name}", f"{self.name}[{emitter.index(position)}]")

    def fill(
        self, emitter: Emitter, batch: Coordinates, first: Index, thread: Index, workgroup: int
    ) -> list[str]:
        """Write this invocation's share of the loads; return the statements that keep them."""
        stages = -(-self.side.inner // self.depth)
        depth_start = variable("stage", stages) * self.depth
        quads = self.size * self.depth // LANES
        keeps: list[str] = []
        for turn in range(-(-quads // workgroup)):
            position = thread + turn * workgroup
            name = f"{self.name}_{turn}"
            if self.side.along_inner:
                per_line = self.depth // LANES
                outer, quad = position // per_line, position % per_line
                text = self._read_inner(emitter, batch, first + outer, depth_start, quad, name)
                target = self.at_outer(outer, quad)
            else:
                per_line = self.size // LANES
                step, quad = position // per_line, position % per_line
                text = self._read_outer(emitter, batch, first, depth_start + step, quad, name)
                target = self.at_inner(step, quad)
            keep = f"{self.name}[{emitter.index(target)}] = {text};"
            is_last_partial = (turn + 1) * workgroup > quads
            if is_last_partial:
                keep = f"if ({emitter.index(position)} < {quads}u) {{ {keep} }}"
            keeps.append(keep)
        return keeps

    def _read_inner(
        self,
        emitter: Emitter,
        batch: Coordinates,
        outer: Index,
        depth_start: Index,
        quad: Index,
        name: str,
    ) -> str:
        """Read a quad along the inner axis; steps past the end are zero."""
        side = self.side
        if self.is_dealt:
            held = quad_start(emitter, f"{name}_outer", outer // LANES, side.outer)
            held = held + clamp(emitter, f"{name}_lane", outer % LANES, side.outer)
        else:
            held = clamp(emitter, f"{name}_outer", outer, side.outer)
        wanted = depth_start // LANES + quad
        start = quad_start(emitter, f"{name}_start", wanted, side.inner)
        text = side.read(emitter, batch, held, start)
        if wanted.high * LANES + LANES <= side.inner:
            return text
        steps = f"vec4u({emitter.index(start)}) + vec4u(0u, 1u, 2u, 3u)"
        is_inside = f"{steps} >= vec4u({emitter.index(wanted * LANES)})"
        return emitter.let("inside", f"select(vec4f(), {text}, {is_inside})")

    def _read_outer(
        self,
        emitter: Emitter,
        batch: Coordinates,
        first: Index,
        step: Index,
        quad: Index,
        name: str,
    ) -> str:
        """Read a quad along the outer axis; steps past the end are zero."""
        side = self.side
        start = quad_start(emitter, f"{name}_start", first // LANES + quad, side.outer)
        if side.inner < LANES:
            inner = clamp(emitter, f"{name}_step", step, side.inner)
            text = side.read(emitter, batch, start, inner)
            condition = f"{emitter.index(step)} < {side.inner}u"
        else:
            # Moved back as a quad along `inner` is, so that both operands keep a step alike.
            wanted = step // LANES
            inner = quad_start(emitter, f"{name}_step", wanted, side.inner) + step % LANES
            text = side.read(emitter, batch, start, inner)
            condition = f"{emitter.index(inner)} >= {emitter.index(wanted * LANES)}"
        if step.high < side.inner:
            return text
        return emitter.let("inside", f"select(vec4f(), {text}, {condition})")
