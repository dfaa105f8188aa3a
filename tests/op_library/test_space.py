from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from latlas_ops import (
    SPACE_NAMES,
    ArchBatch,
    ArchConfig,
    Network,
    OpSpec,
    SearchSpace,
    get_space,
)
from latlas_ops.errors import InvalidInputError, SpaceMismatchError
from latlas_ops.network import NETWORK_INPUT
from latlas_ops.space import INACTIVE, Gene, Slot
from latlas_ops.spaces.mobile import MobileSpace


@pytest.fixture(params=SPACE_NAMES)
def space(request: pytest.FixtureRequest) -> SearchSpace:
    return get_space(request.param)


def every_combination(space: SearchSpace) -> np.ndarray[Any, np.dtype[np.int64]]:
    sizes = space.sizes
    return np.stack(np.unravel_index(np.arange(np.prod(sizes)), tuple(sizes)), axis=1)


# -- canonical form ------------------------------------------------------------------------


def test_genes_of_layers_that_are_not_there_become_inactive(tiny_space: MobileSpace) -> None:
    genes = np.ones((2, len(tiny_space.genes)), dtype=np.int64)
    genes[1, tiny_space.depth_gene(0)] = 0
    shallow = tiny_space.canonical(genes)[1]
    inactive = {tiny_space.genes[i].name for i in np.flatnonzero(shallow == INACTIVE)}
    assert inactive == {"stage0.layer1.kernel", "stage0.layer1.expansion"}


def test_canonical_genes_stay_as_they_are(space: SearchSpace) -> None:
    genes = space.sample(200, np.random.default_rng(1)).genes
    assert genes.dtype == np.int8
    np.testing.assert_array_equal(space.canonical(genes), genes)


def test_what_an_inactive_gene_held_does_not_matter(tiny_space: MobileSpace) -> None:
    genes = np.zeros((3, len(tiny_space.genes)), dtype=np.int64)
    genes[:, tiny_space.kernel_gene(1, 1)] = [0, 1, 99]
    assert len(np.unique(tiny_space.canonical(genes), axis=0)) == 1


def test_canonical_leaves_its_argument_alone(tiny_space: MobileSpace) -> None:
    genes = np.zeros((1, len(tiny_space.genes)), dtype=np.int8)
    tiny_space.canonical(genes)
    assert (genes == 0).all()


@pytest.mark.parametrize("wrong", [-1, 2, 200])
def test_a_choice_out_of_range_is_refused_by_name(tiny_space: MobileSpace, wrong: int) -> None:
    genes = np.zeros((4, len(tiny_space.genes)), dtype=np.int64)
    genes[2, tiny_space.kernel_gene(0, 0)] = wrong
    with pytest.raises(
        InvalidInputError, match=rf"stage0\.layer0\.kernel has choices 0 to 1, got {wrong}"
    ):
        tiny_space.canonical(genes)


@pytest.mark.parametrize(
    "genes", [np.zeros(5, int), np.zeros((1, 5), int), np.zeros((1, 13), float)]
)
def test_an_array_of_another_shape_or_dtype_is_refused(
    tiny_space: MobileSpace, genes: np.ndarray[Any, Any]
) -> None:
    with pytest.raises(InvalidInputError, match=r"needs integers \(n_archs, 13\), got"):
        tiny_space.canonical(genes)


def test_a_gene_has_between_1_and_127_choices() -> None:
    with pytest.raises(InvalidInputError, match="0 choices"):
        Gene("kernel", ())
    with pytest.raises(InvalidInputError, match="128 choices"):
        Gene("kernel", tuple(range(128)))


# -- architectures as values ---------------------------------------------------------------


def test_batch_and_archs_are_inverse(space: SearchSpace) -> None:
    batch = space.sample(20, np.random.default_rng(2))
    archs = space.archs(batch)
    np.testing.assert_array_equal(space.batch(archs).genes, batch.genes)
    assert all(type(gene) is int for arch in archs for gene in arch.genes)


def test_an_empty_batch_has_no_rows(space: SearchSpace) -> None:
    batch = space.batch([])
    assert len(batch) == 0
    assert space.entry_indices(batch).shape == (0, len(space.slots))


def test_an_architecture_given_with_genes_of_absent_layers_becomes_canonical(
    tiny_space: MobileSpace,
) -> None:
    (smallest,) = tiny_space.archs(tiny_space.extremes())[:1]
    text = ArchConfig("tiny", 3, (0,) * len(tiny_space.genes)).to_json()
    assert tiny_space.arch_from_json(text) == smallest
    assert INACTIVE in smallest.genes


def test_json_leads_back_to_the_architecture(space: SearchSpace) -> None:
    (arch,) = space.archs(space.sample(1, np.random.default_rng(3)))
    assert space.arch_from_json(arch.to_json()) == arch


def test_sampling_is_decided_by_the_generator(space: SearchSpace) -> None:
    first = space.sample(5, np.random.default_rng(4)).genes
    np.testing.assert_array_equal(first, space.sample(5, np.random.default_rng(4)).genes)
    assert (first != space.sample(5, np.random.default_rng(5)).genes).any()


def test_choices_are_read_by_gene(tiny_space: MobileSpace) -> None:
    smallest, largest = tiny_space.archs(tiny_space.extremes())
    gene = tiny_space.kernel_gene(1, 1)
    assert gene is not None
    assert tiny_space.choice(largest, gene) == 5
    assert tiny_space.choice(smallest, gene) is None
    assert tiny_space.choice(smallest, tiny_space.resolution_gene) == 12


def test_an_architecture_is_described_by_its_active_genes(tiny_space: MobileSpace) -> None:
    smallest, largest = tiny_space.archs(tiny_space.extremes())
    assert tiny_space.describe(smallest) == (
        "resolution 12, width 0.5 0.5, depth 1 1, kernel 3 3, expansion 2 2"
    )
    assert tiny_space.describe(largest) == (
        "resolution 17, width 1 1, depth 2 2, kernel 5 5 5 5, expansion 3 3 3 3"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[" * 100_000,
        "[0, 1]",
        "{}",
        '{"space":"tiny","version":3}',
        '{"space":"tiny","version":"3","genes":[]}',
        '{"space":"tiny","version":3,"genes":7}',
        '{"space":"tiny","version":3,"genes":[1.5]}',
        '{"space":"tiny","version":3,"genes":["1"]}',
        '{"space":"tiny","version":3,"genes":[Infinity]}',
    ],
)
def test_a_malformed_architecture_is_refused(tiny_space: MobileSpace, text: str) -> None:
    with pytest.raises(InvalidInputError, match="malformed architecture"):
        tiny_space.arch_from_json(text)


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ([0], "architecture with 1 genes; space 'tiny' has 13"),
        ([2] + [0] * 12, "gene resolution has choices 0 to 1, got 2"),
        ([10**30] + [0] * 12, "a choice index is too large"),
    ],
)
def test_an_architecture_with_impossible_genes_is_refused(
    tiny_space: MobileSpace, genes: list[int], message: str
) -> None:
    arch = ArchConfig("tiny", 3, tuple(genes))
    for call in (tiny_space.ops, lambda arch: tiny_space.arch_from_json(arch.to_json())):
        with pytest.raises(InvalidInputError, match=message):
            call(arch)


@pytest.mark.parametrize(("name", "version"), [("digits", 3), ("tiny", 2)])
def test_an_architecture_of_another_space_or_version_is_refused(
    tiny_space: MobileSpace, name: str, version: int
) -> None:
    arch = ArchConfig(name, version, (0,) * len(tiny_space.genes))
    for call in (
        tiny_space.ops,
        lambda arch: tiny_space.batch([arch]),
        lambda arch: tiny_space.arch_from_json(arch.to_json()),
    ):
        with pytest.raises(SpaceMismatchError, match=f"'{name}' version {version}"):
            call(arch)


def test_a_batch_of_another_space_is_refused(tiny_space: MobileSpace) -> None:
    batch = get_space("digits").sample(1, np.random.default_rng(0))
    with pytest.raises(SpaceMismatchError, match="'digits'"):
        tiny_space.entry_indices(batch)


# -- ops and entries -----------------------------------------------------------------------


def test_entry_indices_name_the_ops_that_the_iterator_walks(space: SearchSpace) -> None:
    batch = space.sample(50, np.random.default_rng(6))
    entries = space.slot_entries.ops
    for row, arch in zip(space.entry_indices(batch), space.archs(batch), strict=True):
        assert [entries[index] for index in row if index != INACTIVE] == space.ops(arch)


def test_every_entry_of_a_space_occurs_in_some_architecture(tiny_space: MobileSpace) -> None:
    batch = ArchBatch(tiny_space, tiny_space.canonical(every_combination(tiny_space)))
    seen = set(np.unique(tiny_space.entry_indices(batch)).tolist()) - {INACTIVE}
    assert seen == set(range(len(tiny_space.slot_entries.ops)))


def test_the_network_of_an_architecture_is_its_ops_in_execution_order(space: SearchSpace) -> None:
    for arch in space.archs(space.sample(5, np.random.default_rng(7))):
        network = space.network(arch)
        assert list(network.ops) == space.ops(arch)
        if type(space).slot_sources is SearchSpace.slot_sources:
            assert network == Network.chain(space.ops(arch))
        if space.resolution_gene is not None:
            resolution = space.choice(arch, space.resolution_gene)
            assert network.input_shape[1:] == (resolution, resolution)


def test_the_network_of_a_foreign_or_impossible_architecture_is_refused(
    tiny_space: MobileSpace,
) -> None:
    with pytest.raises(SpaceMismatchError, match="'digits' version 2"):
        tiny_space.network(get_space("digits").archs(get_space("digits").extremes())[0])
    with pytest.raises(InvalidInputError, match="gene resolution has choices 0 to 1, got 2"):
        tiny_space.network(ArchConfig("tiny", 3, (2, *[0] * 12)))


def test_entries_are_gathered_from_genes_that_are_not_canonical(tiny_space: MobileSpace) -> None:
    raw = every_combination(tiny_space)
    batch = ArchBatch(tiny_space, tiny_space.canonical(raw))
    np.testing.assert_array_equal(tiny_space.gather_entries(raw), tiny_space.entry_indices(batch))


@pytest.mark.parametrize("value", [5, -2])
def test_a_choice_that_no_gene_has_is_not_taken_for_another(
    tiny_space: MobileSpace, value: int
) -> None:
    genes = every_combination(tiny_space)[:3]
    genes[1, 2] = value
    name = tiny_space.genes[2].name
    with pytest.raises(InvalidInputError, match=rf"gene {name} has choices 0 to \d, got {value}"):
        tiny_space.gather_entries(genes)
    size = int(tiny_space.sizes[0])
    genes = every_combination(tiny_space)[:3]
    genes[2, 0] = size
    with pytest.raises(InvalidInputError, match=f"gene resolution .*, got {size}"):
        tiny_space.gather_entries(genes)


def test_no_genes_give_no_entries(tiny_space: MobileSpace) -> None:
    found = tiny_space.gather_entries(np.zeros((0, len(tiny_space.genes)), dtype=np.int8))
    assert found.shape == (0, len(tiny_space.slots))


# -- slots with branches -------------------------------------------------------------------


class Branched(SearchSpace):
    """Two convolutions of the image, the first of which may be left out, and their sum."""

    name, version, resolution_gene = "branched", 1, None
    genes = (Gene.named("left.op", ("skip", "conv")),)
    slots = (Slot("left", (0,)), Slot("right", ()), Slot("sum", ()))

    def slot_op(self, slot: int, choices: Sequence[int]) -> OpSpec | None:
        if slot == 0 and choices[0] == 0:
            return None
        if slot == 2:
            return OpSpec.of("add", (4, 6, 6), (4, 6, 6))
        return OpSpec.of("conv", (4, 6, 6), out_channels=4, kernel=1 + 2 * slot)

    def slot_sources(self, slot: int, genes: Sequence[int]) -> Sequence[int]:
        return (0, 1) if slot == 2 else (NETWORK_INPUT,)


def test_an_empty_slot_hands_on_what_it_reads() -> None:
    space = Branched()
    without, with_left = (space.network(arch) for arch in space.archs(space.extremes()))
    assert [op.kind for op in without.ops] == ["conv", "add"]
    assert without.wiring == ((NETWORK_INPUT,), (NETWORK_INPUT, 0))
    assert [op.kind for op in with_left.ops] == ["conv", "conv", "add"]
    assert with_left.wiring == ((NETWORK_INPUT,), (NETWORK_INPUT,), (0, 1))


def test_choices_that_have_names_are_shown_by_name() -> None:
    space = Branched()
    assert [space.describe(arch) for arch in space.archs(space.extremes())] == [
        "op skip",
        "op conv",
    ]
    with pytest.raises(InvalidInputError, match="gene a: 1 labels for 2 choices"):
        Gene("a", (0, 1), labels=("one",))


# -- size ----------------------------------------------------------------------------------


def test_counts_equal_an_enumeration(tiny_space: MobileSpace) -> None:
    raw = every_combination(tiny_space)
    canonical = np.unique(tiny_space.canonical(raw), axis=0)
    count = tiny_space.count()
    assert count.flat == len(raw) == 8192
    assert count.distinct == len(canonical) == 2 * (2 * (4 + 16)) ** 2
    assert count.distinct_per_resolution == count.distinct // 2


def test_no_two_architectures_are_the_same_network(tiny_space: MobileSpace) -> None:
    canonical = np.unique(tiny_space.canonical(every_combination(tiny_space)), axis=0)
    ops = tiny_space.entry_indices(ArchBatch(tiny_space, canonical))
    chains = {tuple(row[row != INACTIVE].tolist()) for row in ops}
    assert len(chains) == tiny_space.count().distinct
