"""Write what PyTorch computes of convolutions, pools and norms, as the .npz files beside this.

Run it where torch 2.13.0 is installed: `python tests/references/make_torch_images.py`. The cases
of convolutions and pools are those of `images.json`, which the tests read too.
"""

from __future__ import annotations

import json

import torch
import torch.nn.functional as F
from make_torch_reference import HERE, VERSION, Arrays, array, record, save
from torch import Tensor, nn

CASES = json.loads((HERE / "images.json").read_text())


def convolutions() -> None:
    """Results and gradients, with bias."""
    torch.manual_seed(10)
    found: Arrays = {}
    for case, (function, shape, kernel, options) in CASES["convolutions"].items():
        is_transposed = "transpose" in function
        out = kernel[1] * options.get("groups", 1) if is_transposed else kernel[0]
        x, weight, bias = (torch.randn(size, requires_grad=True) for size in (shape, kernel, [out]))
        y = getattr(F, function)(x, weight, bias, **options)
        record(case, y, {"x": x, "weight": weight, "bias": bias}, found)
    save("convolutions", found)


def pools() -> None:
    """Results and gradients; where a case is about ties, of few different numbers."""
    torch.manual_seed(11)
    found: Arrays = {}
    for case, (function, shape, options) in CASES["pools"].items():
        x = torch.randn(shape)
        if "ties" in case:
            x = torch.randint(-2, 2, shape).float()
        x.requires_grad_()
        record(case, getattr(F, function)(x, **options), {"x": x}, found)
    save("pools", found)


def norms() -> None:
    """Group, instance and root-mean-square norms; batch norms over steps of training."""
    torch.manual_seed(12)
    found: Arrays = {}
    for case, shape, groups in (("group_norm", (2, 6, 4, 3), 3), ("group_norm_one", (3, 4, 5), 1)):
        x = (1.0 + 2.0 * torch.randn(shape)).requires_grad_()
        weight, bias = (torch.randn(shape[1], requires_grad=True) for _ in range(2))
        out = F.group_norm(x, groups, weight, bias)
        record(case, out, {"x": x, "weight": weight, "bias": bias}, found)
    x = (1.0 + 2.0 * torch.randn(2, 3, 4, 5)).requires_grad_()
    weight, bias = (torch.randn(3, requires_grad=True) for _ in range(2))
    out = F.instance_norm(x, weight=weight, bias=bias)
    record("instance_norm", out, {"x": x, "weight": weight, "bias": bias}, found)
    x, weight = (torch.randn(size, requires_grad=True) for size in ((3, 4, 6), (6,)))
    record("rms_norm", F.rms_norm(x, [6], weight), {"x": x, "weight": weight}, found)
    layers: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
        "batch_norm1d": (nn.BatchNorm1d(5), (8, 5)),
        "batch_norm2d": (nn.BatchNorm2d(3, momentum=0.3, eps=1e-3), (4, 3, 5, 4)),
        "batch_norm2d_average": (nn.BatchNorm2d(3, momentum=None), (2, 3, 4, 4)),
        "batch_norm3d_plain": (nn.BatchNorm3d(2, affine=False), (2, 2, 3, 2, 3)),
        "instance_norm2d": (
            nn.InstanceNorm2d(3, affine=True, track_running_stats=True), (2, 3, 4, 5),
        ),
    }  # fmt: skip
    for case, (layer, shape) in layers.items():
        follow(case, layer, shape, found)
    save("norms", found)


def follow(case: str, layer: nn.Module, shape: tuple[int, ...], found: Arrays) -> None:
    """Three batches in training, with the state after each, then one in evaluation."""
    for name, parameter in layer.named_parameters():
        nn.init.normal_(parameter)
        found[f"{case}/{name}"] = array(parameter)
    for step in range(3):
        x = (step + (1.0 + step) * torch.randn(shape)).requires_grad_()
        g = torch.randn(shape)
        out = layer(x)
        wanted: dict[str, Tensor] = {"x": x, **dict(layer.named_parameters())}
        gradients = torch.autograd.grad((out * g).sum(), list(wanted.values()))
        found |= {f"{case}/{step}.{name}": array(each) for name, each in
                  (("x", x), ("g", g), ("out", out), *layer.named_buffers())}  # fmt: skip
        for name, gradient in zip(wanted, gradients, strict=True):
            found[f"{case}/{step}.{name}.grad"] = array(gradient)
    layer.eval()
    x = torch.randn(shape)
    found |= {f"{case}/eval.x": array(x), f"{case}/eval.out": array(layer(x))}


def main() -> None:
    if not torch.__version__.startswith(VERSION):
        raise SystemExit(f"the references are those of torch {VERSION}, not {torch.__version__}")
    torch.set_num_threads(1)
    for make in (convolutions, pools, norms):
        make()


if __name__ == "__main__":
    main()
