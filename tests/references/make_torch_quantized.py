"""Write what PyTorch makes of quantised weights, as quantized.npz beside this script.

Run it where torch 2.13.0 is installed: `python tests/references/make_torch_quantized.py`. The
tests need the file only. Scales and zero points are those of PyTorch's observers, the rounding is
that of its fake quantisation. Keys are `case/field`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.ao.quantization.observer import PerChannelMinMaxObserver

HERE = Path(__file__).parent
VERSION = "2.13.0"
# bits, group size (None: all of a row), symmetric, out, in, rows of x
CASES = {
    "int8_channel": (8, None, True, 6, 21, 3),
    "int4_group32": (4, 32, True, 8, 64, 5),
    "int4_zeros": (4, 16, False, 7, 48, 2),
    "int8_zeros": (8, 8, False, 5, 24, 1),
    "int2_zeros": (2, 4, False, 4, 8, 3),
}


def observed(
    groups: torch.Tensor, bits: int, symmetric: bool
) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """Return scales and zero points of rows, and the ends of the codes' range."""
    low, high = (-(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1) if symmetric else (0, 2**bits - 1)
    observer = PerChannelMinMaxObserver(
        ch_axis=0,
        dtype=torch.qint8 if symmetric else torch.quint8,
        qscheme=torch.per_channel_symmetric if symmetric else torch.per_channel_affine,
        quant_min=low,
        quant_max=high,
        eps=torch.finfo(torch.float32).tiny,
    )
    observer(groups)
    scale, zero = observer.calculate_qparams()
    return scale, zero.to(torch.int32), low, high


def main() -> None:
    if torch.__version__.split("+")[0] != VERSION:
        raise SystemExit(f"made with torch {VERSION}, this is {torch.__version__}")
    torch.manual_seed(0)
    arrays: dict[str, np.ndarray] = {}
    for name, (bits, group, symmetric, out, width, rows) in CASES.items():
        weight = torch.randn(out, width) * torch.rand(out, 1) + 0.1
        groups = weight.reshape(-1, group or width)
        scale, zero, low, high = observed(groups, bits, symmetric)
        fake = torch.fake_quantize_per_channel_affine(groups, scale, zero, 0, low, high)
        x = torch.randn(rows, width, requires_grad=True)
        g = torch.randn(rows, out)
        y = F.linear(x, fake.reshape(weight.shape))
        y.backward(g)
        fields = {
            "weight": weight, "scales": scale.reshape(out, -1), "zeros": zero.reshape(out, -1),
            "fake": fake.reshape(weight.shape), "x": x, "g": g, "y": y, "dx": x.grad,
        }  # fmt: skip
        arrays |= {f"{name}/{key}": value.detach().numpy() for key, value in fields.items()}
    np.savez_compressed(HERE / "quantized.npz", **arrays)
    print(f"quantized.npz: {len(arrays)} arrays")


if __name__ == "__main__":
    main()
