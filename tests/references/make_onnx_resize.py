"""Write what ONNX's reference evaluator makes of Resize, as resize.json.

Run it where onnx is installed: `python tests/references/make_onnx_resize.py`.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

HERE = Path(__file__).parent
COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
    "tf_crop_and_resize",
)  # fmt: skip
SIZES = (([7], [1.0 + 6 / 5]), ([3], [0.6]), ([1], [0.2]), ([8], [1.7]))  # the last: scale is told
X = [1.0, -2.0, 4.0, 0.5, 3.0]
ROI = [0.2, 1.1]


def resized(size: list[int], scales: list[float] | None, **options: object) -> list[float]:
    node = helper.make_node(
        "Resize",
        ["x", "roi", "scales" if scales else "", "" if scales else "sizes"],
        ["y"],
        **options,
    )
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [len(X)])]
    inputs.append(helper.make_tensor_value_info("roi", TensorProto.FLOAT, [2]))
    given = {"x": np.array(X, np.float32), "roi": np.array(ROI, np.float32)}
    if scales:
        inputs.append(helper.make_tensor_value_info("scales", TensorProto.FLOAT, [1]))
        given["scales"] = np.array(scales, np.float32)
    else:
        inputs.append(helper.make_tensor_value_info("sizes", TensorProto.INT64, [1]))
        given["sizes"] = np.array(size, np.int64)
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])]
    graph = helper.make_graph([node], "resize", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    (y,) = ReferenceEvaluator(model).run(None, given)
    return [float(number) for number in y]


def main() -> None:
    cases = []
    kinds = [
        ("nearest", rule, 0, 0)
        for rule in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ]
    kinds += [
        (mode, "floor", anti, out)
        for mode in ("linear", "cubic")
        for anti in (0, 1)
        for out in (0, 1)
    ]
    for coordinates, (mode, rule, antialias, exclude), (size, scale) in product(
        COORDINATES, kinds, SIZES
    ):
        scales = scale if size == [8] else None
        options = {
            "mode": mode,
            "coordinate_transformation_mode": coordinates,
            "nearest_mode": rule,
            "antialias": antialias,
            "exclude_outside": exclude,
            "extrapolation_value": 9.0,
        }
        y = resized(size, scales, **options)
        cases.append({**options, "scale": scales and float(np.float32(scales[0])), "y": y})
    text = ",\n".join(json.dumps(case) for case in cases)
    head = json.dumps({"x": X, "roi": ROI, "onnx": onnx.__version__})[:-1]
    (HERE / "resize.json").write_text(f'{head}, "cases": [\n{text}\n]}}\n')
    print(f"resize.json: {len(cases)} cases")


if __name__ == "__main__":
    main()
