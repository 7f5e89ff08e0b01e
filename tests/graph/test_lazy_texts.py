"""Texts that are written when somebody reads them."""

from __future__ import annotations

from asg.lazy_texts import LazyTexts


def test_lazy_texts() -> None:
    asked: list[str] = []

    def text(name: str) -> str:
        asked.append(name)
        return name * 2

    texts = LazyTexts({"a": lambda: text("a"), "b": lambda: text("b")})
    assert (list(texts), len(texts), "a" in texts, "c" in texts) == (["a", "b"], 2, True, False)
    assert asked == []
    assert texts["b"] == texts["b"] == "bb"
    assert texts == {"a": "aa", "b": "bb"}
    assert {"a": "aa", "b": "bb"} == texts
    assert sorted(asked) == ["a", "b"]
    assert repr(texts) == "{'a': 'aa', 'b': 'bb'}"
