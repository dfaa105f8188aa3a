"""The predictors behind the one interface, on truths of which the best answer is known."""

import csv
import subprocess
import sys
import time

import numpy as np
import pytest

from latlas_latency.formats import dump_latency_model
from latlas_latency.measurement import statistics
from latlas_latency.model import LatencyModel
from latlas_latency.predictors.features import arch_features, choice_names, total_names
from latlas_latency.predictors.linear import fit_linear
from latlas_latency.predictors.macs import fit_macs
from latlas_latency.predictors.mlp import fit_mlp
from latlas_ops import ArchBatch, get_space
from latlas_ops.costs import space_costs
from latlas_ops.errors import InvalidInputError, NotAdditiveError, SpaceMismatchError
from latlas_ops.spaces.mobile import MobileSpace, Stage

FITS = {
    "mlp": lambda batch, latency_ms, target: fit_mlp(batch, latency_ms, target, seed=0),
    "linear": fit_linear,
    "macs": fit_macs,
}


def additive_ms(board, batch):
    """Whole networks on a board where ops add up."""
    return np.array([board.network_ms(batch.space.network(a)) for a in batch.space.archs(batch)])


def nonlinear_ms(board, batch):
    """The same, but a network that is both large and wide falls out of the cache."""
    costs = space_costs(batch)
    wide = np.tanh(2 * np.log(costs.weight_bytes / 7e5))
    return additive_ms(board, batch) * (1 + 0.25 * wide * np.tanh(np.log(costs.macs / 7e7)))


def sample(board, truth, space, n, seed, noise=0.01):
    rng = np.random.default_rng(seed)
    batch = space.sample(n, rng)
    return batch, truth(board, batch) * np.exp(rng.normal(0, noise, n))


@pytest.fixture(scope="module")
def board(make_board):
    return make_board()


@pytest.fixture(scope="module")
def fitted(board, space, target):
    batch, latency_ms = sample(board, additive_ms, space, 160, seed=0)
    return {kind: fit(batch, latency_ms, target) for kind, fit in FITS.items()}


# -- the interface -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FITS)
def test_every_predictor_is_a_latency_model(fitted, space, target, kind):
    model = fitted[kind]
    assert isinstance(model, LatencyModel)
    assert (model.kind, model.target, model.space.name) == (kind, target, "digits")
    batch = space.sample(30, np.random.default_rng(3))
    prediction = model.predict(batch)
    assert (prediction.lower_ms >= 0).all()
    assert (prediction.lower_ms < prediction.mean_ms).all()
    assert (prediction.mean_ms < prediction.upper_ms).all()
    np.testing.assert_array_equal(prediction.estimated_ms, prediction.mean_ms)
    assert not prediction.measured_ms.any()
    wide = model.predict(batch, 0.99)
    assert (wide.upper_ms >= prediction.upper_ms).all()
    assert model.predict(space.batch([])).mean_ms.shape == (0,)


@pytest.mark.parametrize("kind", FITS)
def test_the_answer_does_not_depend_on_the_company(fitted, space, kind):
    batch = space.sample(5000, np.random.default_rng(4))
    alone = [fitted[kind].predict(ArchBatch(space, batch.genes[i : i + 1])) for i in (0, 4999)]
    together = fitted[kind].predict(batch).mean_ms[[0, 4999]]
    np.testing.assert_allclose(together, [each.mean_ms[0] for each in alone], rtol=1e-5)


@pytest.mark.parametrize("kind", FITS)
def test_architectures_of_another_space_are_refused(fitted, kind):
    with pytest.raises(SpaceMismatchError, match="belongs to space 'digits'"):
        fitted[kind].predict(get_space("course").extremes())


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_a_space_of_that_name_with_other_choices_is_refused(fitted, kind):
    other = MobileSpace(
        name="digits",
        version=2,
        in_channels=1,
        classes=10,
        resolutions=(32, 40, 48),
        stem_channels=16,
        stem_stride=2,
        stages=(Stage(24, 1),),
        depths=(1, 2),
        kernels=(3, 5),
        expansions=(2, 3),
        head_channels=160,
    )
    with pytest.raises(SpaceMismatchError, match="other choices"):
        fitted[kind].predict(other.extremes())


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_networks_given_as_ops_are_refused_with_the_way_out(fitted, space, kind):
    network = space.network(space.archs(space.extremes())[0])
    with pytest.raises(SpaceMismatchError, match="ask a lookup table"):
        fitted[kind].predict([network])


@pytest.mark.parametrize("kind", ["mlp", "linear"])
def test_a_predictor_without_ops_has_no_op_latencies(fitted, space, kind):
    with pytest.raises(NotAdditiveError, match="use a lookup table"):
        fitted[kind].op_latencies(space)


def test_macs_are_additive_and_known_of_any_network(fitted, space):
    model, batch = fitted["macs"], space.sample(20, np.random.default_rng(5))
    found = model.op_latencies(space)
    total = np.full(len(batch), found.intercept_ms)
    for slot, figures in zip(space.slots, found.tables_ms, strict=True):
        total += figures[tuple(batch.genes[:, gene].astype(int) for gene in slot.genes)]
    np.testing.assert_allclose(total, model.predict(batch).mean_ms)
    networks = [space.network(arch) for arch in space.archs(batch)]
    np.testing.assert_allclose(model.predict(networks).mean_ms, model.predict(batch).mean_ms)


@pytest.mark.parametrize("kind", FITS)
@pytest.mark.parametrize(
    ("latency_ms", "complaint"),
    [
        (np.ones(7), "20 architectures need as many latencies"),
        (np.zeros(20), "latencies must be positive"),
        (np.full(20, np.nan), "latencies must be positive"),
    ],
)
def test_latencies_that_make_no_sense_are_refused(space, target, kind, latency_ms, complaint):
    batch = space.sample(20, np.random.default_rng(0))
    with pytest.raises(InvalidInputError, match=complaint):
        FITS[kind](batch, latency_ms, target)


@pytest.mark.parametrize("kind", FITS)
def test_too_few_samples_are_refused(space, target, kind):
    batch = space.sample(2, np.random.default_rng(0))
    with pytest.raises(InvalidInputError, match=r"at least \d+ measured architectures, got 2"):
        FITS[kind](batch, np.ones(2), target)


# -- how well they predict -----------------------------------------------------------------------


def test_the_linear_model_finds_an_additive_truth(fitted, board, space):
    batch, latency_ms = sample(board, additive_ms, space, 500, seed=1, noise=0)
    error = {
        kind: statistics.mape(latency_ms, model.predict(batch).mean_ms)
        for kind, model in fitted.items()
    }
    assert error["linear"] < 0.015
    assert error["mlp"] < 1.05 * error["linear"]
    assert error["macs"] > 5 * error["linear"]


def test_the_mlp_learns_what_no_linear_model_can(board, space, target):
    batch, latency_ms = sample(board, nonlinear_ms, space, 160, seed=2)
    unseen, truth_ms = sample(board, nonlinear_ms, space, 500, seed=3, noise=0)
    linear = fit_linear(batch, latency_ms, target).predict(unseen).mean_ms
    mlp = fit_mlp(batch, latency_ms, target, seed=0).predict(unseen).mean_ms
    assert statistics.mape(truth_ms, mlp) < 0.75 * statistics.mape(truth_ms, linear)


def test_pure_noise_teaches_the_networks_nothing(board, space, target):
    batch, latency_ms = sample(board, additive_ms, space, 100, seed=4, noise=0.2)
    unseen, truth_ms = sample(board, additive_ms, space, 500, seed=5, noise=0)
    linear = fit_linear(batch, latency_ms, target).predict(unseen).mean_ms
    mlp = fit_mlp(batch, latency_ms, target, seed=0).predict(unseen).mean_ms
    assert statistics.mape(truth_ms, mlp) < 1.1 * statistics.mape(truth_ms, linear)


@pytest.mark.parametrize("kind", FITS)
def test_intervals_cover_unseen_architectures_as_promised(board, space, target, kind):
    covered = []
    for seed in range(3):
        batch, latency_ms = sample(board, nonlinear_ms, space, 120, seed=10 + seed, noise=0.02)
        unseen, measured_ms = sample(board, nonlinear_ms, space, 400, seed=50 + seed, noise=0.02)
        prediction = FITS[kind](batch, latency_ms, target).predict(unseen, 0.9)
        inside = (prediction.lower_ms <= measured_ms) & (measured_ms <= prediction.upper_ms)
        covered.append(inside.mean())
    assert np.mean(covered) == pytest.approx(0.91, abs=0.05)


def test_predictions_are_positive_however_far_they_reach(space, target):
    rng = np.random.default_rng(6)
    batch = space.sample(12, rng)
    latency_ms = np.exp(rng.normal(0, 2, 12))
    for fit in (FITS["linear"], FITS["mlp"]):
        prediction = fit(batch, latency_ms, target).predict(space.sample(2000, rng))
        assert (prediction.mean_ms > 0).all()


def test_constant_latencies_are_predicted_as_such(space, target):
    batch = space.sample(20, np.random.default_rng(7))
    for fit in (FITS["linear"], FITS["mlp"]):
        prediction = fit(batch, np.full(20, 2.5), target).predict(space.extremes())
        np.testing.assert_allclose(prediction.mean_ms, 2.5, rtol=1e-3)


# -- the MLP as software -------------------------------------------------------------------------


def test_equal_seeds_give_equal_predictors(board, space, target):
    batch, latency_ms = sample(board, nonlinear_ms, space, 60, seed=8)
    one, same, other = (fit_mlp(batch, latency_ms, target, seed=seed) for seed in (3, 3, 4))
    assert dump_latency_model(one) == dump_latency_model(same)
    assert dump_latency_model(one) != dump_latency_model(other)


def test_fitting_leaves_the_random_state_and_the_threads_of_torch_alone(board, space, target):
    torch = pytest.importorskip("torch")
    batch, latency_ms = sample(board, additive_ms, space, 30, seed=9)
    state, n_threads = torch.get_rng_state(), torch.get_num_threads()
    fit_mlp(batch, latency_ms, target, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == n_threads


def test_a_fit_takes_seconds(board, space, target):
    batch, latency_ms = sample(board, additive_ms, space, 250, seed=10)
    began = time.process_time()
    fit_mlp(batch, latency_ms, target, seed=0)
    assert time.process_time() - began < 10


def test_predicting_imports_no_torch(fitted, tmp_path):
    path = tmp_path / "model.npz"
    path.write_bytes(dump_latency_model(fitted["mlp"]))
    code = """
import sys
from latlas_latency.formats import load_latency_model
from latlas_ops import get_space
model = load_latency_model(open(sys.argv[1], "rb").read())
assert (model.predict(get_space("digits").extremes()).mean_ms > 0).all()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, path], check=True, timeout=60)


# -- features ------------------------------------------------------------------------------------


def test_totals_are_sums_over_the_network(space):
    batch = space.sample(50, np.random.default_rng(0))
    features, names = arch_features(batch), total_names(space)
    costs = space_costs(batch)
    columns = dict(zip(names, features.totals.T, strict=True))
    np.testing.assert_array_equal(columns["macs"], costs.macs)
    np.testing.assert_array_equal(columns["parameters"], costs.parameters)
    by_kernel = [column for name, column in columns.items() if "macs_k" in name]
    np.testing.assert_array_equal(sum(by_kernel), costs.macs)
    assert {"depthwise_macs_k3", "depthwise_macs_k5", "depthwise_macs_k7"} <= set(names)


def test_inactive_genes_are_all_zero_in_the_choices(space):
    batch = space.sample(50, np.random.default_rng(0))
    choices, start = arch_features(batch).choices, 0
    assert choices.shape == (50, len(choice_names(space)))
    for gene, size in enumerate(space.sizes):
        block = choices[:, start : start + size]
        np.testing.assert_array_equal(block.sum(axis=1), batch.genes[:, gene] >= 0)
        start += size


def test_choices_are_named_by_their_values_or_their_labels(space):
    names = choice_names(space)
    gene = space.genes[0]
    assert names[: len(gene.choices)] == tuple(f"{gene.name}={one}" for one in gene.choices)
    named = choice_names(get_space("nas-bench-201"))
    assert named[:2] == ("edge0-1.op=none", "edge0-1.op=skip_connect")


def test_area_is_relative_to_the_largest_resolution(space):
    area = arch_features(space.extremes()).area
    np.testing.assert_allclose(area, [(32 / 48) ** 2, 1])


# -- measurements of others ----------------------------------------------------------------------


@pytest.mark.parametrize("device", ["2080ti_64", "titan_xp_32"])
def test_once_for_all_networks_on_a_graphics_card(third_party_data, target, device):
    """160 measured networks of OFA's space (HELP, NeurIPS 2021) predict 1,000 others."""
    folder = third_party_data / "help" / "ofa"
    ofa = get_space("ofa-mobilenetv3")
    resolutions = tuple(range(128, 225, 4))
    space = MobileSpace(
        name="ofa-25-resolutions",
        version=1,
        in_channels=3,
        classes=1000,
        resolutions=resolutions,
        stem_channels=16,
        stem_stride=2,
        stages=ofa.stages,
        depths=(2, 3, 4),
        kernels=(3, 5, 7),
        expansions=(3, 4, 6),
        head_channels=960,
        feature_channels=1280,
    )
    rows = []
    with (folder / "archs.csv").open() as file:
        for row in csv.DictReader(file):
            genes = [resolutions.index(int(row["resolution"]))]
            genes += [int(row[f"d_{stage}"]) - 2 for stage in range(5)]
            for layer in range(20):
                genes += [(3, 5, 7).index(int(row[f"ks_{layer}"]))]
                genes += [(3, 4, 6).index(int(row[f"e_{layer}"]))]
            rows.append(genes)
    with (folder / "latency" / f"{device}.csv").open() as file:
        latency_ms = np.array([float(row["latency_ms"]) for row in csv.DictReader(file)])
    order = np.random.default_rng(0).permutation(len(rows))
    seen, unseen = order[:160], order[160:1160]
    genes = space.canonical(np.array(rows))
    errors = {}
    for kind, fit in FITS.items():
        model = fit(ArchBatch(space, genes[seen]), latency_ms[seen], target)
        prediction = model.predict(ArchBatch(space, genes[unseen]))
        errors[kind] = np.median(np.abs(prediction.mean_ms / latency_ms[unseen] - 1))
        inside = (prediction.lower_ms <= latency_ms[unseen]) & (
            latency_ms[unseen] <= prediction.upper_ms
        )
        assert 0.83 < inside.mean() < 0.99, kind
    assert errors["linear"] < 0.03
    assert errors["mlp"] < 1.05 * errors["linear"]
    assert errors["linear"] < 0.6 * errors["macs"]
