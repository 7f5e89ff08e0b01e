"""Compiles WGSL with naga. Input and output are those of tests/tint/check.mjs.

A script, run by wgsl_check.py in a process of its own, since naga may abort it.
"""

import json
import logging
import sys

import wgpu

SETUP_FAILED = 3
FEATURES = ("shader-f16", "shader-int64", "subgroup")

# wgpu grants the adapter's maxima unless told otherwise; a browser grants these.
DEFAULT_LIMITS = {
    "max-bind-groups": 4,
    "max-bindings-per-bind-group": 1000,
    "max-buffer-size": 256 << 20,
    "max-compute-invocations-per-workgroup": 256,
    "max-compute-workgroup-size-x": 256,
    "max-compute-workgroup-size-y": 256,
    "max-compute-workgroup-size-z": 64,
    "max-compute-workgroup-storage-size": 16384,
    "max-compute-workgroups-per-dimension": 65535,
    "max-storage-buffer-binding-size": 128 << 20,
    "max-storage-buffers-per-shader-stage": 8,
    "max-uniform-buffer-binding-size": 64 << 10,
    "max-uniform-buffers-per-shader-stage": 12,
}


def check(device: wgpu.GPUDevice, code: str) -> str | None:
    """None, or what naga objects to."""
    try:
        module = device.create_shader_module(code=code)
        device.create_compute_pipeline(layout="auto", compute={"module": module})
    except wgpu.GPUError as error:
        return str(error)
    return None


def main() -> None:
    """Read cases from standard input, write one verdict a line."""
    # The errors go into the verdicts; wgpu would log them as well.
    logging.getLogger("wgpu").setLevel(logging.CRITICAL)
    cases = json.load(sys.stdin)
    try:
        adapter = wgpu.gpu.request_adapter_sync()
        device = adapter.request_device_sync(
            required_features=[name for name in FEATURES if name in adapter.features],
            required_limits=DEFAULT_LIMITS,
        )
    except (RuntimeError, wgpu.GPUError) as error:
        print(f"no wgpu device: {error}", file=sys.stderr)
        sys.exit(SETUP_FAILED)
    for case in cases:
        # Flushed, so that an abort points at the case after the last line.
        print(json.dumps([case["name"], check(device, case["code"])]), flush=True)


if __name__ == "__main__":
    main()
