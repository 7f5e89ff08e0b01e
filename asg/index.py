"""Integer index expressions: how a kernel's loop variables become an address.

An `Index` is a constant plus integer multiples of atoms, kept in a canonical form, so that equal
expressions are equal objects. Atoms are variables with a known range, floor divisions and
remainders by positive constants, and opaque values read at run time. All rules are exact for
Python's floor division and remainder; ranges decide which ones apply.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import gcd


@dataclass(frozen=True, slots=True)
class Var:
    """A loop variable with its inclusive range."""

    name: str
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Opaque:
    """A value read at run time, such as an index tensor's element; `key` says which."""

    key: Hashable
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Div:
    """Floor division by a positive constant."""

    operand: Index
    divisor: int

    @property
    def low(self) -> int:
        return self.operand.low // self.divisor

    @property
    def high(self) -> int:
        return self.operand.high // self.divisor


@dataclass(frozen=True, slots=True)
class Mod:
    """Remainder by a positive constant, never negative."""

    operand: Index
    divisor: int

    @property
    def low(self) -> int:
        return 0

    @property
    def high(self) -> int:
        return self.divisor - 1


Atom = Var | Opaque | Div | Mod
Terms = tuple[tuple[Atom, int], ...]


class Index:
    """`const + sum(coefficient * atom)`, immutable, with its inclusive range."""

    __slots__ = ("_hash", "const", "high", "low", "terms")

    def __init__(self, const: int, terms: Terms = ()) -> None:
        self.const = const
        self.terms = terms
        low = high = const
        for atom, c in terms:
            first, last = atom.low * c, atom.high * c
            low += first if c > 0 else last
            high += last if c > 0 else first
        self.low, self.high = low, high
        self._hash = hash((const, frozenset(terms)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Index) or self._hash != other._hash:
            return False
        return self.const == other.const and dict(self.terms) == dict(other.terms)

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: Index | int) -> Index:
        if isinstance(other, int):
            return self if other == 0 else Index(self.const + other, self.terms)
        return _sum(self.const + other.const, (*self.terms, *other.terms))

    __radd__ = __add__

    def __sub__(self, other: Index | int) -> Index:
        return self + (-other if isinstance(other, int) else other * -1)

    def __mul__(self, factor: int) -> Index:
        if factor == 0:
            return ZERO
        return Index(self.const * factor, tuple((a, c * factor) for a, c in self.terms))

    __rmul__ = __mul__

    def __floordiv__(self, divisor: int) -> Index:
        return _divide(self, divisor)

    def __mod__(self, divisor: int) -> Index:
        return _remainder(self, divisor)

    @property
    def is_const(self) -> bool:
        return not self.terms

    def depends_on(self, var: Var) -> bool:
        """Tell whether `var` occurs anywhere inside."""
        for atom, _ in self.terms:
            if atom == var:
                return True
            if isinstance(atom, (Div, Mod)) and atom.operand.depends_on(var):
                return True
        return False

    def coefficient(self, var: Var) -> int | None:
        """Return the multiple of `var`, or None where it also occurs inside another atom."""
        result = 0
        for atom, c in self.terms:
            if atom == var:
                result = c
            elif isinstance(atom, (Div, Mod)) and atom.operand.depends_on(var):
                return None
        return result

    def substitute(self, replace: Mapping[Atom, Index]) -> Index:
        """Return the expression with atoms replaced, simplified anew."""
        result = Index(self.const)
        for atom, c in self.terms:
            result = result + _replace(atom, replace) * c
        return result

    def atoms(self) -> list[Atom]:
        """Return every variable and opaque value inside."""
        found: dict[Atom, None] = {}
        for atom, _ in self.terms:
            if isinstance(atom, (Div, Mod)):
                found.update(dict.fromkeys(atom.operand.atoms()))
            else:
                found[atom] = None
        return list(found)

    def evaluate(self, values: Mapping[Atom, int]) -> int:
        """Compute the value for given variables."""
        total = self.const
        for atom, c in self.terms:
            match atom:
                case Div(operand, divisor):
                    total += c * (operand.evaluate(values) // divisor)
                case Mod(operand, divisor):
                    total += c * (operand.evaluate(values) % divisor)
                case _:
                    total += c * values[atom]
        return total

    def __repr__(self) -> str:
        return render(self, lambda atom: atom.name if isinstance(atom, Var) else f"@{atom.key}")


ZERO = Index(0)


def constant(value: int) -> Index:
    """Return an integer as an index expression."""
    return Index(value)


def variable(name: str, size: int) -> Index:
    """Return a variable that runs over `0 … size - 1` (a constant 0 where size is 1)."""
    if size <= 1:
        return ZERO
    return Index(0, ((Var(name, 0, size - 1), 1),))


def opaque(key: Hashable, size: int) -> Index:
    """Return a run-time value in `0 … size - 1`."""
    return Index(0, ((Opaque(key, 0, max(size - 1, 0)), 1),))


def flatten(coordinates: Sequence[Index], shape: Sequence[int]) -> Index:
    """Return the row-major position of `coordinates` in `shape`."""
    return _flatten(tuple(coordinates), tuple(shape))


@lru_cache(maxsize=1 << 14)  # kernels ask for the same few addresses again and again
def _flatten(coordinates: tuple[Index, ...], shape: tuple[int, ...]) -> Index:
    position = ZERO
    for coordinate, size in zip(coordinates, shape, strict=True):
        position = position * size + coordinate
    return position


def unflatten(position: Index, shape: Sequence[int]) -> tuple[Index, ...]:
    """Return the coordinates in `shape` of a row-major position."""
    return _unflatten(position, tuple(shape))


@lru_cache(maxsize=1 << 14)
def _unflatten(position: Index, shape: tuple[int, ...]) -> tuple[Index, ...]:
    coordinates: list[Index] = []
    for axis, size in enumerate(reversed(shape)):
        is_first = axis == len(shape) - 1
        if is_first and position.low >= 0 and position.high < max(size, 1):
            coordinates.append(position)
        else:
            coordinates.append(position % max(size, 1))
        position = position // max(size, 1)
    return tuple(reversed(coordinates))


def _sum(const: int, terms: Terms) -> Index:
    gathered: dict[Atom, int] = {}
    for atom, c in terms:
        gathered[atom] = gathered.get(atom, 0) + c
    if any(isinstance(atom, Mod) for atom in gathered):
        const += _recombine(gathered)
    return Index(const, tuple((atom, c) for atom, c in gathered.items() if c))


def _recombine(gathered: dict[Atom, int]) -> int:
    """Apply `c * (x % m) + c * m * (x // m) = c * x` until nothing changes, and the same within a
    remainder: `c * (x % m) + c * m * (x // m % n) = c * (x % (m * n))`. Return what is constant."""
    const = 0
    pending = [atom for atom in gathered if isinstance(atom, Mod)]
    while pending:
        atom = pending.pop()
        c = gathered.get(atom, 0)
        found = _matching_parts(gathered, atom, c) if c else None
        if found is None:
            continue
        whole, parts = found
        for part in (atom, *parts):
            del gathered[part]
        const += c * whole.const
        for part, k in whole.terms:
            gathered[part] = gathered.get(part, 0) + c * k
        # What was put together may be what another remainder lacked.
        pending = [atom for atom in gathered if isinstance(atom, Mod)]
    return const


def _matching_parts(
    gathered: dict[Atom, int], atom: Mod, c: int
) -> tuple[Index, tuple[Atom, ...]] | None:
    """Return what `c * atom` and other parts are `c` times, and these parts.

    The remainder `atom` may have been reduced: `4 k % 3` is `k % 3`.
    """
    scale = c * atom.divisor
    quotient = _divide(atom.operand, atom.divisor)
    if quotient.terms and all(gathered.get(part, 0) == scale * k for part, k in quotient.terms):
        whole = atom.operand - quotient.const * atom.divisor
        return whole, tuple(part for part, _ in quotient.terms)
    wanted = Index(0, ((atom, 1),))
    for part, k in gathered.items():
        if k != scale:
            continue
        if isinstance(part, Mod) and part.operand == quotient:
            whole = _remainder(atom.operand, atom.divisor * part.divisor)
            if len(whole.terms) == 1:  # else it might fall into the same parts again
                return whole, (part,)
        if not isinstance(part, Div) or part.divisor != atom.divisor:
            continue
        if _remainder(part.operand, atom.divisor) == wanted:
            return part.operand, (part,)
    return None


@lru_cache(maxsize=1 << 14)
def _divide(index: Index, divisor: int) -> Index:
    if divisor <= 0:
        raise ValueError(f"an index is divided by positive constants only, got {divisor}")
    if divisor == 1:
        return index
    if 0 <= index.low and index.high < divisor:
        return ZERO
    whole = Index(
        index.const // divisor,
        tuple((a, c // divisor) for a, c in index.terms if c % divisor == 0),
    )
    rest = Index(index.const % divisor, tuple((a, c) for a, c in index.terms if c % divisor))
    if rest.low < 0:
        # Unsigned arithmetic must never divide a negative number.
        turns = -(rest.low // divisor)
        rest, whole = rest + turns * divisor, whole - turns
    if 0 <= rest.low and rest.high < divisor:
        return whole
    for common, high_part, _ in _splits(rest, divisor):
        return whole + _divide(high_part, divisor // common)
    if rest.const == 0 and len(rest.terms) == 1 and rest.terms[0][1] == 1:
        atom = rest.terms[0][0]
        if isinstance(atom, Div):
            return whole + _divide(atom.operand, atom.divisor * divisor)
        if isinstance(atom, Mod) and atom.divisor % divisor == 0:
            return whole + _remainder(_divide(atom.operand, divisor), atom.divisor // divisor)
    return whole + Index(0, ((Div(rest, divisor), 1),))


@lru_cache(maxsize=1 << 14)
def _remainder(index: Index, divisor: int) -> Index:
    if divisor <= 0:
        raise ValueError(f"an index is divided by positive constants only, got {divisor}")
    if divisor == 1:
        return ZERO
    if 0 <= index.low and index.high < divisor:
        return index
    rest = Index(
        index.const % divisor,
        tuple((a, c % divisor) for a, c in index.terms if c % divisor),
    )
    if rest.low < 0:
        rest = rest - rest.low // divisor * divisor
    if 0 <= rest.low and rest.high < divisor:
        return rest
    for common, high_part, low_part in _splits(rest, divisor):
        return _remainder(high_part, divisor // common) * common + low_part
    if rest.const == 0 and len(rest.terms) == 1 and rest.terms[0][1] == 1:
        atom = rest.terms[0][0]
        if isinstance(atom, Mod) and atom.divisor % divisor == 0:
            return _remainder(atom.operand, divisor)
    return Index(0, ((Mod(rest, divisor), 1),))


def _splits(rest: Index, divisor: int) -> list[tuple[int, Index, Index]]:
    """Write `rest` as `common * high + low` with `0 <= low < common` and `common | divisor`."""
    commons = {gcd(c, divisor) for _, c in rest.terms} - {1, divisor}
    for common in sorted(commons, reverse=True):
        high_terms = tuple((a, c // common) for a, c in rest.terms if c % common == 0)
        low_terms = tuple((a, c) for a, c in rest.terms if c % common)
        low_part = Index(rest.const % common, low_terms)
        if 0 <= low_part.low and low_part.high < common:
            return [(common, Index(rest.const // common, high_terms), low_part)]
    return []


def _replace(atom: Atom, replace: Mapping[Atom, Index]) -> Index:
    if atom in replace:
        return replace[atom]
    match atom:
        case Div(operand, divisor):
            return operand.substitute(replace) // divisor
        case Mod(operand, divisor):
            return operand.substitute(replace) % divisor
        case _:
            return Index(0, ((atom, 1),))


def render(index: Index, name: Callable[[Var | Opaque], str], suffix: str = "") -> str:
    """Write the expression as text; integer literals get `suffix` (`u` in WGSL)."""
    positive: list[str] = []
    negative: list[str] = []
    for atom, c in index.terms:
        text = _render_atom(atom, name, suffix)
        part = text if abs(c) == 1 else f"{text} * {abs(c)}{suffix}"
        (positive if c > 0 else negative).append(part)
    if index.const > 0:
        positive.append(f"{index.const}{suffix}")
    elif index.const < 0:
        negative.append(f"{-index.const}{suffix}")
    if not positive:
        positive.append(f"0{suffix}")
    return " - ".join([" + ".join(positive), *negative])


def _render_atom(atom: Atom, name: Callable[[Var | Opaque], str], suffix: str) -> str:
    match atom:
        case Div(operand, divisor):
            return f"{_bracket(operand, name, suffix)} / {divisor}{suffix}"
        case Mod(operand, divisor):
            return f"{_bracket(operand, name, suffix)} % {divisor}{suffix}"
        case _:
            return name(atom)


def _bracket(operand: Index, name: Callable[[Var | Opaque], str], suffix: str) -> str:
    text = render(operand, name, suffix)
    is_plain = operand.const == 0 and len(operand.terms) == 1 and operand.terms[0][1] == 1
    if is_plain and isinstance(operand.terms[0][0], (Var, Opaque)):
        return text
    return f"({text})"
