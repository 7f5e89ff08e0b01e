"""Write what PyTorch computes of a convolution with a batch norm in training, and its gradients, to
`tile_statistics.npz` beside this.

Run it where torch 2.13.0 is installed: `python tests/references/make_torch_tile_statistics.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from make_torch_reference import Arrays, array, save


def main() -> None:
    torch.manual_seed(12)
    found: Arrays = {}
    x = (torch.randn(3, 4, 10, 14) + 5).requires_grad_()
    w = (torch.randn(6, 4, 3, 3) * 0.2).requires_grad_()
    b = torch.randn(6).requires_grad_()
    mean, var = torch.zeros(6), torch.ones(6)
    y = torch.relu(F.batch_norm(F.conv2d(x, w, b, padding=1), mean, var, training=True))
    loss = (y * y * y).mean()
    loss.backward()
    named = {"x": x, "w": w, "b": b, "y": y, "mean": mean, "var": var, "loss": loss}
    found |= {name: array(tensor) for name, tensor in named.items()}
    found |= {"x.grad": array(x.grad), "w.grad": array(w.grad)}
    save("tile_statistics", found)


main()
