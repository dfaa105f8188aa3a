"""Progressive shrinking as data: phases that open one kind of choice after another.

Once-for-All, section 3.3: the largest network first, then kernel size, depth and width, smaller
choices joining the larger ones; input resolution varies from batch to batch throughout.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from latlas_ops.errors import InvalidInputError
from latlas_ops.space import ArchBatch, ArchConfig, SearchSpace

ALL = 10**6
"""As a number of open choices: every one."""


@dataclass(frozen=True)
class Phase:
    """A stretch of training with its own learning-rate curve.

    Attributes:
        name: for people and logs.
        steps: optimizer steps.
        learning_rate: peak; it falls along a half cosine after a short linear rise.
        open_choices: by family of genes (`resolution`, `kernel`, `depth`, `expansion`, `width`)
            how many of the last choices are sampled. Families not named stay at the last choice.
        subnets_per_step: subnets whose gradients are averaged, each on a batch of its own.
        sort_channels: put channels in order of importance before the phase begins.
        distill: learn from the largest subnet as it was after the first phase.
    """

    name: str
    steps: int
    learning_rate: float
    open_choices: Mapping[str, int]
    subnets_per_step: int = 2
    sort_channels: bool = False
    distill: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.subnets_per_step < 1:
            raise InvalidInputError(f"phase {self.name!r} needs at least one step and one subnet")


@dataclass(frozen=True)
class Schedule:
    """All phases of a training run and what they share.

    Attributes:
        phases: in order; the weights pass from one to the next, the optimizer starts afresh.
        batch_size: images per subnet and step.
        warm_up_steps: of the linear rise at the start of every phase.
        betas: decay rates of AdamW's two moments.
        weight_decay: of AdamW, on weights; biases, batch norms and transforms are spared.
        label_smoothing: of the cross entropy with the true labels.
        distillation: weight of the cross entropy with the teacher's probabilities.
        checkpoint_steps: steps between checkpoints.
    """

    phases: tuple[Phase, ...]
    batch_size: int = 32
    warm_up_steps: int = 10
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.02
    label_smoothing: float = 0.0
    distillation: float = 1.0
    checkpoint_steps: int = 20

    def __post_init__(self) -> None:
        if not self.phases:
            raise InvalidInputError("a schedule needs at least one phase")
        if self.phases[0].distill:
            raise InvalidInputError("the first phase makes the teacher, so it cannot distil")

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    def learning_rate(self, phase: Phase, step: int) -> float:
        """The learning rate of one step: linear rise, then half a cosine."""
        rise = min(1.0, (step + 1) / self.warm_up_steps) if self.warm_up_steps else 1.0
        return phase.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * step / phase.steps))


def sample_arch(space: SearchSpace, phase: Phase, rng: np.random.Generator) -> ArchConfig:
    """One architecture of those that a phase trains, every open choice equally likely."""
    row = []
    for gene in space.genes:
        size = len(gene.choices)
        row.append(int(rng.integers(max(0, size - phase.open_choices.get(gene.family, 1)), size)))
    return space.archs(ArchBatch(space, space.canonical(np.array([row]))))[0]


def quickstart_schedule(quick: bool = False) -> Schedule:
    """The schedule for the space `digits`: two to three minutes on two cores.

    Batches are small because the number of steps counts most in so short a training.

    Args:
        quick: a few steps of every phase, for trying out the machinery; accuracy suffers.
    """
    kernel = {"resolution": ALL, "kernel": ALL}
    depth = {**kernel, "depth": ALL}
    width = {**depth, "expansion": ALL}
    full_steps, kernel_steps, depth_steps, width_steps = (
        (8, 3, 3, 6) if quick else (200, 50, 60, 260)
    )
    return Schedule(
        (
            Phase("full", full_steps, 6e-3, {"resolution": ALL}, distill=False),
            Phase("kernel", kernel_steps, 3e-3, kernel),
            Phase("depth", depth_steps, 3e-3, depth),
            Phase("width", width_steps, 3e-3, width, sort_channels=True),
        ),
        batch_size=16,
        warm_up_steps=4 if quick else 30,
        checkpoint_steps=40,
    )
