"""Optimizers, learning-rate schedules and parameter groups; all of it becomes part of the graph.

Ground: may import `asg` below the roof. Begin with `optimizer.py`, then `adam.py`.
"""

from asg.optim.adam import Adam, AdamW
from asg.optim.groups import decay_groups
from asg.optim.optimizer import Optimizer, Update
from asg.optim.scaling import LossScaling
from asg.optim.schedules import Schedule, constant, linear, step_decay, warmup_cosine
from asg.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "LossScaling",
    "Optimizer",
    "Schedule",
    "Update",
    "constant",
    "decay_groups",
    "linear",
    "step_decay",
    "warmup_cosine",
]
