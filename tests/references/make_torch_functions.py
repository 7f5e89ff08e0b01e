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
import torch.nn.functional as F
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
    "gather": (
        lambda x, index: torch.gather(x, 1, index.long()),
        {"x": normal(3, 7), "index": CHANCE.integers(0, 7, (3, 5)).astype(np.int32)},
    ),
    "scatter_add": (
        lambda x, index, updates: x.scatter_add(0, index.long(), updates),
        {
            "x": normal(5, 3),
            "index": CHANCE.integers(0, 5, (9, 3)).astype(np.int32),
            "updates": normal(9, 3),
        },
    ),
    "scatter_prod": (
        lambda x, index, updates: x.scatter_reduce(0, index.long(), updates, "prod"),
        {
            "x": normal(4),
            "index": CHANCE.integers(0, 4, 11).astype(np.int32),
            "updates": ties(11),
        },
    ),
    "scatter_max": (
        lambda x, index, updates: x.scatter_reduce(1, index.long(), updates, "amax"),
        {
            "x": ties(3, 4),
            "index": CHANCE.integers(0, 4, (3, 9)).astype(np.int32),
            "updates": ties(3, 9),
        },
    ),
    "searchsorted": (
        lambda keys, x: torch.searchsorted(keys, x, right=True),
        {"keys": np.sort(ties(2, 9)), "x": ties(2, 5)},
    ),
    "pad_reflect": (
        lambda x: F.pad(x, (3, 2, 1, 4), "reflect"),
        {"x": normal(2, 3, 5, 6)},
    ),
    "pad_edge": (lambda x: F.pad(x, (3, 2), "replicate"), {"x": normal(2, 3, 4)}),
    "pad_wrap": (lambda x: F.pad(x, (3, -1), "circular"), {"x": normal(2, 3, 4)}),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), {"x": normal(2, 8, 3, 5)}),
    "fold": (
        lambda x: F.fold(x, (5, 6), (3, 2), dilation=(1, 2), padding=(1, 0), stride=(2, 1)),
        {"x": normal(2, 18, 12)},
    ),
    "roll": (lambda x: torch.roll(x, (2, -4), (0, 1)), {"x": normal(3, 7)}),
    "diagonal": (lambda x: torch.diagonal(x, 0, 0, 2), {"x": normal(4, 3, 4)}),
    "einsum_attention": (
        lambda x, y: torch.einsum("b...id,b...jd->b...ij", x, y),
        {"x": normal(2, 3, 4, 5), "y": normal(2, 3, 7, 5)},
    ),
    "einsum_chain": (
        lambda x, y, z: torch.einsum("iij,jk,k->i", x, y, z),
        {"x": normal(3, 3, 4), "y": normal(4, 5), "z": normal(5)},
    ),
    "einsum_trace": (lambda x: torch.einsum("...ii->...", x), {"x": normal(2, 5, 5)}),
    "einsum_outer": (
        lambda x, y: torch.einsum("i,j", x, y),
        {"x": normal(3), "y": normal(4)},
    ),
    "affine_grid": (
        lambda x: F.affine_grid(x, (2, 1, 3, 5), align_corners=False),
        {"x": normal(2, 2, 3)},
    ),
    "affine_grid_corners": (
        lambda x: F.affine_grid(x, (2, 1, 3, 4, 2), align_corners=True),
        {"x": normal(2, 3, 4)},
    ),
    **{
        f"grid_sample_{mode}_{padding}_{int(align)}": (
            lambda x, grid, mode=mode, padding=padding, align=align: F.grid_sample(
                x, grid, mode, padding, align_corners=align
            ),
            {"x": normal(2, 3, 5, 4), "grid": CHANCE.uniform(-1.6, 1.6, (2, 3, 2, 2)).astype("f")},
        )
        for mode in ("bilinear", "nearest", "bicubic")
        for padding in ("zeros", "border", "reflection")
        for align in (False, True)
    },
    "grid_sample_volume": (
        lambda x, grid: F.grid_sample(x, grid, align_corners=False),
        {"x": normal(1, 2, 3, 4, 5), "grid": CHANCE.uniform(-1, 1, (1, 2, 3, 2, 3)).astype("f")},
    ),
    "interpolate_linear": (
        lambda x: F.interpolate(x, (7, 3), mode="bilinear"),
        {"x": normal(2, 3, 5, 6)},
    ),
    "interpolate_corners": (
        lambda x: F.interpolate(x, (7, 9), mode="bilinear", align_corners=True),
        {"x": normal(1, 2, 5, 6)},
    ),
    "interpolate_cubic": (
        lambda x: F.interpolate(x, (7, 9), mode="bicubic"),
        {"x": normal(1, 2, 5, 6)},
    ),
    "interpolate_antialias": (
        lambda x: F.interpolate(x, (3, 4), mode="bilinear", antialias=True),
        {"x": normal(1, 2, 8, 11)},
    ),
    "interpolate_nearest": (lambda x: F.interpolate(x, (7,)), {"x": normal(2, 3, 5)}),
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
