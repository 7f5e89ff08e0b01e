"""Ops from outside: functions with a gradient of their own, new ops, kernels written by hand.

Ground: may import `asg` below the roof. All of them yield a value of `asg.op.Op`, the sort that
the op table is made of, so whatever is done with ops is done with these: types are inferred,
gradients taken, kernels compared with NumPy. Begin reading at `gradients.py`; `rules.py` has what
guards the functions that a user gives.
"""

from __future__ import annotations

from asg.custom.define import define_op
from asg.custom.gradients import custom_gradient
from asg.custom.kernel import wgsl_kernel
from asg.custom.registry import register_op

__all__ = ["custom_gradient", "define_op", "register_op", "wgsl_kernel"]
