"""Training a supernet by progressive shrinking, resumable at every checkpoint.

The result is a function of space, images, schedule and seed alone: what is random in a step is
drawn from generators made of the seed and the step's number, and every subnet's gradient is
computed on one thread. A run that was killed therefore continues exactly as if it had not been.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from latlas_nas.checkpoint import (
    SUPERNET_FILE,
    load_weights,
    read_tensors,
    save_supernet,
    write_tensors,
)
from latlas_nas.data.images import ImageData, ImageSet
from latlas_nas.importance import sort_channels
from latlas_nas.memory import keep_freed_memory
from latlas_nas.parallel import Pool, worker_pool
from latlas_nas.recalibration import recalibrate
from latlas_nas.schedule import Phase, Schedule, sample_arch
from latlas_nas.supernet import Supernet
from latlas_nas.walk import input_side
from latlas_ops.errors import ConflictError
from latlas_ops.space import ArchConfig, SearchSpace

CHECKPOINT_FILE = "checkpoint.safetensors"
TEACHER_FILE = "teacher.safetensors"
_CHECKPOINT_FORMAT = "latlas-supernet-training"
_TEACHER_FORMAT = "latlas-teacher"
_RECALIBRATION_IMAGES = 512
_TEACHER_BATCH = 32


@dataclass(frozen=True)
class TrainingProgress:
    """Where a run stands after a step.

    Attributes:
        phase: name of the phase.
        phase_step: steps done in it.
        phase_steps: steps it has.
        step: steps done in all phases.
        total_steps: steps of the schedule.
        loss: mean loss of the step's subnets, distillation included.
    """

    phase: str
    phase_step: int
    phase_steps: int
    step: int
    total_steps: int
    loss: float


@dataclass(frozen=True)
class _Task:
    """One subnet's share of a step."""

    arch: ArchConfig
    indices: torch.Tensor


def train_supernet(
    space: SearchSpace,
    data: ImageData,
    schedule: Schedule,
    folder: Path,
    seed: int,
    *,
    on_progress: Callable[[TrainingProgress], None] = lambda progress: None,
    workers: int | None = None,
) -> Supernet:
    """Trains a supernet, or continues or returns the one whose training the folder holds.

    Args:
        space: the search space.
        data: only its training split is used.
        schedule: phases and settings.
        folder: for checkpoints and the finished `supernet.safetensors`; made if absent.
        seed: decides weights, batches and sampled subnets.
        on_progress: called after every step, in this thread.
        workers: cores to use, by default all; does not influence the result.

    Raises:
        ConflictError: the folder holds a run of another space, schedule, seed or data.
        StorageError: the folder cannot be read or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    with worker_pool(workers) as pool:
        run = _Run(space, data.train, schedule, folder, seed=seed, pool=pool)
        return run.finish(on_progress)


class _Run:
    """One training run: the supernet, its optimizer and how far they are."""

    def __init__(
        self,
        space: SearchSpace,
        images: ImageSet,
        schedule: Schedule,
        folder: Path,
        *,
        seed: int,
        pool: Pool,
    ) -> None:
        self._images, self._schedule, self._folder = images, schedule, folder
        self._seed, self._pool = seed, pool
        self._identity = {
            "space": space.name,
            "space_version": space.version,
            "schedule": hashlib.sha256(
                json.dumps(schedule.to_dict(), sort_keys=True).encode()
            ).hexdigest(),
            "seed": seed,
            "data": images.digest,
        }
        self._supernet = Supernet(space, torch.Generator().manual_seed(seed))
        self._parameters = list(self._supernet.parameters())
        self._optimizer = self._fresh_optimizer()
        self._phase, self._step = 0, 0
        self._teacher: torch.Tensor | None = None
        if (folder / CHECKPOINT_FILE).exists():
            self._restore()

    def finish(self, on_progress: Callable[[TrainingProgress], None]) -> Supernet:
        """Every step that is still missing; the finished supernet is written and returned."""
        phases = self._schedule.phases
        while True:
            phase = phases[self._phase]
            self._teacher = self._read_teacher() if phase.distill else None
            before = sum(earlier.steps for earlier in phases[: self._phase])
            while self._step < phase.steps:
                loss = self._train_step(phase)
                self._step += 1
                if self._step % self._schedule.checkpoint_steps == 0:
                    self._save()
                on_progress(
                    TrainingProgress(
                        phase.name,
                        self._step,
                        phase.steps,
                        before + self._step,
                        self._schedule.total_steps,
                        loss,
                    )
                )
            if self._phase + 1 == len(phases):
                break
            self._enter_next_phase()
        self._save()
        if not (self._folder / SUPERNET_FILE).exists():
            save_supernet(self._supernet, self._folder / SUPERNET_FILE)
        return self._supernet

    # -- one step --------------------------------------------------------------------------

    def _train_step(self, phase: Phase) -> float:
        tasks = self._tasks(phase)
        results = list(self._pool.map(self._gradients, tasks))
        for index, parameter in enumerate(self._parameters):
            parts = [part for _, gradients in results if (part := gradients[index]) is not None]
            parameter.grad = torch.stack(parts).sum(0).div_(len(tasks)) if parts else None
        rate = self._schedule.learning_rate(phase, self._step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        return sum(loss for loss, _ in results) / len(results)

    def _tasks(self, phase: Phase) -> list[_Task]:
        rng = np.random.default_rng([self._seed, self._phase, self._step])
        first = self._step * phase.subnets_per_step
        return [
            _Task(
                sample_arch(self._supernet.space, phase, rng),
                self._batch_indices(first + number),
            )
            for number in range(phase.subnets_per_step)
        ]

    def _batch_indices(self, number: int) -> torch.Tensor:
        """Indices of the phase's batch of that number; every epoch is a fresh permutation."""
        size = min(self._schedule.batch_size, len(self._images))
        epoch, batch = divmod(number, len(self._images) // size)
        order = np.random.default_rng([self._seed, self._phase, epoch, 1]).permutation(
            len(self._images)
        )
        return torch.from_numpy(order[batch * size : (batch + 1) * size])

    def _gradients(self, task: _Task) -> tuple[float, tuple[torch.Tensor | None, ...]]:
        """Loss and gradients of one subnet on its batch; runs in a worker."""
        space = self._supernet.space
        images = self._images.batch(task.indices, input_side(space, task.arch))
        logits = self._supernet(images, task.arch)
        labels = self._images.labels[task.indices]
        loss = F.cross_entropy(logits, labels, label_smoothing=self._schedule.label_smoothing)
        if self._teacher is not None:
            soft = self._teacher[task.indices]
            loss = loss + self._schedule.distillation * F.cross_entropy(logits, soft)
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        return float(loss.detach()), gradients

    # -- between phases --------------------------------------------------------------------

    def _enter_next_phase(self) -> None:
        """Teacher, channel order and optimizer of the next phase, then a checkpoint.

        All of it follows from the weights at the end of the last phase. A run that is killed here
        resumes from a checkpoint before this point and does the same again.
        """
        phases = self._schedule.phases
        if self._phase == 0 and any(phase.distill for phase in phases):
            self._write_teacher()
        self._phase, self._step = self._phase + 1, 0
        if phases[self._phase].sort_channels:
            sort_channels(self._supernet)
        self._optimizer = self._fresh_optimizer()
        self._save()

    def _write_teacher(self) -> None:
        """What the largest subnet says of every training image, at the largest resolution.

        The teacher and its images stay the same from here on, so its answers are computed once.
        """
        supernet, images = self._supernet, self._images
        side = input_side(supernet.space, supernet.largest)
        first = images.batch(slice(0, _RECALIBRATION_IMAGES), side)
        statistics = recalibrate(supernet, supernet.largest, first)

        @torch.no_grad()
        def answers(part: slice) -> torch.Tensor:
            some = images.batch(part, side)
            return supernet.forward(some, supernet.largest, statistics).softmax(1)

        starts = range(0, len(images), _TEACHER_BATCH)
        batches = [slice(start, start + _TEACHER_BATCH) for start in starts]
        probabilities = torch.cat(list(self._pool.map(answers, batches)))
        write_tensors(
            self._folder / TEACHER_FILE,
            _TEACHER_FORMAT,
            self._identity,
            {"probabilities": probabilities},
        )

    def _read_teacher(self) -> torch.Tensor:
        path = self._folder / TEACHER_FILE
        state, tensors = read_tensors(path, _TEACHER_FORMAT)
        self._require_same_run(state, path)
        return tensors["probabilities"]

    def _fresh_optimizer(self) -> torch.optim.AdamW:
        named = list(self._supernet.named_parameters())
        decayed = [parameter for name, parameter in named if name.endswith(".weight")]
        spared = [parameter for name, parameter in named if not name.endswith(".weight")]
        return torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": self._schedule.weight_decay},
                {"params": spared, "weight_decay": 0.0},
            ],
            betas=self._schedule.betas,
        )

    # -- checkpoints -----------------------------------------------------------------------

    def _save(self) -> None:
        tensors = {
            f"weights/{name}": tensor for name, tensor in self._supernet.state_dict().items()
        }
        for name, parameter in self._supernet.named_parameters():
            for key, value in self._optimizer.state[parameter].items():
                tensors[f"optimizer/{name}/{key}"] = value
        write_tensors(
            self._folder / CHECKPOINT_FILE,
            _CHECKPOINT_FORMAT,
            {**self._identity, "phase": self._phase, "step": self._step},
            tensors,
        )

    def _restore(self) -> None:
        path = self._folder / CHECKPOINT_FILE
        state, tensors = read_tensors(path, _CHECKPOINT_FORMAT)
        self._require_same_run(state, path)
        weights = {
            name.removeprefix("weights/"): tensor
            for name, tensor in tensors.items()
            if name.startswith("weights/")
        }
        load_weights(self._supernet, weights, path)
        for name, parameter in self._supernet.named_parameters():
            prefix = f"optimizer/{name}/"
            for key, value in tensors.items():
                if key.startswith(prefix):
                    self._optimizer.state[parameter][key.removeprefix(prefix)] = value
        self._phase, self._step = state["phase"], state["step"]

    def _require_same_run(self, state: Mapping[str, object], path: Path) -> None:
        for field, value in self._identity.items():
            if state.get(field) != value:
                raise ConflictError(
                    f"{path} belongs to a training run with another {field} "
                    f"({state.get(field)!r}, not {value!r}); use another folder"
                )
