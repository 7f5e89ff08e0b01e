"""Write what PyTorch computes for functions of `asg`, with gradients, as functions.npz.

Run it where torch 2.13.0 is installed: `python tests/references/make_torch_functions.py`. Keys are
`case/field`: operands `x` (and others), results `y0`, `y1` …, gradients `x.grad` of the sum of
the float results, each times its `w0`, `w1` ….
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).parent
CHANCE = np.random.default_rng(0)
Arrays = dict[str, np.ndarray]


def normal(*shape: int) -> np.ndarray:
    return CHANCE.standard_normal(shape).astype(np.float32)


def ties(*shape: int) -> np.ndarray:
    return CHANCE.integers(-3, 4, shape).astype(np.float32)


def special(*shape: int) -> np.ndarray:
    x = ties(*shape)
    flat = x.reshape(-1)
    flat[::5], flat[1], flat[2], flat[3] = np.nan, np.inf, -np.inf, -0.0
    return x


def narrow(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int32) if array.dtype == np.int64 else array


CASES: dict[str, tuple[Callable[..., Sequence[Tensor]], Arrays]] = {
    "sort": (lambda x: torch.sort(x, dim=1, stable=True), {"x": normal(4, 37)}),
    "sort_descending": (
        lambda x: torch.sort(x, dim=0, descending=True, stable=True),
        {"x": normal(23, 3)},
    ),
    "sort_ties": (lambda x: torch.sort(x, dim=1, stable=True), {"x": ties(3, 41)}),
    "sort_special": (
        lambda x: torch.sort(x, dim=1, descending=True, stable=True),
        {"x": special(2, 29)},
    ),
    "cumsum": (lambda x: torch.cumsum(x, 1), {"x": normal(2, 41, 3)}),
    "cumprod": (lambda x: torch.cumprod(x, 1), {"x": ties(3, 7)}),
    "cummax": (lambda x: torch.cummax(x, 1), {"x": ties(3, 31)}),
    "cummin": (lambda x: torch.cummin(x, 0), {"x": normal(19, 2)}),
    "cummax_special": (lambda x: torch.cummax(x, 1), {"x": special(2, 17)[:, ::-1].copy()}),
    "topk": (lambda x: torch.topk(x, 5, 1), {"x": normal(3, 40)}),
    "topk_smallest": (lambda x: torch.topk(x, 3, 1, largest=False), {"x": normal(2, 19, 3)}),
}


def main() -> None:
    arrays: Arrays = {}
    for name, (function, operands) in CASES.items():
        tensors = {key: torch.tensor(value) for key, value in operands.items()}
        for tensor in tensors.values():
            tensor.requires_grad_(tensor.is_floating_point())
        results = function(*tensors.values())
        results = [results] if isinstance(results, Tensor) else list(results)
        total = torch.zeros(())
        for position, result in enumerate(results):
            found = result.detach().numpy()
            arrays[f"{name}/y{position}"] = (
                found.astype(np.int32) if result.dtype is torch.int64 else found
            )
            if result.is_floating_point():
                weight = normal(*result.shape)
                arrays[f"{name}/w{position}"] = weight
                total = total + (result * torch.tensor(weight)).sum()
        if total.requires_grad:
            total.backward()
        for key, tensor in tensors.items():
            arrays[f"{name}/{key}"] = narrow(tensor.detach().numpy())
            if tensor.grad is not None:
                arrays[f"{name}/{key}.grad"] = tensor.grad.numpy()
    np.savez_compressed(HERE / "functions.npz", **arrays)
    print(f"functions.npz: {len(arrays)} arrays")


if __name__ == "__main__":
    main()
