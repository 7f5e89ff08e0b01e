"""Matrix products."""

from __future__ import annotations

import math

from asg import functions as F
from asg.onnx.call import Call
from asg.onnx.registry import MICROSOFT, converter
from asg.tensor import Tensor

LARGEST = 16  # rows of a matrix whose determinant is written out


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


@converter("Einsum", since=12)
def einsum(call: Call) -> Tensor:
    """Sums of products that an equation describes."""
    return F.einsum(call.get_text("equation"), *call.tensors)


@converter("FusedMatMul", domain=MICROSOFT)
def fused_matmul(call: Call) -> Tensor:
    """alpha A B, with the last two axes of A and B transposed if wanted."""
    a, b = call[0], call[1]
    a = F.swapaxes(a, -1, -2) if call.get_int("transA", 0) else a
    b = F.swapaxes(b, -1, -2) if call.get_int("transB", 0) else b
    product: Tensor = F.matmul(a, b) * call.get_float("alpha", 1.0)
    return product


@converter("Det", since=11)
def det(call: Call) -> Tensor:
    """The determinant of matrices, by elimination with the largest of a column as pivot."""
    x = call[0]
    n = x.shape[-1]
    if n > LARGEST:
        raise call.unsupported(f"the determinant of {n} rows", f"at most {LARGEST}")
    matrix = F.reshape(x, (math.prod(x.shape[:-2]), n, n))
    result = F.ones((matrix.shape[0],), x.dtype)
    for _ in range(n):
        column = matrix[:, :, 0]
        best = F.reshape(F.argmax(F.abs(column), 1), (-1, 1, 1))
        row = F.take_along_axis(
            matrix, F.broadcast_to(best, (matrix.shape[0], 1, matrix.shape[2])), 1
        )
        places = F.arange(matrix.shape[1]).reshape((1, -1, 1))
        # The pivot's row changes places with the first one, which then is left out.
        matrix = F.where(F.equal(places, best), matrix[:, :1], matrix)[:, 1:]
        pivot = row[:, 0, 0]
        result = result * pivot * F.where(F.equal(best[:, 0, 0], 0), 1.0, -1.0)
        safe = F.where(F.equal(pivot, 0.0), 1.0, pivot)
        factor = matrix[:, :, :1] / F.reshape(safe, (-1, 1, 1))
        matrix = (matrix - factor * row)[:, :, 1:]
    return F.reshape(result, x.shape[:-2])
