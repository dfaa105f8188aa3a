"""The accuracy predictor: how well it ranks, what it promises, and its file."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import numpy as np
import pytest

from latlas_nas.accuracy_fitting import (
    cross_judge_accuracy_predictor,
    fit_accuracy_predictor,
    judge_accuracy_predictor,
)
from latlas_nas.accuracy_predictor import AccuracyPredictor, feature_weights, features
from latlas_nas.labelling import Label
from latlas_ops.costs import space_costs
from latlas_ops.errors import InvalidInputError, SpaceMismatchError, StorageError
from latlas_ops.space import SearchSpace
from latlas_ops.spaces import get_space


def synthetic_labels(space: SearchSpace, n_labels: int, seed: int) -> list[Label]:
    """Accuracy that rises with depth, kernel and expansion, with diminishing returns and noise."""
    rng = np.random.default_rng(seed)
    batch = space.sample(n_labels, rng)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, len(space.genes))
    size = (np.maximum(batch.genes, 0) * weights).sum(1) / space.sizes.sum()
    accuracy = 0.95 - 0.3 * np.exp(-4 * size) + rng.normal(0, 0.004, n_labels)
    return [
        Label(arch, float(value)) for arch, value in zip(space.archs(batch), accuracy, strict=True)
    ]


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return get_space("digits")


@pytest.fixture(scope="module")
def predictor(space: SearchSpace) -> AccuracyPredictor:
    return fit_accuracy_predictor(space, synthetic_labels(space, 80, 1), 0)


def test_it_ranks_subnets_it_has_not_seen(predictor: AccuracyPredictor, space: SearchSpace) -> None:
    fit = judge_accuracy_predictor(predictor, synthetic_labels(space, 60, 2))
    assert fit.kendall_tau > 0.6
    assert fit.mean_absolute_error < 0.5 * np.abs(fit.measured - fit.measured.mean()).mean()


def test_the_interval_holds_about_as_many_labels_as_it_promises(
    predictor: AccuracyPredictor, space: SearchSpace
) -> None:
    fit = judge_accuracy_predictor(predictor, synthetic_labels(space, 200, 3), level=0.9)
    assert fit.coverage > 0.8
    found = predictor.predict(space.sample(50, np.random.default_rng(0)), 0.5)
    assert (found.lower <= found.mean).all()
    assert (found.mean <= found.upper).all()


def test_judged_in_turn_no_label_is_predicted_by_one_that_has_seen_it(space: SearchSpace) -> None:
    labels = synthetic_labels(space, 30, 4)
    fit = cross_judge_accuracy_predictor(space, labels, 0)
    lied = [dataclasses.replace(labels[0], accuracy=0.01), *labels[1:]]
    told = cross_judge_accuracy_predictor(space, lied, 0)
    assert fit.measured.tolist() == [label.accuracy for label in labels]
    assert told.predicted[0] == fit.predicted[0]
    assert (told.predicted != fit.predicted).any()


def test_fitting_depends_on_labels_and_seed_alone(
    predictor: AccuracyPredictor, space: SearchSpace
) -> None:
    archs = space.sample(20, np.random.default_rng(0))
    again = fit_accuracy_predictor(space, synthetic_labels(space, 80, 1), 0)
    other = fit_accuracy_predictor(space, synthetic_labels(space, 80, 1), 5)
    assert (again(archs) == predictor(archs)).all()
    assert (other(archs) != predictor(archs)).any()


def test_its_file_gives_the_same_predictions_and_holds_no_pickle(
    predictor: AccuracyPredictor, space: SearchSpace, tmp_path: Path
) -> None:
    path = tmp_path / "accuracy.npz"
    predictor.save(path)
    archs = space.sample(100, np.random.default_rng(0))
    loaded = AccuracyPredictor.load(path, space).predict(archs, 0.8)
    expected = predictor.predict(archs, 0.8)
    assert (loaded.mean == expected.mean).all()
    assert (loaded.upper == expected.upper).all()
    with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as arrays:
        assert set(archive.namelist()) == {f"{name}.npy" for name in arrays.files}


def test_its_file_is_refused_for_another_space(
    predictor: AccuracyPredictor, tmp_path: Path
) -> None:
    path = tmp_path / "accuracy.npz"
    predictor.save(path)
    with pytest.raises(SpaceMismatchError, match="predicts space 'digits'"):
        AccuracyPredictor.load(path, get_space("ofa-mobilenetv3"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"something else"])
def test_a_damaged_file_is_named(space: SearchSpace, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "accuracy.npz"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"accuracy\.npz is no accuracy predictor"):
        AccuracyPredictor.load(path, space)


def test_architectures_of_another_space_are_refused(predictor: AccuracyPredictor) -> None:
    other = get_space("ofa-mobilenetv3")
    with pytest.raises(SpaceMismatchError):
        predictor(other.sample(1, np.random.default_rng(0)))


def test_too_few_labels_are_refused(space: SearchSpace) -> None:
    with pytest.raises(InvalidInputError, match="needs 20 labels or more, got 5"):
        fit_accuracy_predictor(space, synthetic_labels(space, 5, 1), 0)


def test_features_are_steps_then_totals_per_stage_and_costs(space: SearchSpace) -> None:
    smallest, largest = features(space.extremes())
    n_steps = int(space.sizes.sum())
    assert largest[:n_steps].sum() == n_steps
    assert smallest[:n_steps].sum() == (space.extremes().genes[0] >= 0).sum()
    n_groups = 3 * 2  # kernels and expansions of three stages
    assert largest[n_steps : n_steps + 2 * n_groups].tolist() == [2.0, 6.0] * n_groups
    assert not smallest[n_steps : n_steps + 2 * n_groups].any()
    costs = space_costs(space.extremes())
    assert np.exp(largest[-2:]) == pytest.approx([costs.macs[1], costs.parameters[1]], rel=1e-4)


def test_single_layers_count_less_than_the_rest(space: SearchSpace) -> None:
    weights = feature_weights(space)
    assert weights.shape == features(space.extremes())[0].shape
    names = [
        gene.name for gene, size in zip(space.genes, space.sizes, strict=True) for _ in range(size)
    ]
    light = {name for name, weight in zip(names, weights[: len(names)], strict=True) if weight < 1}
    assert light == {name for name in names if ".layer" in name}
    assert (weights[len(names) :] == 1).all()
