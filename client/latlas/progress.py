"""Progress for people: a bar on a terminal, a few plain lines anywhere else."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

_BAR_CELLS = 24
_REDRAW_S = 0.1
_LINE_SHARE = 0.1
_LINE_S = 10.0


def format_seconds(seconds: float) -> str:
    """A duration for people: `8 s`, `2 min 05 s`, `1 h 04 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Progress:
    """Shows how far something is; a context manager.

    On a terminal one line is redrawn at most ten times a second. Elsewhere (a file, a log of a
    continuous integration) a line is printed after every tenth of the work or after ten seconds.

    Args:
        label: what is going on, for example `measuring`.
        total: units of work, at least 0.
        stream: where to write.
        done: units that were done before, for work that is resumed; they do not count towards
            the rate. None if the first update tells.
        unit: what is counted, for the rate; empty shows none.
        clock_s: monotonic seconds.
    """

    def __init__(
        self,
        label: str,
        *,
        total: int,
        stream: TextIO,
        done: int | None = 0,
        unit: str = "",
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = label
        self._total = total
        self._stream = stream
        self._first = done
        self._done = done or 0
        self._unit = unit
        self._note = ""
        self._clock_s = clock_s
        self._started_s = clock_s()
        self._shown_s = -math.inf
        self._shown_share = -math.inf
        self._shown_state: tuple[int, int, str] | None = None
        self._on_terminal = stream.isatty()

    def __enter__(self) -> Progress:
        if self._first is not None:
            self._show(force=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._show(force=True)
        if self._on_terminal:
            self._write("\n")

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """Says how far it is.

        Args:
            done: units done in all, not since the last call.
            note: a few words on what is happening, shown behind the figures.
            total: a new total, where it turned out to be another.
        """
        if self._first is None:
            self._first = done
        self._done, self._note = done, note
        if total is not None:
            self._total = total
        self._show(force=False)

    @property
    def _share(self) -> float:
        return min(1.0, self._done / self._total) if self._total > 0 else 1.0

    def _show(self, *, force: bool) -> None:
        now_s = self._clock_s()
        since_s = now_s - self._shown_s
        if self._on_terminal:
            due = since_s >= _REDRAW_S
        else:
            due = since_s >= _LINE_S or self._share >= self._shown_share + _LINE_SHARE - 1e-9
        state = (self._done, self._total, self._note)
        if state == self._shown_state or not (due or force):
            return
        text = self._text(now_s)
        if self._on_terminal:
            columns = shutil.get_terminal_size().columns
            self._write("\r\x1b[K" + text[: max(1, columns - 1)])
        else:
            self._write(text + "\n")
        self._shown_s, self._shown_share, self._shown_state = now_s, self._share, state

    def _text(self, now_s: float) -> str:
        parts = [f"{self._label} "]
        if self._on_terminal:
            filled = int(self._share * _BAR_CELLS)
            parts.append(f"[{'#' * filled}{'.' * (_BAR_CELLS - filled)}] ")
        parts.append(f"{self._done}/{self._total} ({self._share:.0%})")
        elapsed_s = now_s - self._started_s
        progressed = self._done - (self._first or 0)
        if progressed > 0 and elapsed_s > 0:
            rate = progressed / elapsed_s
            if self._unit:
                parts.append(f", {rate:.3g} {self._unit}/s")
            if self._done < self._total:
                parts.append(f", {format_seconds((self._total - self._done) / rate)} left")
        if self._done >= self._total:
            parts.append(f", took {format_seconds(elapsed_s)}")
        if self._note:
            parts.append(f", {self._note}")
        return "".join(parts)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
