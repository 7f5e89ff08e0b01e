"""Ops that a text may name, beside those of the table.

A graph in memory holds its ops; only its text has nothing but their names. Whoever reads texts
with ops of his own says first which ones are meant.
"""

from __future__ import annotations

from asg.errors import GraphError
from asg.op import Op
from asg.ops import TABLE

_registered: dict[str, Op] = {}


def register_op(op: Op, *, replace: bool = False) -> Op:
    """Let graphs that are read name `op`; return it.

    Raises:
        GraphError: another op has the name already. `replace` puts this one in its place, if it
            was registered too.
    """
    if not isinstance(op, Op):
        raise GraphError(f"an op is registered, not {type(op).__name__}")
    if TABLE.get(op.name, op) is not op:
        raise GraphError(f"an op of ASG's own is called {op.name!r}")
    if not replace and _registered.get(op.name, op) is not op:
        raise GraphError(
            f"another op is registered as {op.name!r}\n"
            "  fix: give one another name, or replace=True where this one takes its place"
        )
    _registered[op.name] = op
    return op


def known_ops() -> dict[str, Op]:
    """Return the ops of the table and those that are registered, by name."""
    return {**TABLE, **_registered}
