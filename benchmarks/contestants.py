"""The parent's side: contestants as child processes, and what else the processors were doing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

try:
    import psutil
except ImportError:
    sys.exit("psutil is missing: `make bench` makes an environment that has all that is needed")

Facts = dict[str, Any]
HERE = Path(__file__).resolve().parent
PATIENCE = 1800.0  # seconds; a whole training step may compile for minutes


class ContestError(Exception):
    """A contestant can't take part, or failed."""


@dataclass
class Contestant:
    """A process that was started from `<name>_side.py`. Close it at the end."""

    name: str
    needs: tuple[str, ...] = ()  # modules
    folder: Path | None = field(default=None, repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def start(self, folder: Path, environment: Mapping[str, str]) -> Facts:
        """Start it, with caches of its own that begin empty; return its description.

        Raises:
            ContestError: what it needs is not installed, or it does not start.
        """
        missing = [name for name in self.needs if find_spec(name) is None]
        if missing:
            raise ContestError(f"not installed: {', '.join(missing)}; `make bench` installs it")
        self.launch(folder, environment)
        return self.ask({"do": "describe"})

    def launch(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Start its process, whose caches lie in `folder`; one that was there before has left them
        as they are."""
        self.folder, self.environment = folder / self.name, environment
        self.folder.mkdir(exist_ok=True)
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / f"{self.name}_side.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**environment, "XDG_CACHE_HOME": str(self.folder / "cache")},
                text=True,
            )

    @property
    def _log(self) -> Path:
        assert self.folder is not None
        return self.folder / "log.txt"

    def ask(self, request: Facts) -> Facts:
        """Return the answer to a request.

        Raises:
            ContestError: it failed, or it is gone.
        """
        process = self.process
        if process is None or process.stdin is None or process.stdout is None:
            raise ContestError("it is not running")
        alarm = threading.Timer(PATIENCE, process.kill)
        alarm.start()
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            alarm.cancel()
        if not line:
            raise ContestError(f"it died (exit status {process.wait()}): {self._last_words()}")
        answer: Facts = json.loads(line)
        if "failure" in answer:
            raise ContestError(str(answer["failure"]))
        return answer

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:]) or "without a word"

    def close(self) -> None:
        """Let it end."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.process = None


def child_environment(on_gpu: bool) -> dict[str, str]:
    """Return the environment that all contestants share; by default only software Vulkan."""
    environment = dict(os.environ)
    environment.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    if not on_gpu:
        environment["VK_LOADER_DRIVERS_SELECT"] = "*lvp*"
    return environment


class Bystanders:
    """Measures the share of the processors that other programs took, in a `with` block."""

    def __init__(self) -> None:
        self.share = 0.0

    def __enter__(self) -> Bystanders:
        self._begin = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        clock, busy, own = (
            after - before for before, after in zip(self._begin, self._read(), strict=True)
        )
        self.share = max(0.0, busy - own) / (clock * (os.cpu_count() or 1))

    def _read(self) -> tuple[float, float, float]:
        whole = psutil.cpu_times()
        idle = whole.idle + getattr(whole, "iowait", 0.0)
        this = psutil.Process()
        own = 0.0
        for process in (this, *this.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            own += times.user + times.system
        # Time that the host gives to other guests counts as busy as well.
        return time.perf_counter(), sum(whole) - idle - guest_time(whole), own


def guest_time(times: Any) -> float:
    """Return what Linux counts twice: guests are part of user."""
    return float(getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0))
