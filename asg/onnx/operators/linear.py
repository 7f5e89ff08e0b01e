"""Matrix products."""

from __future__ import annotations

from asg import functions as F
from asg.onnx.call import Call
from asg.onnx.registry import converter
from asg.tensor import Tensor


@converter("MatMul", since=1)
def matmul(call: Call) -> Tensor:
    """NumPy's product: operands of one axis are vectors."""
    return F.matmul(call[0], call[1])


@converter("Gemm", since=7)
def gemm(call: Call) -> Tensor:
    """alpha A B + beta C, with A and B transposed if wanted."""
    a, b = call[0], call[1]
    a = a.T if call.get_int("transA", 0) else a
    b = b.T if call.get_int("transB", 0) else b
    alpha, beta = call.get_float("alpha", 1.0), call.get_float("beta", 1.0)
    product: Tensor = F.matmul(a, b)
    result: Tensor = product if alpha == 1.0 else product * alpha
    bias = call.optional(2)
    if bias is None or beta == 0.0:
        return result
    return result + (bias if beta == 1.0 else bias * beta)
