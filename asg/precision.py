"""What may be stored in 16 bits: a policy, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from asg.errors import AsgError
from asg.ops import TABLE
from asg.types import DType

# Maps that blow up small errors or soon leave the range of f16. Sums and the like are never narrow.
WIDE = ("exp", "expm1", "log", "log1p", "pow", "reciprocal", "rsqrt")


@dataclass(frozen=True)
class Policy:
    """Which values of a program are stored in fewer bits. All arithmetic stays f32.

    Attributes:
        dtype: f16 or bf16.
        wide: names of ops whose results are stored in f32.
        least: elements below which a value stays f32.
        parameters: whether matrices that no entry updates are stored so too.

    Raises:
        AsgError: the type is no float of 16 bits, or there is no such op.
    """

    dtype: DType = DType.F16
    wide: tuple[str, ...] = WIDE
    least: int = 1024
    parameters: bool = True

    def __post_init__(self) -> None:
        if not (self.dtype.is_float and self.dtype.is_narrow):
            raise AsgError(f"a policy stores floats of 16 bits, not {self.dtype}")
        if unknown := [name for name in self.wide if name not in TABLE]:
            raise AsgError(f"a policy names {', '.join(unknown)}, which are no ops")


MIXED_F16 = Policy()
MIXED_BF16 = Policy(DType.BF16)
NAMED = {"mixed_f16": MIXED_F16, "mixed_bf16": MIXED_BF16}

Precision = Policy | str | None


def as_policy(precision: Precision) -> Policy | None:
    """Return the policy that `precision=` means; None and "f32" mean none.

    Raises:
        AsgError: there is no such precision.
    """
    if precision is None or precision == "f32":
        return None
    if isinstance(precision, Policy):
        return precision
    if precision not in NAMED:
        known = ", ".join(("f32", *NAMED))
        raise AsgError(f"precision {precision!r} is unknown; known: {known}, or a Policy")
    return NAMED[precision]
