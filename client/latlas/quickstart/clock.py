"""How long each step took, over all runs that worked on it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from latlas.files import read_file, write_atomically
from latlas_ops.errors import InvalidInputError

_SAVE_S = 2.0


class StepClock:
    """Wall seconds per step, kept in a file.

    A step that was interrupted goes on counting where it stopped; one that was finished counts no
    more, however often a later run walks through it.

    Args:
        path: a JSON file; made during the first step.
        clock_s: monotonic seconds.

    Raises:
        InvalidInputError: the file is there and holds something else.
    """

    def __init__(self, path: Path, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock_s = clock_s
        self._seconds: dict[str, float] = {}
        self._finished: list[str] = []
        self._running: str | None = None
        self._counted_to_s = 0.0
        self._saved_s = 0.0
        if path.exists():
            try:
                record = json.loads(read_file(path))
                self._seconds, self._finished = dict(record["seconds"]), list(record["finished"])
            except (ValueError, KeyError, TypeError) as error:
                raise InvalidInputError(
                    f"{path} does not hold the seconds of each step ({error!r}); remove it to go "
                    "on without them"
                ) from error

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Counts the time spent inside, unless the step was finished before."""
        if name in self._finished:
            yield
            return
        self._running = name
        self._counted_to_s = self._saved_s = self._clock_s()
        try:
            yield
            self._finished.append(name)
        finally:
            self._count()
            self._save()
            self._running = None

    def tick(self) -> None:
        """Says that the running step goes on, so that its time is kept if it is killed."""
        if self._running is not None and self._clock_s() >= self._saved_s + _SAVE_S:
            self._count()
            self._save()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by step, in the order in which the steps were begun."""
        return dict(self._seconds)

    def _count(self) -> None:
        assert self._running is not None
        now_s = self._clock_s()
        self._seconds.setdefault(self._running, 0.0)
        self._seconds[self._running] += now_s - self._counted_to_s
        self._counted_to_s = now_s

    def _save(self) -> None:
        record = {"seconds": self._seconds, "finished": self._finished}
        write_atomically(self._path, (json.dumps(record, indent=1) + "\n").encode())
        self._saved_s = self._clock_s()
