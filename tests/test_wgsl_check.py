"""The two WGSL compilers refuse what they should, and a crash is a verdict like any other."""

import pytest

from support.wgsl_check import check_naga, check_tint

HEADER = """
@group(0) @binding(0) var<storage, read_write> data: array<f32>;
var<workgroup> tile: array<f32, 64>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
"""


def kernel(body: str) -> str:
    return f"{HEADER}    {body}\n}}\n"


GOOD = {
    "store": kernel("data[id.x] = data[id.x] * 2.0;"),
    "barrier": kernel(
        "tile[lane] = data[id.x]; workgroupBarrier(); data[id.x] = tile[63u - lane];"
    ),
    "subgroup": kernel("data[id.x] = subgroupAdd(data[id.x]);"),
    "half": kernel("data[id.x] = f32(f16(data[id.x]) * 2.0h);"),
    "the word subgroupAdd in a comment": "// subgroupAdd, f16\n" + kernel("data[id.x] = 1.0;"),
    "mixed operators in brackets": kernel("if ((id.x & 1u) == 1u) { data[id.x] = 1.0; }"),
}

ONLY_TINT_REFUSES = {
    "barrier after return": (
        kernel("if (lane > 8u) { return; } workgroupBarrier(); data[id.x] = 1.0;"),
        "must only be called from uniform control flow",
    ),
    "mixed operators": (
        kernel("let bits = id.x & 1u | 2u; data[id.x] = f32(bits);"),
        "mixing '&' and '|' requires parenthesis",
    ),
    "too much workgroup memory": (
        "var<workgroup> big: array<f32, 4097>;" + kernel("big[lane] = 1.0; data[id.x] = big[0];"),
        "larger than the maximum allowed (16384 bytes)",
    ),
}

BOTH_REFUSE = {
    "unknown name": kernel("data[id.x] = nowhere;"),
    "two entry points": kernel("") + "@compute @workgroup_size(1) fn other() {}",
    "too many invocations": kernel("").replace("size(64)", "size(512)"),
    "too many buffers": "".join(
        f"@group(1) @binding({i}) var<storage, read> b{i}: array<f32>;\n" for i in range(8)
    )
    + kernel(f"data[id.x] = {' + '.join(f'b{i}[0]' for i in range(8))};"),
}

# naga's SPIR-V writer aborts the process on a pointer to an element.
ABORTS_NAGA = """
fn twice(value: ptr<function, f32>) { *value *= 2.0; }
@group(0) @binding(0) var<storage, read_write> data: array<f32>;
@compute @workgroup_size(1)
fn main() { var pair: array<f32, 2>; twice(&pair[1]); data[0] = pair[1]; }
"""


@pytest.mark.tint
def test_tint_accepts_and_refuses() -> None:
    refused = {name: code for name, (code, _) in ONLY_TINT_REFUSES.items()}
    verdicts = check_tint(GOOD | refused | BOTH_REFUSE)
    assert {name: verdicts[name] for name in GOOD} == dict.fromkeys(GOOD)
    for name, (_, message) in ONLY_TINT_REFUSES.items():
        assert message in (verdicts[name] or ""), (name, verdicts[name])
    for name in BOTH_REFUSE:
        assert verdicts[name], name


@pytest.mark.tint
def test_tint_names_the_line_of_the_stored_text() -> None:
    verdict = check_tint({"bad": kernel("data[0] = subgroupAdd(1.0) + nowhere;")})["bad"]
    assert verdict
    assert verdict.startswith("line 6, column "), verdict


@pytest.mark.device
def test_naga_accepts_and_refuses() -> None:
    verdicts = check_naga(GOOD | BOTH_REFUSE)
    assert {name: verdicts[name] for name in GOOD} == dict.fromkeys(GOOD)
    for name in BOTH_REFUSE:
        assert verdicts[name], name


@pytest.mark.device
def test_an_abort_is_reported_and_the_rest_goes_on() -> None:
    verdicts = check_naga({"before": GOOD["store"], "aborts": ABORTS_NAGA, "after": GOOD["store"]})
    assert verdicts["before"] is None
    assert (verdicts["aborts"] or "").startswith("PANIC (exit status ")
    assert verdicts["after"] is None
