"""The child's side of the ONNX node tests: one contestant answers for one test after the other.

    python benchmarks/onnx_judged.py CONTESTANT CASES.pickle

It reads names of tests, one a line, and answers each with one JSON line: `result` is `passed`,
`wrong` (an answer that is not the right one), `refused` (a clear error before anything ran, by
contestants that have one) or `failed` (any other error); `why` says more.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx_cases import Case, judge, kept

Array = np.ndarray[Any, Any]
Run = Callable[[Case, Sequence[Array]], Sequence[Array]]
Answer = dict[str, str]


class RefusedError(Exception):
    """The contestant says that it can't, before it runs anything."""


def names_of(case: Case) -> tuple[list[str], list[str]]:
    """Return the names of a model's inputs and outputs."""
    graph = onnx.load_from_string(case.model).graph
    held = {each.name for each in graph.initializer}
    return [x.name for x in graph.input if x.name not in held], [y.name for y in graph.output]


def by_asg() -> tuple[str, Run]:
    import asg
    import asg.onnx

    def run(case: Case, given: Sequence[Array]) -> Sequence[Array]:
        inputs, outputs = names_of(case)
        try:
            graph = asg.onnx.load(case.model, float64="narrow")
            feeds = dict(zip(inputs, given, strict=False))
            with asg.compile(graph, target="wgpu") as executable:
                results = executable(feeds)
        except asg.AsgError as error:
            raise RefusedError(str(error)) from error
        return [results[name] for name in outputs]

    return asg.__version__, run


def by_onnxruntime(provider: str, package: str) -> tuple[str, Run]:
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)

    def run(case: Case, given: Sequence[Array]) -> Sequence[Array]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        if provider != "CPUExecutionProvider":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            session = onnxruntime.InferenceSession(case.model, options, providers=[provider])
        except Exception as error:
            raise RefusedError(str(error)) from error
        names = [each.name for each in session.get_inputs()]
        result: Sequence[Array] = session.run(None, dict(zip(names, given, strict=False)))
        return result

    return version(package), run


def by_tinygrad() -> tuple[str, Run]:
    import tinygrad_side  # noqa: F401  (it chooses the device)
    from tinygrad import Tensor
    from tinygrad.nn.onnx import OnnxRunner

    def run(case: Case, given: Sequence[Array]) -> Sequence[Array]:
        inputs, outputs = names_of(case)
        try:
            runner = OnnxRunner(Tensor(case.model))
        except NotImplementedError as error:
            raise RefusedError(str(error)) from error
        results = runner(dict(zip(inputs, given, strict=False)))
        return [np.asarray(results[name].numpy()) for name in outputs]

    return version("tinygrad"), run


def by_wonnx() -> tuple[str, Run]:
    import wonnx
    from wonnx_side import guarded

    def run(case: Case, given: Sequence[Array]) -> Sequence[Array]:
        inputs, outputs = names_of(case)
        types = {each.name: each.type for each in onnx.load_from_string(case.model).graph.output}
        session = guarded(wonnx.Session.from_bytes, case.model)
        feeds = {n: np.ravel(x).tolist() for n, x in zip(inputs, given, strict=False)}
        results = guarded(session.run, feeds)
        arrays = []
        for name in outputs:
            tensor = types[name].tensor_type
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            shape = [each.dim_value for each in tensor.shape.dim]
            arrays.append(np.array(results[name], dtype).reshape(shape))
        return arrays

    return version("wonnx"), run


def by_reference() -> tuple[str, Run]:
    from onnx.reference import ReferenceEvaluator

    def run(case: Case, given: Sequence[Array]) -> Sequence[Array]:
        evaluator = ReferenceEvaluator(onnx.load_from_string(case.model))
        feeds = dict(zip(evaluator.input_names, given, strict=False))
        result: Sequence[Array] = evaluator.run(None, feeds)
        return result

    return onnx.__version__, run


CONTESTANTS: dict[str, Callable[[], tuple[str, Run]]] = {
    "asg": by_asg,
    "onnxruntime-webgpu": lambda: by_onnxruntime("WebGpuExecutionProvider", "onnxruntime-webgpu"),
    "tinygrad": by_tinygrad,
    "wonnx": by_wonnx,
    "onnxruntime-cpu": lambda: by_onnxruntime("CPUExecutionProvider", "onnxruntime-webgpu"),
    "onnx-reference": by_reference,
}


def shortened(error: Exception) -> str:
    """Return what an error says, on one line."""
    return " ".join(str(error).split())[:300]


def outcome(run: Run, case: Case) -> Answer:
    """Let a contestant answer for one test."""
    try:
        for given, wanted in case.data_sets:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fault = judge(case, run(case, given), wanted)
            if fault:
                return {"result": "wrong", "why": fault}
    except RefusedError as refusal:
        return {"result": "refused", "why": shortened(refusal)}
    except Exception as error:
        return {"result": "failed", "why": f"{type(error).__name__}: {shortened(error)}"}
    return {"result": "passed", "why": ""}


def main() -> None:
    # Libraries print to stdout; from now on that is stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    number, run = CONTESTANTS[sys.argv[1]]()
    cases = kept(Path(sys.argv[2]))
    print(json.dumps({"version": number}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(outcome(run, cases[line.strip()])), file=answers, flush=True)


if __name__ == "__main__":
    main()
