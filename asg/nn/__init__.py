"""Neural network modules under PyTorch's names and weight layouts.

Ground: may import `asg` below the roof. Begin with `module.py`, then `layers.py`.
"""

from asg.nn import functional, init
from asg.nn.attention import FeedForward, MultiHeadAttention, TransformerBlock
from asg.nn.layers import (
    GELU,
    Dropout,
    Embedding,
    Flatten,
    Identity,
    LayerNorm,
    LearnedPositionalEmbedding,
    Linear,
    ReLU,
    Sigmoid,
    SiLU,
    SinusoidalPositionalEncoding,
    Softmax,
    Tanh,
)
from asg.nn.module import Module, ModuleList, Sequential
from asg.nn.parameter import Buffer, Parameter
from asg.seed import manual_seed

__all__ = [
    "GELU",
    "Buffer",
    "Dropout",
    "Embedding",
    "FeedForward",
    "Flatten",
    "Identity",
    "LayerNorm",
    "LearnedPositionalEmbedding",
    "Linear",
    "Module",
    "ModuleList",
    "MultiHeadAttention",
    "Parameter",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SinusoidalPositionalEncoding",
    "Softmax",
    "Tanh",
    "TransformerBlock",
    "functional",
    "init",
    "manual_seed",
]
