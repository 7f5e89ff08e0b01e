"""Write what PyTorch's GradScaler does with planted overflows, as scaling.npz beside this script.

Run it where torch 2.13.0 is installed: `python tests/references/make_torch_scaling.py`. The tests
need the file only. Keys are `case/field`; a field has one row for each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
VERSION = "2.13.0"
STEPS = 14
CASES: dict[str, tuple[Callable[[Iterable[Tensor]], torch.optim.Optimizer], float | None]] = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.1), None),
    "momentum": (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1), None),
    "adamw": (lambda p: torch.optim.AdamW(p, lr=0.05), None),
    "adamw_clipped": (lambda p: torch.optim.AdamW(p, lr=0.05), 0.7),
}


def batches() -> np.ndarray:
    """Factors of a linear loss: its gradient is their mean. Some steps have none that is finite."""
    random = np.random.default_rng(0)
    x = random.standard_normal((STEPS, 3, 5)).astype(np.float32)
    x[2, 1, 3] = np.inf
    x[3, 0, 0] = np.nan
    x[8, 2, 4] = -np.inf
    x[11] *= np.float32(1e36)  # finite itself, but not times the scale
    return x


def run(
    make: Callable[[Iterable[Tensor]], torch.optim.Optimizer], limit: float | None
) -> dict[str, np.ndarray]:
    weight = nn.Parameter(torch.linspace(-1.0, 1.0, 5))
    bias = nn.Parameter(torch.tensor(0.5))
    optimizer = make([weight, bias])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**15, growth_interval=3)
    found: dict[str, list[np.ndarray]] = {"weight": [], "bias": [], "scale": [], "good_steps": []}
    for x in torch.from_numpy(batches()):
        optimizer.zero_grad()
        loss = (x @ weight).mean() + bias * bias
        scaler.scale(loss).backward()
        if limit is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_([weight, bias], limit)
        scaler.step(optimizer)
        scaler.update()
        state = scaler.state_dict()
        for key, value in (
            ("weight", weight.detach().numpy().copy()),
            ("bias", bias.detach().numpy().copy()),
            ("scale", np.float32(state["scale"])),
            ("good_steps", np.int32(state["_growth_tracker"])),
        ):
            found[key].append(value)
    return {key: np.stack(rows) for key, rows in found.items()}


def main() -> None:
    if torch.__version__.split("+")[0] != VERSION:
        raise SystemExit(f"made with torch {VERSION}, this is {torch.__version__}")
    arrays = {"data/x": batches()}
    for name, (make, limit) in CASES.items():
        arrays |= {f"{name}/{key}": value for key, value in run(make, limit).items()}
        print(name, arrays[f"{name}/scale"], arrays[f"{name}/good_steps"])
    np.savez_compressed(HERE / "scaling.npz", **arrays)


if __name__ == "__main__":
    main()
