"""What holds memory or threads until it is closed."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Closing:
    """Closes itself where a `with` ends."""

    def close(self) -> None:
        """Give back what is held."""
        raise NotImplementedError(f"{type(self).__name__}.close")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
