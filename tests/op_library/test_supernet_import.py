"""Spaces out of torch networks in which choices are marked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from latlas_ops import Network, OpSpec, PlacedOps, Space, import_module
from latlas_ops.costs import network_cost, space_costs
from latlas_ops.errors import InvalidInputError, UnsupportedModuleError
from latlas_ops.lowering import lower
from latlas_ops.network import NETWORK_INPUT
from latlas_ops.space import Gene


class Choice(nn.Module):
    """Marks a choice by its attribute `candidates`; its forward is not run."""

    def __init__(self, *candidates: nn.Module, **named: nn.Module) -> None:
        super().__init__()
        self.candidates = nn.ModuleDict(named) if named else nn.ModuleList(candidates)

    def forward(self, *tensors: Tensor) -> Tensor:
        raise RuntimeError("a choice is not run")


def conv(in_channels: int, channels: int, kernel: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


class Supernet(nn.Module):
    """Two choices in a row, with a shortcut around both."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8, 3, 2)
        self.layers = nn.Sequential(
            Choice(skip=nn.Identity(), k3=conv(8, 8, 3), k5=conv(8, 8, 5)),
            Choice(conv(8, 16, 3, 2), conv(8, 16, 5, 2)),
        )
        self.shortcut, self.head = nn.Conv2d(8, 16, 1, 2), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.layers(x) + self.shortcut(x)
        return self.head(y.mean((2, 3)))


@pytest.fixture(scope="module")
def space() -> Space:
    torch.manual_seed(0)
    return Space.from_supernet(Supernet(), (1, 3, 16, 16), name="mine", version=2)


def test_every_choice_is_a_gene_and_what_stands_between_is_fixed(space: Space) -> None:
    assert (space.name, space.version) == ("mine", 2)
    assert [gene.name for gene in space.genes] == ["layers.0.block", "layers.1.block"]
    assert space.genes[0].labels == ("skip", "k3", "k5")
    assert space.genes[1].labels == ("0_Sequential", "1_Sequential")
    assert [slot.name for slot in space.slots] == ["fixed0", "layers.0", "layers.1", "fixed3"]
    assert [slot.sources for slot in space.placed] == [(NETWORK_INPUT,), (0,), (1,), (0, 2)]
    assert space.count().flat == 6


def test_candidates_are_the_modules_on_the_shapes_that_reach_them(space: Space) -> None:
    skip, k3, k5 = space.placed[1].ops
    assert skip is None
    assert k3 == import_module(conv(8, 8, 3), (1, 8, 8, 8)).op
    assert k5 == import_module(conv(8, 8, 5), (1, 8, 8, 8)).op
    assert space.placed[2].ops[0] == import_module(conv(8, 16, 3, 2), (1, 8, 8, 8)).op


def test_architectures_are_the_networks_that_the_supernet_becomes(space: Space) -> None:
    class Derived(Supernet):
        def __init__(self, first: str, second: int) -> None:
            super().__init__()
            chosen = [self.layers[0].candidates[first], self.layers[1].candidates[second]]
            self.layers = nn.Sequential(*chosen)

    for arch in space.archs(space.extremes()):
        network = space.network(arch)
        label = space.genes[0].label(arch.genes[0])
        whole = import_module(Derived(label, arch.genes[1]), (1, 3, 16, 16)).network
        shapes = [
            sorted((node.primitive, node.shape, tuple(node.attributes.items())) for node in nodes)
            for nodes in (lower(network).nodes, lower(whole).nodes)
        ]
        assert shapes[0] == shapes[1]
        assert network_cost(network).macs == network_cost(whole).macs


def test_costs_are_gathered_from_its_ops(space: Space) -> None:
    batch = space.sample(8, np.random.default_rng(0))
    expected = [network_cost(space.network(arch)).macs for arch in space.archs(batch)]
    assert space_costs(batch).macs.tolist() == expected


def test_the_network_is_left_as_it_was() -> None:
    net = Supernet().train()
    Space.from_supernet(net, torch.zeros(2, 3, 16, 16))
    assert all(part.training for part in net.modules())
    assert not any("forward" in vars(part) for part in net.modules())
    with pytest.raises(RuntimeError, match="a choice is not run"):
        net(torch.zeros(1, 3, 16, 16))


def test_a_choice_that_is_used_twice_is_one_gene() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.choice = Choice(nn.Identity(), conv(3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.choice(torch.relu(self.choice(x))))

    space = Space.from_supernet(Twice(), (1, 3, 8, 8))
    assert len(space.genes) == 1
    assert [slot.genes for slot in space.slots] == [(0,), (), (0,), ()]
    assert [len(space.network(arch).ops) for arch in space.archs(space.extremes())] == [2, 4]


def test_a_choice_may_join_several_tensors() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    class Product(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x * y

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.join = conv(3, 3, 3), Choice(Sum(), Product())

        def forward(self, x: Tensor) -> Tensor:
            return self.join(self.one(x), x)

    space = Space.from_supernet(Joined(), (1, 3, 8, 8))
    assert [slot.sources for slot in space.placed] == [(NETWORK_INPUT,), (0, NETWORK_INPUT)]


class Chosen(nn.Module):
    def __init__(self, *candidates: nn.Module) -> None:
        super().__init__()
        self.stem, self.choice = nn.Conv2d(3, 4, 1), Choice(*candidates)

    def forward(self, x: Tensor) -> Tensor:
        return self.choice(self.stem(x))


@pytest.mark.parametrize(
    ("net", "error", "reason"),
    [
        (conv(3, 4, 3), InvalidInputError, "Sequential has no choice: a choice is a submodule"),
        (Chosen(nn.Sequential()), InvalidInputError, "slot 1 .choice. is always empty"),
        (
            Chosen(conv(4, 4, 3), conv(4, 8, 3)),
            InvalidInputError,
            r"slot 1 \(choice\) .* must be the same for all",
        ),
        (Chosen(nn.Identity(), conv(4, 8, 3)), InvalidInputError, "may be empty, but makes"),
        (
            Chosen(conv(4, 4, 3), nn.Sequential(nn.LeakyReLU())),
            UnsupportedModuleError,
            r"candidate '1_Sequential' of 'choice': Sequential\.0 \(LeakyReLU\): aten::leaky_relu",
        ),
        (
            Chosen(conv(4, 4, 3), Choice(nn.ReLU(), nn.Sigmoid())),
            InvalidInputError,
            r"the choice 'choice\.candidates\.1' stands inside of the choice 'choice'",
        ),
        (Chosen(), InvalidInputError, "the choice 'choice' has no candidates"),
    ],
)
def test_what_is_no_supernet_is_refused(
    net: nn.Module, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        Space.from_supernet(net, (1, 3, 8, 8))


def test_a_choice_that_is_not_used_is_refused() -> None:
    class Unused(Supernet):
        def forward(self, x: Tensor) -> Tensor:
            return self.layers[0](self.stem(x))

    with pytest.raises(InvalidInputError, match=r"does not depend on the choice 'layers\.1'"):
        Space.from_supernet(Unused(), (1, 3, 16, 16))


# -- spaces given by tables --------------------------------------------------------------------


def test_a_space_reads_back_from_json_without_what_made_it(space: Space) -> None:
    again = Space.from_json(space.to_json())
    assert (again.name, again.version, again.genes) == (space.name, space.version, space.genes)
    assert again.placed == space.placed
    again.require_same(space)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("format", "other", "is no latlas-space 1"),
        ("genes", [{"name": "a"}], "not a space"),
        ("genes", [{"name": "a", "choices": ["b"], "labels": []}], "not a space"),
        ("ops", ["nonsense"], "not an op key"),
        ("slots", [], "has no slots"),
        ("version", "1", "not a space"),
    ],
)
def test_malformed_spaces_are_refused(space: Space, field: str, value: Any, reason: str) -> None:
    import json

    record = json.loads(space.to_json())
    record[field] = value
    with pytest.raises(InvalidInputError, match=reason):
        Space.from_json(json.dumps(record))


RELU = OpSpec.of("activation", (4, 8, 8), activation="relu")
KERNEL = Gene("kernel", (3, 5))


@pytest.mark.parametrize(
    ("slot", "reason"),
    [
        (PlacedOps("a", (1,), (RELU, None), (NETWORK_INPUT,)), r"has genes \(1,\) of 1"),
        (PlacedOps("a", (0,), (RELU,), (NETWORK_INPUT,)), "has 1 ops for 2 combinations"),
        (PlacedOps("a", (0,), (RELU, None), (0,)), "which are not all before it"),
        (PlacedOps("a", (0,), (RELU, None), (-1, -1)), "reads 2 slots"),
    ],
)
def test_slots_that_do_not_fit_are_refused(slot: PlacedOps, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        Space("mine", 1, (KERNEL,), (slot,))


def test_several_genes_may_decide_an_op() -> None:
    genes = (Gene("kernel", (3, 5)), Gene("channels", (4, 8, 16)))
    ops = tuple(
        OpSpec.of("conv", (3, 8, 8), out_channels=6, kernel=kernel, groups=groups)
        for kernel in (3, 5)
        for groups in (1, 3, 1)
    )
    space = Space("mine", 1, genes, (PlacedOps("conv", (0, 1), ops, (NETWORK_INPUT,)),))
    assert space.slot_op(0, (1, 1)) == ops[4]
    assert space.network(space.archs(space.extremes())[1]) == Network.chain([ops[5]])
