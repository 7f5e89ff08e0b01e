"""Kernels of one signature have one text, names and comments apart."""

from __future__ import annotations

import re
from collections.abc import Hashable

import pytest

import asg
from asg import nn, optim
from asg.artefact import Variant
from asg.codegen import build
from asg.codegen.context import KernelContext, Target
from asg.compiler import lower
from asg.graph import Graph


def training_step() -> Graph:
    nn.manual_seed(0)
    blocks = [nn.TransformerBlock(16, 2, causal=True) for _ in range(3)]
    model = nn.Sequential(nn.Embedding(24, 16), *blocks, nn.LayerNorm(16), nn.Linear(16, 24))

    def loss(model: nn.Module, batch: dict[str, asg.Tensor]) -> asg.Tensor:
        return nn.functional.cross_entropy(model(batch["x"]).reshape(-1, 24), batch["y"])

    window, wanted = asg.spec((2, 8), "i32"), asg.spec((16,), "i32")
    return asg.training_step(model, loss, optim.AdamW(clip_norm=1.0), x=window, y=wanted)


def plain(variant: Variant) -> tuple[object, ...]:
    """A variant without comments, empty lines and the names of the graph."""
    text = re.sub(r"//[^\n]*", "", variant.wgsl)
    numbers: dict[str, str] = {}
    text = re.sub(
        r"\b((?:partial|combine|reduce)_)?([tv]_\w+)",
        lambda found: (found[1] or "") + numbers.setdefault(found[2], f"n{len(numbers)}"),
        text,
    )
    return (*filter(str.strip, text.splitlines()), variant.workgroups, variant.features)


@pytest.mark.parametrize("target", [Target("cpu", 8), Target("gpu")], ids=lambda t: t.family)
def test_kernels_of_one_signature_have_one_text(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike: dict[Hashable, list[KernelContext]] = {}
    signature = build.signature

    def note(context: KernelContext) -> Hashable:
        key = signature(context)
        alike.setdefault(key, []).append(context)
        return key

    monkeypatch.setattr(build, "signature", note)
    artefact = lower({"main": training_step()}, target=target)
    assert len(artefact.kernels) <= len(alike)
    assert sum(len(contexts) > 1 for contexts in alike.values()) > 10
    for contexts in alike.values():
        writer = build._WRITERS[contexts[0].kernel.kind]
        texts = {tuple(map(plain, writer(context))) for context in contexts}
        assert len(texts) == 1, [context.kernel.name for context in contexts]


def test_what_a_text_depends_on_is_in_the_signature() -> None:
    def kernels(y: asg.Tensor) -> int:
        return len(lower({"main": asg.graph(outputs={"y": y})}).kernels)

    w = asg.input("w", (8, 8))
    first = asg.exp(asg.exp(asg.input("x", (8, 8)) @ w) @ w)  # two: one reads the input
    assert kernels(asg.exp(first @ w)) == 2
    assert kernels(asg.tanh(first @ w)) == 3
    assert kernels(asg.exp(first @ w.T)) == 3
    assert kernels(asg.exp(first @ w[:, :4])) == 3
    assert kernels(first @ w) == 3
    assert kernels(asg.exp((first @ w) * 2.0)) == 3
    assert kernels(asg.exp((asg.exp((first @ w) * 2.0) @ w) * 2.0)) == 3
    assert kernels(asg.exp((asg.exp((first @ w) * 2.0) @ w) * 3.0)) == 4
