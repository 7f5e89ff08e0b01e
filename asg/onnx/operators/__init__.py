"""Converters of ONNX operators, a module for each family.

A converter gets a `Call` (`asg/onnx/call.py`) and returns what the node's results are: tensors,
or arrays where they are known already. `TABLE` lists them all; a new module goes in here.
"""

from __future__ import annotations

from asg.onnx.operators import (
    attention,
    control,
    elementwise,
    indexing,
    linear,
    movement,
    normalizing,
    quantized,
    recurrent,
    reductions,
    regions,
    sampling,
    selecting,
    sequences,
    signals,
    sources,
    texts,
    windows,
)
from asg.onnx.registry import gather

TABLE = gather(
    (
        attention,
        control,
        elementwise,
        indexing,
        linear,
        movement,
        normalizing,
        quantized,
        recurrent,
        reductions,
        regions,
        sampling,
        selecting,
        sequences,
        signals,
        sources,
        texts,
        windows,
    )
)
