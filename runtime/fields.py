"""Fields of a JSON document that knows where in the document it is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from asg.errors import BundleError

_TEXT = 4096


class Field:
    """A value in a document; its `error` names the place: `entries.train.steps[3]`."""

    def __init__(self, value: Any, file: str, path: str = "") -> None:
        self._value = value
        self._file = file
        self._path = path

    def error(self, message: str) -> BundleError:
        """Return the error for a value that is not what it should be."""
        where = f"{self._path}: " if self._path else ""
        return BundleError(f"{self._file}: {where}{message}")

    def __getitem__(self, key: str) -> Field:
        mapping = self.mapping()
        path = f"{self._path}.{key}" if self._path else key
        if key not in mapping:
            raise BundleError(f"{self._file}: {path} is missing")
        return Field(mapping[key], self._file, path)

    def _fail(self, expected: str) -> NoReturn:
        raise self.error(f"expected {expected}, got {_short(self._value)}")

    def mapping(self) -> dict[str, Any]:
        """Return an object as it is."""
        if not isinstance(self._value, dict):
            self._fail("an object")
        return self._value

    def entries(self, most: int) -> list[tuple[str, Field]]:
        """Return the fields of an object that has at most so many."""
        mapping = self.mapping()
        if len(mapping) > most:
            raise self.error(f"has {len(mapping)} entries; at most {most} are allowed")
        for key in mapping:
            if len(key) > _TEXT:
                raise self.error(f"a name of {len(key)} characters is too long")
        return [(key, self[key]) for key in mapping]

    def items(self, most: int) -> list[Field]:
        """Return the items of an array that has at most so many."""
        if not isinstance(self._value, list):
            self._fail("an array")
        if len(self._value) > most:
            raise self.error(f"has {len(self._value)} items; at most {most} are allowed")
        return [
            Field(each, self._file, f"{self._path}[{position}]")
            for position, each in enumerate(self._value)
        ]

    def text(self) -> str:
        """Return a string of reasonable length."""
        if not isinstance(self._value, str) or len(self._value) > _TEXT:
            self._fail(f"a string of at most {_TEXT} characters")
        return self._value

    def texts(self, most: int) -> tuple[str, ...]:
        """Return an array of strings."""
        return tuple(each.text() for each in self.items(most))

    def integer(self, least: int, most: int) -> int:
        """Return an integer in a range."""
        value = self._value
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            self._fail(f"an integer from {least} to {most}")
        return int(value)

    def choice(self, known: Sequence[str]) -> str:
        """Return one of some words."""
        if self._value not in list(known):
            self._fail(f"one of {', '.join(known)}")
        return str(self._value)

    def only(self, *known: str) -> None:
        """Refuse an object with other fields than these."""
        for key in self.mapping():
            if key not in known:
                raise self.error(f"unknown field {key!r}")


def parse_json(data: bytes, file: str) -> Field:
    """Read a document, refusing what JSON libraries disagree about.

    Raises:
        BundleError: it is not JSON, nested too deep, or names a field twice.
    """
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError:
        raise BundleError(f"{file}: nested too deep") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise BundleError(f"{file}: not valid JSON: {error}") from None
    return Field(value, file)


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"field {key!r} is there twice")
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
