"""Models that mean nothing, or want more than there is: one clear error each, before a run."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

import asg
from support.onnx_checks import check_model
from support.onnx_fuzz import memory


def text(nodes: str, inputs: str = "float[2,3] x", weights: str = "") -> onnx.ModelProto:
    """Return a model of nodes that make y."""
    return parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => (float[m,n] y) '
        f"{weights} {{ {nodes} }}"
    )


def refusal(model: onnx.ModelProto) -> str:
    with pytest.raises(asg.AsgError) as caught:
        asg.onnx.load(model)
    return str(caught.value)


@pytest.mark.parametrize(
    ("nodes", "weights", "message"),
    [
        ("y = Resize(x, , s)", "<float[2] s = {1, 1e9}>", "an axis of 3000000000 elements"),
        ("y = HannWindow(s)", "<int64 s = {1099511627776}>", "a window of 1099511627776 elements"),
        ("y = Range(a, s, b)", "<int64 a = {0}, int64 b = {1}, int64 s = {1099511627776}>",
         "a range of 1099511627776 elements"),
        ("y = MelWeightMatrix(a, s, s, b, b)", "<int64 a = {4}, int64 s = {1099511627776}, "
         "float b = {1}>", "a matrix of"),
    ],
)  # fmt: skip
def test_more_elements_than_there_is_memory_for(nodes: str, weights: str, message: str) -> None:
    assert message in refusal(text(nodes, weights=weights))


@pytest.mark.parametrize(
    ("nodes", "inputs", "weights", "message"),
    [
        ("y = Scan<num_scan_inputs=2147483647, body = b (float[2] a) => (float[2] c) "
         "{ c = Relu(a) }>(x)", "float[2,3] x", "", "num_scan_inputs is 2147483647"),
        ("y, z = Split<num_outputs=2147483647>(x)", "float[2,3] x", "",
         "num_outputs is 2147483647 for 2 results"),
        ("p = SplitToSequence(x) y = SequenceAt(p, i)", "float[1073741824] x", "<int64 i = {0}>",
         "a sequence of 1073741824 parts"),
        ("y = DFT(x, s)", "float[1,4,1] x", "<int64 s = {1099511627776}>",
         "a transform of 1099511627776"),
        ("y = DFT(x, s)", "float[1,4,2] x", "<int64 s = {67108864}>", "a transform of 8192"),
        ("y = STFT(x, h, , s)", "float[1,70000] x", "<int64 h = {1}, int64 s = {35000}>",
         "35001 frames of 35000 elements"),
        ("y = AveragePool<kernel_shape=[1], pads=[0,2147483647]>(x)", "float[1,1,4] x", "",
         "windows with 2147483651 places"),
        ("z, y = MaxPool<kernel_shape=[3,3], pads=[0,0,16384,16384]>(x)", "float[1,1,4,4] x", "",
         "windows with"),
        ("y = Upsample(x, s)", "float[1,2] x", "<float[2] s = {1, 1e9}>",
         "an axis of 2000000000 elements"),
        ("y = TfIdfVectorizer<mode=\"TF\", min_gram_length=1, max_gram_length=1, "
         "max_skip_count=0, ngram_counts=[0], ngram_indexes=[2147483647], pool_int64s=[1]>(x)",
         "int64[4] x", "", "a row of 2147483648 counts"),
        ("y = MatMulInteger(x, x)", "uint8[1073741824] x", "", "an inner axis of 1073741824"),
    ],
)  # fmt: skip
def test_sizes_are_judged_before_memory_is_taken(
    nodes: str, inputs: str, weights: str, message: str
) -> None:
    version = 9 if "Upsample" in nodes else 18 if "num_outputs" in nodes else 17
    model = text(nodes, inputs, weights)
    model.opset_import[0].version = version
    with memory(1 << 28):
        found = refusal(model)
    assert message in found


def test_sparse_tensors_whose_zeros_are_too_many() -> None:
    model = text("c = Constant() y = Mul(x, c)")
    values = numpy_helper.from_array(np.ones(1, np.float32), "v")
    places = numpy_helper.from_array(np.zeros(1, np.int64), "p")
    sparse = helper.make_sparse_tensor(values, places, [1 << 31])
    model.graph.node[0].attribute.append(helper.make_attribute("sparse_value", sparse))
    with memory(1 << 28):
        assert "a sparse tensor of 2147483648 elements is too large" in refusal(model)


def test_known_operands_that_spread_each_other_are_left_to_the_device() -> None:
    model = text("r = Range(a, n, s) c = Unsqueeze(r, s) y = Add(r, c)",
                 weights="<int64 a = {0}, int64 n = {65536}, int64[1] s = {1}>")  # fmt: skip
    model.graph.node[0].input[2] = "one"
    model.graph.initializer.append(numpy_helper.from_array(np.array(1), "one"))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    with memory(1 << 29):
        graph = asg.onnx.load(model)
    assert isinstance(graph, asg.Graph)
    assert graph.outputs["y"].type.shape == (65536, 65536)


@pytest.mark.parametrize("nodes", ["y = Expand(x, s)", "y = Tile(x, s)"])
def test_results_that_are_too_large(nodes: str) -> None:
    weights = "<int64[2] s = {1099511627776, 3}>"
    graph = asg.onnx.load(text(nodes, "float[1,3] x", weights))
    with pytest.raises(asg.AsgError, match="is too large"):
        asg.compile(graph, target="wgpu")


def test_a_result_of_another_type_than_declared() -> None:
    model = text("y = Shape(x)")
    assert "output 'y' is declared float32, but int64 is computed" in refusal(model)


def test_an_output_that_nothing_makes() -> None:
    assert refusal(text("z = Relu(x)")).startswith("model: output 'y': ")


def test_types_that_do_not_exist() -> None:
    model = text("y = Relu(x)")
    model.graph.input[0].type.tensor_type.elem_type = 77
    assert refusal(model) == "model: input 'x': 77 is no ONNX element type"


def test_two_versions_of_one_domain() -> None:
    model = text("y = Relu(x)")
    model.opset_import.add(domain="ai.onnx", version=9)
    assert refusal(model) == "model: two versions of ai.onnx are asked for"


def test_a_function_that_calls_itself() -> None:
    model = parser.parse_model("""
    <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
    g (float[3] x) => (float[3] y) { y = own.again(x) }
    <opset_import: ["own" : 1], domain: "own"> again (v) => (w) { w = own.again(v) }""")
    found = refusal(model)
    assert found.count("model: node") == 1
    assert found.endswith("graphs or functions stand 64 deep in each other")


@pytest.mark.parametrize(
    ("numbers", "places"), [([1.0, 2.0], [0, -1]), ([1.0], [0, 4]), ([1.0, 2.0], [0, 6])]
)
def test_places_of_a_sparse_tensor(numbers: list[float], places: list[int]) -> None:
    model = text("y = Add(x, w)")
    values = numpy_helper.from_array(np.array(numbers, np.float32), "w")
    indices = numpy_helper.from_array(np.array(places), "places")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2, 3]))
    assert "of a sparse tensor do not fit" in refusal(model)


# -- weights of few bits, and sparse constants ------------------------------------------------


@pytest.mark.device
@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4])
def test_weights_of_four_bits(kind: int) -> None:
    low = -8 if kind == TensorProto.INT4 else 0
    numbers = np.arange(low, low + 15).reshape(3, 5)
    w = helper.make_tensor("w", kind, [3, 5], numbers.ravel().tolist())
    zero = helper.make_tensor("z", kind, [5], [low + 1] * 5)
    scale = numpy_helper.from_array(np.linspace(0.5, 2, 5, dtype=np.float32), "s")
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=1),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 5])], [w, zero, scale],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    whole = (numbers - (low + 1)) * np.linspace(0.5, 2, 5)
    check_model(model, {"x": x}, expected=[(x @ whole).astype(np.float32)], tolerance=1e-5)


def test_nothing_is_computed_in_four_bits() -> None:
    w = helper.make_tensor("w", TensorProto.INT4, [2], [1, -3])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])], "g", [],
        [helper.make_tensor_value_info("y", TensorProto.INT4, [2])], [w],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    assert "int4 is not computed" in refusal(model)


@pytest.mark.device
def test_sparse_constants() -> None:
    values = numpy_helper.from_array(np.array([5.0, 6.0], np.float32), "v")
    places = numpy_helper.from_array(np.array([1, 5]), "i")
    constant = helper.make_sparse_tensor(values, places, [2, 3])
    model = text("y = Relu(x)")
    del model.graph.node[:]
    model.graph.node.append(helper.make_node("Constant", [], ["c"], sparse_value=constant))
    model.graph.node.append(helper.make_node("Add", ["x", "c"], ["y"]))
    x = np.ones((2, 3), np.float32)
    check_model(model, {"x": x}, expected=[np.array([[1, 6, 1], [1, 1, 7]], np.float32)])
