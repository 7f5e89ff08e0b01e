"""All parameters of an optimizer as one vector, so that one kernel updates them.

Parameters, gradients and moments are packed at the same offsets. The compiler lays the members
of a pack side by side in memory, so that packing and unpacking cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asg import functions
from asg.ops.join import pack
from asg.optim.groups import Group
from asg.shaping import arange
from asg.tensor import Tensor, as_tensor

ALIGNMENT = 64  # elements, 256 bytes: where a buffer may be bound
CHUNK = 2**25  # elements, 128 MiB: what one binding may hold

Scalar = float | Tensor


@dataclass(frozen=True)
class Chunk:
    """Parameters that are packed together, those of one group side by side.

    `ends[i]` is where the part of `groups[i]` ends.
    """

    names: tuple[str, ...]
    offsets: tuple[int, ...]
    total: int
    groups: tuple[Group, ...]
    ends: tuple[int, ...]

    def pack(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return f32 [total] with each tensor at its offset, zeros between."""
        members = [tensors[name] for name in self.names]
        result: Tensor = pack(*members, offsets=self.offsets, total=self.total)
        return result

    def unpack(self, flat: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the part of each parameter, in its shape."""
        parts: dict[str, Tensor] = {}
        for name, offset in zip(self.names, self.offsets, strict=True):
            part = flat[offset : offset + like[name].size]
            parts[name] = functions.reshape(part, like[name].shape)
        return parts

    def each(self, keys: Sequence[str], scalar: Callable[..., Scalar]) -> Scalar:
        """Return `scalar` of every group's options `keys`: one number where they agree, else a
        vector [total] that is constant on the range of each group."""
        made: dict[Hashable, Scalar] = {}
        values: list[tuple[Hashable, Scalar]] = []
        for group in self.groups:
            options = tuple(group.options[key] for key in keys)
            if options not in made:
                made[options] = scalar(*options)
            values.append((options, made[options]))
        if len(made) == 1:
            return values[0][1]
        place = arange(self.total)
        result = as_tensor(values[-1][1])
        following = values[-1][0]
        for (key, value), end in reversed(list(zip(values[:-1], self.ends, strict=False))):
            if key != following:
                result = functions.where(place < end, as_tensor(value), result)
            following = key
        return result


def layout(groups: Sequence[Group], params: Mapping[str, Any], limit: int = CHUNK) -> list[Chunk]:
    """Lay out the parameters of all groups, in as few chunks of at most `limit` elements as
    keeping their order allows; a larger parameter gets a chunk of its own."""
    chunks: list[Chunk] = []
    pending: list[tuple[str, Group]] = []
    filled = 0
    for group in groups:
        for name in group.names:
            size = _aligned(params[name].size)
            if pending and filled + size > limit:
                chunks.append(_chunk(pending, params))
                pending, filled = [], 0
            pending.append((name, group))
            filled += size
    return [*chunks, _chunk(pending, params)] if pending else chunks


def _chunk(members: Sequence[tuple[str, Group]], params: Mapping[str, Any]) -> Chunk:
    offsets: list[int] = []
    groups: list[Group] = []
    ends: list[int] = []
    end = 0
    for name, group in members:
        if not groups or groups[-1] is not group:
            groups.append(group)
            ends.append(end)
        offsets.append(end)
        end += _aligned(params[name].size)
        ends[-1] = end
    names = tuple(name for name, _ in members)
    return Chunk(names, tuple(offsets), end, tuple(groups), tuple(ends))


def _aligned(size: int) -> int:
    return -(-max(size, 1) // ALIGNMENT) * ALIGNMENT
