"""Texts that are written when somebody reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping


class LazyTexts(Mapping[str, str]):
    """A mapping whose values are made at the first look, each once.

    Graphs are stored with an artefact as texts, which name large constants by a hash of their
    contents; a program that only runs needs neither.
    """

    def __init__(self, makers: Mapping[str, Callable[[], str]]) -> None:
        self._makers = dict(makers)
        self._made: dict[str, str] = {}

    def __getitem__(self, key: str) -> str:
        if key not in self._made:
            self._made[key] = self._makers[key]()
            self._makers[key] = self._made[key].__str__  # lets go of what it was made of
        return self._made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __contains__(self, key: object) -> bool:
        return key in self._makers

    def __len__(self) -> int:
        return len(self._makers)

    def __repr__(self) -> str:
        return repr(dict(self))
