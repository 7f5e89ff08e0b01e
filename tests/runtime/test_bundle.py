"""Bundles: what is saved is what is loaded, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from asg.artefact import Artefact, Copy, Range, Variant
from asg.errors import BundleError
from asg.runtime.bundle import load_bundle, manifest_hash, save_bundle
from support import artefacts
from support.imports import ROOT

SCHEMA = json.loads((ROOT / "docs" / "bundle.schema.json").read_text())
Change = Callable[[dict[str, Any]], None]


def rich() -> Artefact:
    """The tiny model with everything that a manifest can say."""
    model = artefacts.model()
    kernel = model.kernels["double"]
    fast = Variant(
        "// fast\n" + artefacts.DOUBLE,
        (2, 1, 1),
        features=("subgroups",),
        subgroup_size=8,
        limits={"maxComputeWorkgroupStorageSize": 32768},
        schedule="tile 8x8",
    )
    model = artefacts.with_kernel(model, replace(kernel, variants=(fast, *kernel.variants)))
    entry = model.entries["predict"]
    copy = Copy(Range(4, 0, 256), Range(4, 256, 256), ("y",), ("z",))
    entry = replace(entry, steps=(*entry.steps, copy))
    # In this order, so that it shows when the order gets lost.
    return replace(model, entries={"train": model.entries["train"], "predict": entry})


def save(artefact: Artefact, path: Path) -> Path:
    save_bundle(artefact, artefact.values, path)
    return path


@pytest.fixture(params=["folder", "zip"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return save(rich(), tmp_path / ("tiny" if request.param == "folder" else "tiny.asg"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(rich(), tmp_path / "tiny")


def rewrite(folder: Path, change: Change) -> None:
    """Change the manifest and make its hash right again."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    manifest["sha256"] = manifest_hash(manifest)
    path.write_text(json.dumps(manifest))


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(path)
    return str(caught.value)


def test_round_trip(bundle: Path) -> None:
    expected, found = rich(), load_bundle(bundle)
    for name in expected.values:
        np.testing.assert_array_equal(found.values[name], expected.values[name])
        assert found.values[name].dtype == expected.values[name].dtype
        assert found.values[name].shape == expected.values[name].shape
    assert replace(found, values={}) == replace(expected, values={})
    assert list(found.entries) == ["train", "predict"]


def test_values_given_replace_those_at_the_start(tmp_path: Path) -> None:
    steps = np.array(77, np.int32)
    save_bundle(rich(), {**rich().values, "steps": steps}, tmp_path / "tiny")
    assert load_bundle(tmp_path / "tiny").values["steps"] == 77


def test_manifest_follows_the_schema(folder: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads((folder / "manifest.json").read_text()), SCHEMA)


def test_files(folder: Path) -> None:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    assert names == [
        "graph/predict.asg",
        "graph/train.asg",
        "kernels/add.wgsl",
        "kernels/count.wgsl",
        "kernels/double.0.wgsl",
        "kernels/double.wgsl",
        "kernels/nudge.wgsl",
        "manifest.json",
        "weights.safetensors",
    ]
    assert (folder / "kernels" / "add.wgsl").read_text() == artefacts.ADD
    assert (folder / "graph" / "train.asg").read_text() == "graph train {\n}\n"


def test_same_artefact_same_bytes(tmp_path: Path) -> None:
    first = save(rich(), tmp_path / "first.asg").read_bytes()
    slow = replace(rich(), report={**rich().report, "compile_s": 1.5, "compile_stages": {}})
    assert save(slow, tmp_path / "second.asg").read_bytes() == first


def test_names_that_are_no_file_names(tmp_path: Path) -> None:
    model = artefacts.model()
    kernels = dict.fromkeys(("../up", "a/b", "A/B", "ä b", ""), model.kernels["add"])
    kernels = {name: replace(kernel, name=name) for name, kernel in kernels.items()}
    model = replace(model, kernels={**model.kernels, **kernels}, sources={"../x": "graph"})
    found = load_bundle(save(model, tmp_path / "tiny"))
    assert set(found.kernels) == set(model.kernels)
    assert found.sources == {"../x": "graph"}
    stems = sorted(path.name for path in (tmp_path / "tiny" / "kernels").iterdir())
    assert "a_b.wgsl" in stems
    assert "A_B-2.wgsl" in stems


def test_takes_the_place_of_a_bundle(bundle: Path) -> None:
    save(replace(rich(), name="second"), bundle)
    assert load_bundle(bundle).name == "second"
    assert sorted(path.name for path in bundle.parent.iterdir()) == [bundle.name]


def test_takes_the_place_of_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert load_bundle(save(rich(), tmp_path / "empty")).name == "tiny"


@pytest.mark.parametrize("name", ["thesis", "thesis.asg"])
@pytest.mark.parametrize("is_folder", [True, False])
def test_destroys_nothing_else(tmp_path: Path, name: str, is_folder: bool) -> None:
    target = tmp_path / name
    if is_folder:
        target.mkdir()
        (target / "chapter1.txt").write_text("precious")
        (target / "manifest.json").write_text('{"format": "other"}')
    else:
        target.write_text("precious")
    with pytest.raises(BundleError) as caught:
        save(rich(), target)
    assert str(caught.value) == f"{target}: is there already and is no bundle; it is left as it is"
    assert (target / "chapter1.txt" if is_folder else target).read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["tiny", "tiny.asg"])
def test_failed_save_leaves_the_old_bundle(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(rich(), tmp_path / name)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(BundleError) as caught:
        save(replace(rich(), name="second"), tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: can't be written: disk full"
    assert load_bundle(tmp_path / name).name == "tiny"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_missing(tmp_path: Path) -> None:
    path = tmp_path / "nothing.asg"
    assert refusal(path) == f"{path}: there is no such file or folder"


def test_not_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "tiny.asg"
    path.write_bytes(b"PK\x03\x04 and so on")
    assert refusal(path).startswith(f"{path}: not a bundle, or damaged: ")


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_truncated_zip(tmp_path: Path, kept: int) -> None:
    path = save(rich(), tmp_path / "tiny.asg")
    path.write_bytes(path.read_bytes()[:kept])
    assert refusal(path).startswith(f"{path}: not a bundle, or damaged: ")


FILES = ["graph/train.asg", "kernels/add.wgsl", "kernels/double.0.wgsl", "weights.safetensors"]


@pytest.mark.parametrize("name", FILES)
def test_damaged_file(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-2] ^= 1
    (folder / name).write_bytes(data)
    assert refusal(folder) == (f"{folder}: {name} is damaged: its hash is not the recorded one")


@pytest.mark.parametrize("name", FILES)
def test_truncated_file(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    assert refusal(folder) == (
        f"{folder}: {name} is truncated: {len(data) - 1} of {len(data)} bytes"
    )


@pytest.mark.parametrize("name", FILES)
def test_longer_file(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data + b" ")
    assert refusal(folder) == (
        f"{folder}: {name} has {len(data) + 1} bytes; at most {len(data)} are expected"
    )


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert refusal(folder) == f"{folder}: {name} is missing"


def test_flipped_bits_in_a_zip(tmp_path: Path) -> None:
    path = save(rich(), tmp_path / "tiny.asg")
    whole = path.read_bytes()
    for position in range(0, len(whole), 97):
        data = bytearray(whole)
        data[position] ^= 0x10
        path.write_bytes(data)
        try:
            load_bundle(path)
        except BundleError:
            continue
        # A field of the zip that says nothing about contents.
        assert load_bundle(path).name == "tiny"


def test_changed_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"tiny"', '"tidy"'))
    assert refusal(folder) == (
        f"{folder}: manifest.json: was changed or is damaged: its hash is not the recorded one"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON: "),
        ("[]", "expected an object, got []"),
        ("{}", "is no manifest of a bundle: format is not 'asg-bundle'"),
        ('{"format": "asg-bundle"}', "version is missing"),
        ('{"a": 1, "a": 2}', "not valid JSON: field 'a' is there twice"),
        ('{"a": NaN}', "not valid JSON: NaN is not a number"),
        ("[" * 100_000, "nested too deep"),
        ("\ufffe", "not valid JSON: "),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON: "),
        (
            '{"format": "asg-bundle", "version": 1, "sha256": "\\ud800"}',
            "was changed or is damaged",
        ),
    ],
)
def test_manifest_that_is_none(folder: Path, text: str, message: str) -> None:
    (folder / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert refusal(folder).startswith(f"{folder}: manifest.json: {message}")


def test_newer_version(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest.update(version=2))
    assert refusal(folder) == (
        f"{folder}: manifest.json: the bundle has format version 2, and this version of ASG reads "
        "up to 1\n  fix: install a newer ASG, or save the bundle with this one"
    )


def test_older_version(folder: Path) -> None:
    rewrite(folder, lambda manifest: manifest.update(version=0))
    assert refusal(folder) == (
        f"{folder}: manifest.json: the bundle has format version 0; the oldest that is still read "
        "is 1\n  fix: compile the model again"
    )


def set_at(path: str, value: object) -> Change:
    """A change that puts `value` at `path`, such as `entries.1.steps.0.kernel`."""

    def change(manifest: dict[str, Any]) -> None:
        *parents, last = [int(key) if key.isdigit() else key for key in path.split("|")]
        place: Any = manifest
        for key in parents:
            place = place[key]
        if value is DELETE:
            del place[last]
        else:
            place[last] = value

    return change


DELETE = object()
TAMPERED: list[tuple[str, object, str]] = [
    ("name", 7, "name: expected a string of at most 4096 characters, got 7"),
    ("name", "x" * 5000, "name: expected a string of at most 4096 characters, got "),
    ("extra", 1, "unknown field 'extra'"),
    ("buffers", DELETE, "buffers is missing"),
    ("buffers", {}, "buffers: expected an array, got {}"),
    ("buffers|0|size", 100, "buffers[0].size: expected an integer from 256 to 68719476736"),
    ("buffers|0|size", 300, "buffers[0].size: 300 is not a multiple of 256"),
    ("buffers|0|size", 1 << 60, "buffers[0].size: expected an integer from 256 to "),
    ("buffers|0|size", True, "buffers[0].size: expected an integer from 256 to "),
    ("buffers|0|size", 256.0, "buffers[0].size: expected an integer from 256 to 68719476736, got "),
    ("buffers|0|role", "spy", "buffers[0].role: expected one of arena, input, parameter, "),
    ("buffers|0|more", 1, "buffers[0]: unknown field 'more'"),
    ("persistent|0|offset", 4, "persistent[0]: ends at 260, and buffer 'weights' has 256 bytes"),
    ("persistent|0|offset", -256, "persistent[0].offset: expected an integer from 0 to "),
    ("persistent|1|offset", 2, "persistent[1].offset: 2 is not a multiple of 4"),
    ("persistent|0|buffer", 5, "persistent[0].buffer: expected an integer from 0 to 4, got 5"),
    ("persistent|0|dtype", "f99", "persistent[0].dtype: expected one of f32, i32, u32, bool"),
    ("persistent|0|shape", [1 << 40, 1 << 40], "persistent[0].shape[0]: expected an integer"),
    ("persistent|0|shape", [1] * 33, "persistent[0].shape: has 33 items; at most 32 are allowed"),
    ("persistent|0|shape", [32], "weights.safetensors holds 'w' as float32[64], not f32[32]"),
    ("persistent|0|dtype", "i32", "weights.safetensors holds 'w' as float32[64], not i32[64]"),
    ("persistent|0|name", "v", "entries[0].updates.w: is no parameter or state"),
    ("persistent|1|name", "w", "persistent: two slots have one name"),
    ("persistent|0|role", "king", "persistent[0].role: expected one of parameter, state, "),
    ("kernels|add|arguments|0|access", "write", "kernels.add.arguments[0].access: expected one"),
    ("kernels|add|variants", [], "kernels.add.variants: a kernel has at least one variant"),
    ("kernels|add|variants|0|workgroups", [1, 1], "kernels.add.variants[0].workgroups: three"),
    (
        "kernels|add|variants|0|workgroups",
        [65536, 1, 1],
        "kernels.add.variants[0].workgroups[0]: expected an integer from 0 to 65535, got 65536",
    ),
    ("kernels|add|variants|0|file", "/etc/passwd", "'/etc/passwd' is not among the files"),
    ("kernels|add|variants|0|limits", {"maxFun": 1}, "kernels.add.variants[0].limits.maxFun: is "),
    ("kernels|add|flops", -1, "kernels.add.flops: expected an integer from 0 to "),
    ("kernels|add", DELETE, "entries[0].steps[0].kernel: there is no kernel 'add'"),
    ("entries", [], "entries: there is no entry, or two have one name"),
    ("entries|0|name", "predict", "entries: there is no entry, or two have one name"),
    ("entries|0|steps|0|ranges|0", [0, 256, 256], "entries[0].steps[0].ranges[0]: ends at 512, "),
    ("entries|0|steps|0|ranges|0", [0, 0, 0], "entries[0].steps[0].ranges[0][2]: expected an "),
    ("entries|0|steps|0|ranges|0", [0, 2, 8], "entries[0].steps[0].ranges[0]: offset 2 and size 8"),
    ("entries|0|steps|0|ranges|0", [0, 4, 8], "entries[0].steps[0].ranges: [0]: offset is not a "),
    ("entries|0|steps|0|ranges|0", [9, 0, 8], "entries[0].steps[0].ranges[0][0]: expected an "),
    ("entries|0|steps|0|ranges|0", [0, 0], "entries[0].steps[0].ranges[0]: a range is [buffer, "),
    ("entries|0|steps|0|ranges", [], "entries[0].steps[0].ranges: 0 for 3 arguments"),
    ("entries|0|steps|0|reads", ["q"], "entries[0].steps[0]: the value 'q' has no place"),
    ("entries|0|updates", {"q": "w"}, "entries[0].updates.q: is no parameter or state"),
    ("entries|0|updates", {"w": "q"}, "entries[0].updates.w: the value 'q' has no place"),
    ("entries|0|updates", {"rate": "w_1"}, "entries[0].updates.rate: is no parameter or state"),
    ("entries|1|steps|2|target", [4, 256, 128], "entries[1].steps[2]: copies 256 bytes to 128"),
    ("entries|1|steps|2|target", [4, 128, 256], "entries[1].steps[2]: source and target overlap"),
    ("entries|0|outputs|0|offset", 512, "entries[0].outputs[0]: ends at 768, and buffer 'arena'"),
    ("sources|train", "../../etc/passwd", "'../../etc/passwd' is not among the files"),
    ("files|../up.wgsl", {}, "files.../up.wgsl: is no file name that a bundle can have"),
    ("files|/up.wgsl", {}, "files./up.wgsl: is no file name that a bundle can have"),
    ("files|kernels/a/../b.wgsl", {}, "files.kernels/a/../b.wgsl: is no file name that a bundle"),
    ("files|kernels\\b.wgsl", {}, "files.kernels\\b.wgsl: is no file name that a bundle can have"),
    ("files|weights.safetensors", DELETE, "'weights.safetensors' is not among the files"),
    ("files|kernels/add.wgsl|sha256", "0", "files.kernels/add.wgsl.sha256: is no SHA-256"),
    ("files|kernels/add.wgsl|size", 1 << 40, "files.kernels/add.wgsl.size: expected an integer"),
    ("report", [], "report: expected an object, got []"),
]


@pytest.mark.parametrize(("path", "value", "message"), TAMPERED)
def test_tampered_manifest(folder: Path, path: str, value: object, message: str) -> None:
    rewrite(folder, set_at(path, value))
    assert refusal(folder).startswith(f"{folder}: manifest.json: {message}")


def test_tampered_manifest_is_refused_by_the_schema_too(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    validator = jsonschema.Draft202012Validator(SCHEMA)
    # What only a loader can know: places in other files, sums, and names that refer.
    beyond = ("ends at", "holds", "no kernel", "no place", "not among", "one name", "bytes to",
              "overlap", "no parameter", "for 3 arguments", "not a multiple of 256",
              "from 0 to 4, got 5", "shape[0]", "ranges[0][0]", "offset is not", "limits.maxFun",
              "files.kernels/add.wgsl.size", "68719476736, got ")  # fmt: skip
    for path, value, message in TAMPERED:
        changed = json.loads(json.dumps(manifest))
        set_at(path, value)(changed)
        assert any(word in message for word in beyond) or not validator.is_valid(changed), path


def test_weights_that_are_none(folder: Path) -> None:
    data = b"\x07\x00\x00\x00\x00\x00\x00\x00{broken"
    (folder / "weights.safetensors").write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    rewrite(folder, set_at("files|weights.safetensors", entry))
    assert refusal(folder).startswith(f"{folder}: weights.safetensors can't be read: ")


def test_text_that_is_none(folder: Path) -> None:
    (folder / "kernels" / "add.wgsl").write_bytes(b"\xff\xfe")
    entry = {"sha256": hashlib.sha256(b"\xff\xfe").hexdigest(), "size": 2}
    rewrite(folder, set_at("files|kernels/add.wgsl", entry))
    assert refusal(folder) == f"{folder}: kernels/add.wgsl is not text"


def test_zip_with_more_in_it(tmp_path: Path) -> None:
    path = save(rich(), tmp_path / "tiny.asg")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../evil.sh", "rm -r")
    assert refusal(path) == f"{path}: '../../evil.sh' is not named in manifest.json"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_with_a_file_twice(tmp_path: Path) -> None:
    path = save(rich(), tmp_path / "tiny.asg")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("kernels/add.wgsl", artefacts.ADD)
    assert refusal(path) == f"{path}: a file is there twice"


def test_zip_bomb(tmp_path: Path) -> None:
    folder = save(rich(), tmp_path / "tiny")
    path = tmp_path / "tiny.asg"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.rglob("*.*"):
            name = file.relative_to(folder).as_posix()
            data = b" " * (64 << 20) if name == "kernels/add.wgsl" else file.read_bytes()
            archive.writestr(name, data)
    size = len(artefacts.ADD)
    assert refusal(path) == f"{path}: kernels/add.wgsl has more than the expected {size} bytes"


def test_other_files_in_a_folder_do_no_harm(folder: Path) -> None:
    (folder / ".DS_Store").write_text("")
    shutil.copytree(folder / "kernels", folder / "old kernels")
    assert load_bundle(folder).name == "tiny"
