"""`Job`: what every step of one quickstart shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from latlas.quickstart.clock import StepClock
from latlas.quickstart.settings import QuickstartSettings
from latlas_ops.space import SearchSpace

_STREAMS = ("labelled subnets", "evolution", "random search", "random subnets beside the fronts")


@dataclass(frozen=True)
class Job:
    """One quickstart.

    Attributes:
        folder: where everything is kept.
        settings: how much is done.
        space: what is profiled and searched.
        core: the core that networks are measured on.
        clock: counts the time of the steps.
        stream: where progress and results are told.
    """

    folder: Path
    settings: QuickstartSettings
    space: SearchSpace
    core: int
    clock: StepClock
    stream: TextIO

    def rng(self, purpose: str) -> np.random.Generator:
        """The random numbers of one purpose, the same in every run; see `_STREAMS`."""
        return np.random.default_rng([self.settings.seed, _STREAMS.index(purpose)])

    def say(self, text: str) -> None:
        """Tells the user something, at once."""
        self.stream.write(text)
        self.stream.flush()
