import numpy as np
import pytest

from latlas_ops import SPACE_NAMES, SearchSpace, get_space
from latlas_ops.errors import InvalidInputError, SpaceMismatchError
from latlas_ops.space import INACTIVE, ArchBatch
from latlas_ops.spaces.mobile import MobileSpace
from latlas_ops.variation import crossover, mutate


@pytest.fixture(params=SPACE_NAMES)
def space(request: pytest.FixtureRequest) -> SearchSpace:
    return get_space(request.param)


def test_mutation_at_probability_0_changes_nothing(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    batch = space.sample(100, rng)
    np.testing.assert_array_equal(mutate(batch, 0.0, rng).genes, batch.genes)


def test_mutants_are_canonical(space: SearchSpace) -> None:
    rng = np.random.default_rng(1)
    mutants = mutate(space.sample(500, rng), 0.3, rng)
    assert mutants.space is space
    np.testing.assert_array_equal(space.canonical(mutants.genes), mutants.genes)


def test_a_gene_changes_as_often_as_the_probability_says(tiny_space: MobileSpace) -> None:
    rng = np.random.default_rng(2)
    batch = tiny_space.sample(20_000, rng)
    mutants = mutate(batch, 0.2, rng)
    gene = tiny_space.kernel_gene(0, 0)
    changed = np.mean(batch.genes[:, gene] != mutants.genes[:, gene])
    assert changed == pytest.approx(0.2 * (1 - 1 / 2), abs=0.01)


def test_a_layer_that_mutation_brings_to_life_is_drawn_uniformly(tiny_space: MobileSpace) -> None:
    rng = np.random.default_rng(3)
    smallest = tiny_space.extremes().genes[:1]
    mutants = mutate(ArchBatch(tiny_space, np.repeat(smallest, 20_000, axis=0)), 0.2, rng).genes
    kernels = mutants[mutants[:, tiny_space.depth_gene(1)] == 1, tiny_space.kernel_gene(1, 1)]
    assert np.mean(kernels) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("probability", [-0.1, 1.5, float("nan")])
def test_a_probability_outside_0_to_1_is_refused(
    tiny_space: MobileSpace, probability: float
) -> None:
    with pytest.raises(InvalidInputError, match=r"probability must be in \[0, 1\]"):
        mutate(tiny_space.extremes(), probability, np.random.default_rng(0))


def test_children_are_canonical_and_every_gene_is_a_parents(space: SearchSpace) -> None:
    rng = np.random.default_rng(4)
    left, right = space.sample(500, rng), space.sample(500, rng)
    child = crossover(left, right, rng).genes
    np.testing.assert_array_equal(space.canonical(child), child)
    inherited = (child == left.genes) | (child == right.genes)
    assert (inherited | (child == INACTIVE)).all()


def test_a_child_of_equal_parents_is_their_copy(space: SearchSpace) -> None:
    rng = np.random.default_rng(5)
    batch = space.sample(100, rng)
    np.testing.assert_array_equal(crossover(batch, batch, rng).genes, batch.genes)


def test_genes_come_from_either_parent_equally_often(tiny_space: MobileSpace) -> None:
    smallest, largest = (
        ArchBatch(tiny_space, np.repeat(row[None], 10_000, axis=0))
        for row in tiny_space.extremes().genes
    )
    child = crossover(smallest, largest, np.random.default_rng(6)).genes
    gene = tiny_space.expansion_gene(0, 0)
    assert np.mean(child[:, gene]) == pytest.approx(0.5, abs=0.03)


def test_a_layer_that_only_one_parent_has_is_inherited_from_it(tiny_space: MobileSpace) -> None:
    extremes = tiny_space.extremes()
    shallow, deep = (
        ArchBatch(tiny_space, np.repeat(row[None], 200, axis=0)) for row in extremes.genes
    )
    child = crossover(shallow, deep, np.random.default_rng(7)).genes
    is_deep = child[:, tiny_space.depth_gene(0)] == 1
    assert 0 < is_deep.sum() < 200
    assert (child[is_deep, tiny_space.kernel_gene(0, 1)] == 1).all()


def test_variation_is_decided_by_the_generator(space: SearchSpace) -> None:
    batch = space.sample(50, np.random.default_rng(8))
    other = space.sample(50, np.random.default_rng(9))
    for vary in (lambda rng: mutate(batch, 0.5, rng), lambda rng: crossover(batch, other, rng)):
        np.testing.assert_array_equal(
            vary(np.random.default_rng(10)).genes, vary(np.random.default_rng(10)).genes
        )


def test_parents_of_different_spaces_or_numbers_are_refused(tiny_space: MobileSpace) -> None:
    rng = np.random.default_rng(0)
    batch = tiny_space.sample(3, rng)
    with pytest.raises(SpaceMismatchError, match="'digits'"):
        crossover(batch, get_space("digits").sample(3, rng), rng)
    with pytest.raises(InvalidInputError, match="3 with 4"):
        crossover(batch, tiny_space.sample(4, rng), rng)
