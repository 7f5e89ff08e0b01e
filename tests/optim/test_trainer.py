"""The trainer: epochs, evaluation, checkpoints that resume as though nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import asg
from asg import nn, optim
from asg.checkpoint import list_checkpoints, read_checkpoint
from asg.data import Batches
from asg.errors import AsgError, CheckpointError, InputError, NonFiniteError
from support.targets import on_targets


def loss_fn(model: nn.Module, batch: dict[str, asg.Tensor]) -> asg.Tensor:
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"])


def trainer(folder: Path | None = None, target: str = "numpy", **options: object) -> asg.Trainer:
    nn.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))
    optimizer = optim.AdamW(lr=optim.warmup_cosine(0.05, 5, 60), clip_norm=1.0)
    return asg.Trainer(
        model, loss_fn, optimizer, target=target, checkpoints=folder, every=10, **options
    )


def rings(rows: int = 96) -> dict[str, np.ndarray]:
    x = np.random.default_rng(1).uniform(-1, 1, (rows, 2)).astype(np.float32)
    return {"x": x, "y": (np.hypot(x[:, 0], x[:, 1]) < 0.7).astype(np.int64)}


@on_targets
def test_fit_and_evaluate(target: str) -> None:
    loader = Batches(rings(), 16)
    one = trainer(target=target)
    before = one.evaluate(loader)["loss"]
    history = one.fit(loader, epochs=10, validation=Batches(rings(), 16), progress=False)
    assert len(history.losses) == 60
    assert len(history.validation) == 10
    assert history.validation[-1]["loss"] < 0.75 * before
    state = one.exe.state_dict()
    for name, array in one.model.state_dict().items():
        np.testing.assert_array_equal(array, state[name])


def test_steps_and_other_shapes() -> None:
    one = trainer()
    assert len(one.fit(Batches(rings(), 16), steps=7, progress=False).losses) == 7
    assert (one.position.step, one.position.epoch, one.position.batch) == (7, 1, 1)
    assert len(one.fit(Batches(rings(), 16), steps=9, progress=False).losses) == 2
    whole = one.evaluate([rings()])["loss"]
    parts = one.evaluate(Batches(rings(), 16, shuffle=False))["loss"]
    assert whole == pytest.approx(parts, rel=1e-5)


def test_resuming_gives_the_same_bits(tmp_path: Path) -> None:
    straight = trainer()
    expected = straight.fit(Batches(rings(), 16), epochs=5, progress=False).losses
    first = trainer(tmp_path)
    losses = first.fit(Batches(rings(), 16), steps=14, progress=False).losses
    second = trainer(tmp_path)
    losses += second.fit(Batches(rings(), 16), epochs=5, progress=False, resume=True).losses
    assert losses == expected
    for name, array in straight.exe.state_dict().items():
        assert array.tobytes() == second.exe.state_dict()[name].tobytes()


def test_checkpoints_are_kept_whole(tmp_path: Path) -> None:
    one = trainer(tmp_path, keep=2)
    one.fit(Batches(rings(), 16), steps=34, progress=False)
    names = [path.name for path in list_checkpoints(tmp_path)]
    assert names == ["step-00000030", "step-00000034"]
    position, state = read_checkpoint(tmp_path / names[0])
    assert (position.step, position.epoch, position.batch) == (30, 4, 6)
    assert {"0.weight", "rng", "optimizer.step", "optimizer.exp_avg.0.bias"} <= set(state)
    (tmp_path / ".step-00000040.partial").mkdir()
    (tmp_path / "step-00000040").mkdir()
    assert [path.name for path in list_checkpoints(tmp_path)] == names


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    trainer(tmp_path).fit(Batches(rings(), 16), steps=2, progress=False)
    (path,) = list_checkpoints(tmp_path)
    arrays = path / "state.safetensors"
    content = arrays.read_bytes()
    arrays.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CheckpointError, match=r"is damaged: the digest of state\.safetensors"):
        trainer(tmp_path).fit(Batches(rings(), 16), progress=False, resume=True)
    about = json.loads((path / "checkpoint.json").read_text())
    (path / "checkpoint.json").write_text(json.dumps(about | {"version": 2}))
    with pytest.raises(CheckpointError, match="has version 2, known is 1"):
        read_checkpoint(path)
    (path / "checkpoint.json").write_text("[]")
    with pytest.raises(CheckpointError, match="can't be read"):
        read_checkpoint(path)


def test_a_loss_that_is_no_number_stops() -> None:
    broken = {"x": np.full((32, 2), np.nan, np.float32), "y": np.zeros(32, np.int64)}
    with pytest.raises(NonFiniteError, match="the loss of step 1 is nan"):
        trainer().fit(Batches(broken, 16), progress=False)


def test_loaders() -> None:
    pairs = [(batch["x"], batch["y"]) for batch in Batches(rings(), 16)]
    assert len(trainer().fit(pairs, epochs=2, progress=False).losses) == 12
    with pytest.raises(AsgError, match="the loader has no batches left in epoch 1"):
        trainer().fit(iter(pairs), epochs=2, progress=False)
    with pytest.raises(AsgError, match="the loader has no batches"):
        trainer().evaluate([])
    with pytest.raises(InputError, match="a batch is a dict or a tuple of arrays, got int"):
        trainer().fit([3], progress=False)
    with pytest.raises(AsgError, match="a checkpoint needs a folder"):
        trainer().save_checkpoint()


def test_batches_are_the_same_in_every_run() -> None:
    one, other = (Batches({"row": np.arange(10)}, 3, seed=4) for _ in range(2))
    epochs = [[batch["row"].tolist() for batch in one] for _ in range(2)]
    assert epochs[0] != epochs[1]
    assert len(one) == len(epochs[0]) == 3
    other.set_epoch(1)
    assert [batch["row"].tolist() for batch in other] == epochs[1]
    plain = Batches({"row": np.arange(4)}, 2, shuffle=False)
    assert [batch["row"].tolist() for batch in plain] == [[0, 1], [2, 3]]
    with pytest.raises(InputError, match="equally long: x has 2, y has 3"):
        Batches({"x": np.zeros(2), "y": np.zeros(3)}, 1)
    with pytest.raises(InputError, match="2 rows hold no batch of 3"):
        Batches({"x": np.zeros(2)}, 3)


def test_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    trainer().fit(Batches(rings(), 16), epochs=1)
    shown = capsys.readouterr().out
    assert "6/6" in shown
    assert "samples/s" in shown
