"""How long each step took, over all runs that worked on it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from latlas.files import write_atomically


class StepClock:
    """Wall seconds per step, kept in a file.

    A step that was interrupted goes on counting where it stopped; one that was finished counts no
    more, however often a later run walks through it.

    Args:
        path: a JSON file; made at the end of the first step.
        clock_s: monotonic seconds.
    """

    def __init__(self, path: Path, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock_s = clock_s
        self._seconds: dict[str, float] = {}
        self._finished: list[str] = []
        if path.exists():
            record = json.loads(path.read_text())
            self._seconds, self._finished = record["seconds"], record["finished"]

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Counts the time spent inside, unless the step was finished before."""
        started_s = self._clock_s()
        finished = False
        try:
            yield
            finished = True
        finally:
            if name not in self._finished:
                spent_s = self._clock_s() - started_s
                self._seconds[name] = self._seconds.get(name, 0.0) + spent_s
                if finished:
                    self._finished.append(name)
                record = {"seconds": self._seconds, "finished": self._finished}
                write_atomically(self._path, json.dumps(record, indent=1).encode())

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by step, in the order in which the steps were begun."""
        return dict(self._seconds)
