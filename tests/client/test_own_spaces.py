"""A researcher's own network: a space out of it, planned, predicted and written like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import latlas
from latlas.cli.main import main
from latlas_coordinator.covering import cover_networks
from latlas_coordinator.domain import ProfilePlan
from latlas_coordinator.planning import plan_profile
from latlas_ops import spaces
from latlas_ops.counting import SpaceCount
from latlas_ops.variation import crossover, mutate
from latlas_ops.writers.onnx_writer import write_onnx


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.candidates = nn.ModuleDict(
            {
                "skip": nn.Identity(),
                "k3": nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()),
                "k5": nn.Sequential(nn.Conv2d(channels, channels, 5, padding=2), nn.ReLU()),
            }
        )


@pytest.fixture(scope="module")
def space() -> latlas.Space:
    net = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), Block(8), Block(8), nn.Conv2d(8, 16, 3, 2, 1)),
        *(Block(16), Block(16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)),
    )
    return latlas.Space.from_supernet(net, torch.zeros(1, 3, 16, 16), name="mine")


def test_it_counts_and_describes_its_architectures(space: latlas.Space) -> None:
    assert space.count() == SpaceCount(81, 81, 81)
    (_, largest) = space.archs(space.extremes())
    assert space.describe(largest) == "block k5 k5 k5 k5"
    assert space.arch_from_json(largest.to_json()) == largest


def test_few_cover_networks_hold_every_op(space: latlas.Space) -> None:
    covers = cover_networks(space, 1, np.random.default_rng(0))
    found = {op for arch in space.archs(covers) for op in space.ops(arch)}
    assert found == set(space.slot_entries.ops)
    assert len(covers) == 1  # an op is one entry in all its places


def test_a_profile_of_it_can_be_planned(space: latlas.Space) -> None:
    plan = ProfilePlan("mine", 4, 4, 4, min_occurrences=1, seed=0)
    networks = plan_profile(space, plan)
    assert {one.role.value for one in networks} >= {"cover", "calibration", "validation"}


def test_populations_vary_within_it(space: latlas.Space) -> None:
    rng = np.random.default_rng(0)
    left, right = space.sample(20, rng), space.sample(20, rng)
    child = mutate(crossover(left, right, rng), 0.5, rng)
    assert space.entry_indices(child).shape == (20, len(space.slots))


def test_its_networks_are_written_with_every_node_belonging_to_its_op(space: latlas.Space) -> None:
    (arch,) = space.archs(space.sample(1, np.random.default_rng(3)))
    network = space.network(arch)
    program = write_onnx(network)
    assert set(program.tensor_positions.values()) == set(range(len(network.ops)))


def test_the_command_line_knows_the_spaces_of_files(
    space: latlas.Space,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(spaces, "_own", {})
    (tmp_path / "mine.json").write_text(space.to_json())
    assert main(["space", "count", "mine"]) == 2
    assert "no search space 'mine'" in capsys.readouterr().err
    monkeypatch.setenv("LATLAS_SPACES", str(tmp_path / "mine.json"))
    assert main(["space", "count", "mine"]) == 0
    assert "81" in capsys.readouterr().out
    assert main(["space", "list"]) == 0
    assert "mine" in capsys.readouterr().out
    monkeypatch.setenv("LATLAS_SPACES", str(tmp_path / "other.json"))
    assert main(["space", "list"]) == 2
    assert "there is no file" in capsys.readouterr().err
