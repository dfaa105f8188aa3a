"""Progressive shrinking: it learns, and an interruption leaves no trace."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from latlas_nas.checkpoint import load_supernet
from latlas_nas.data.images import ImageData, ImageSet
from latlas_nas.schedule import Schedule
from latlas_nas.supernet import Supernet
from latlas_nas.training import TrainingProgress, train_supernet
from latlas_ops.errors import ConflictError, StorageError
from latlas_ops.spaces.mobile import MobileSpace


class Interrupted(Exception):
    pass


def stop_after(step: int) -> object:
    def on_progress(progress: TrainingProgress) -> None:
        if progress.step == step:
            raise Interrupted

    return on_progress


@pytest.fixture(scope="module")
def uninterrupted(
    tiny_space: MobileSpace,
    tiny_data: ImageData,
    tiny_schedule: Schedule,
    tmp_path_factory: pytest.TempPathFactory,
) -> Supernet:
    folder = tmp_path_factory.mktemp("whole")
    return train_supernet(tiny_space, tiny_data, tiny_schedule, folder, 0)


# In the first phase, just after its last step, and in the second phase.
@pytest.mark.parametrize("step", [7, 12, 19])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tiny_space: MobileSpace,
    tiny_data: ImageData,
    tiny_schedule: Schedule,
    uninterrupted: Supernet,
    tmp_path: Path,
    step: int,
) -> None:
    run = (tiny_space, tiny_data, tiny_schedule, tmp_path, 0)
    with pytest.raises(Interrupted):
        train_supernet(*run, on_progress=stop_after(step))
    steps: list[int] = []
    resumed = train_supernet(*run, on_progress=lambda progress: steps.append(progress.step))
    assert 1 < steps[0] <= step + 1
    assert steps[-1] == tiny_schedule.total_steps
    assert resumed.digest() == uninterrupted.digest()


def test_the_result_does_not_depend_on_the_number_of_workers(
    tiny_space: MobileSpace,
    tiny_data: ImageData,
    tiny_schedule: Schedule,
    uninterrupted: Supernet,
    tmp_path: Path,
) -> None:
    alone = train_supernet(tiny_space, tiny_data, tiny_schedule, tmp_path, 0, workers=1)
    assert alone.digest() == uninterrupted.digest()


def test_another_seed_gives_another_supernet_and_no_global_generator_is_touched(
    tiny_space: MobileSpace,
    tiny_data: ImageData,
    tiny_schedule: Schedule,
    uninterrupted: Supernet,
    tmp_path: Path,
) -> None:
    before = torch.get_rng_state()
    other = train_supernet(tiny_space, tiny_data, tiny_schedule, tmp_path, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert other.digest() != uninterrupted.digest()


def test_a_finished_run_is_returned_without_another_step(
    tiny_space: MobileSpace,
    tiny_data: ImageData,
    tiny_schedule: Schedule,
    uninterrupted: Supernet,
    tmp_path: Path,
) -> None:
    run = (tiny_space, tiny_data, tiny_schedule, tmp_path, 0)
    train_supernet(*run)
    again = train_supernet(*run, on_progress=stop_after(1))
    assert again.digest() == uninterrupted.digest()
    assert load_supernet(tmp_path, tiny_space).digest() == uninterrupted.digest()


def test_training_lowers_the_loss_with_and_without_distillation(
    tiny_space: MobileSpace, tiny_data: ImageData, tiny_schedule: Schedule, tmp_path: Path
) -> None:
    full, shrink = tiny_schedule.phases
    longer = dataclasses.replace(
        tiny_schedule,
        phases=(
            dataclasses.replace(full, steps=90, learning_rate=0.02),
            dataclasses.replace(shrink, steps=90, learning_rate=0.02),
        ),
    )
    losses: dict[str, list[float]] = {"full": [], "shrink": []}
    train_supernet(
        tiny_space,
        tiny_data,
        longer,
        tmp_path,
        0,
        on_progress=lambda progress: losses[progress.phase].append(progress.loss),
    )
    for values in losses.values():
        assert sum(values[-8:]) < 0.95 * sum(values[:8])


@pytest.mark.parametrize(
    ("change", "field"),
    [("seed", "seed"), ("schedule", "schedule"), ("data", "data")],
)
def test_a_folder_of_another_run_is_refused(
    tiny_space: MobileSpace,
    tiny_data: ImageData,
    tiny_schedule: Schedule,
    tmp_path: Path,
    change: str,
    field: str,
) -> None:
    with pytest.raises(Interrupted):
        train_supernet(tiny_space, tiny_data, tiny_schedule, tmp_path, 0, on_progress=stop_after(6))
    other_images = ImageSet(tiny_data.train.images.flip(-1), tiny_data.train.labels)
    data = dataclasses.replace(tiny_data, train=other_images) if change == "data" else tiny_data
    schedule = tiny_schedule
    if change == "schedule":
        schedule = dataclasses.replace(schedule, weight_decay=0.5)
    seed = 1 if change == "seed" else 0
    with pytest.raises(ConflictError, match=f"another {field} .*use another folder"):
        train_supernet(tiny_space, data, schedule, tmp_path, seed)


def test_a_damaged_checkpoint_is_named(
    tiny_space: MobileSpace, tiny_data: ImageData, tiny_schedule: Schedule, tmp_path: Path
) -> None:
    (tmp_path / "checkpoint.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(StorageError, match=r"cannot read .*checkpoint\.safetensors"):
        train_supernet(tiny_space, tiny_data, tiny_schedule, tmp_path, 0)


CHILD = """
import os, signal, sys
from pathlib import Path
import torch
from latlas_nas.data.images import ImageData, ImageSet
from latlas_nas.schedule import Phase, Schedule
from latlas_nas.training import train_supernet
from latlas_ops.spaces.mobile import MobileSpace, Stage

space = MobileSpace(
    name="child", version=1, in_channels=1, classes=2, resolutions=(16,), stem_channels=8,
    stem_stride=2, stages=(Stage(8, 2),), depths=(1, 2), kernels=(3, 5), expansions=(2,),
    head_channels=16,
)
pixels = torch.randint(256, (64, 1, 16, 16), generator=torch.Generator().manual_seed(0))
images = ImageSet(pixels.to(torch.uint8), torch.arange(64) % 2)
data = ImageData("noise", images, images, images)
schedule = Schedule(
    (Phase("full", 8, 0.01, {}, distill=False), Phase("kernel", 8, 0.01, {"kernel": 2})),
    batch_size=8, warm_up_steps=2, checkpoint_steps=3,
)

def kill(progress):
    if progress.step == 10:
        os.kill(os.getpid(), signal.SIGKILL)

killed, whole = map(Path, sys.argv[1:3])
if not killed.exists():
    train_supernet(space, data, schedule, killed, 5, on_progress=kill)
resumed_at = []
resumed = train_supernet(
    space, data, schedule, killed, 5, on_progress=lambda progress: resumed_at.append(progress.step)
)
print(resumed_at[0], resumed.digest(), train_supernet(space, data, schedule, whole, 5).digest())
"""


def test_a_process_killed_with_sigkill_resumes_exactly(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, tmp_path / "killed", tmp_path / "whole"]
    first = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert first.returncode == -signal.SIGKILL, first.stderr
    second = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert second.returncode == 0, second.stderr
    resumed_at, resumed, whole = second.stdout.split()
    assert resumed_at == "9"  # the last checkpoint was made between the phases, after step 8
    assert resumed == whole
