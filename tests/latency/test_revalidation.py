"""Is an unchanged device told from a changed one, and a factor from a change of relative costs?"""

import dataclasses
import math

import numpy as np
import pytest

from latlas_latency.comparison import validate
from latlas_latency.measurement import PLAIN
from latlas_latency.methods import ALONE
from latlas_latency.observations import labels_of_rounds
from latlas_latency.rescaling import carried_over, rescaled
from latlas_latency.revalidation import (
    SESSION_DRIFT,
    Expectation,
    Revalidation,
    judge,
    revalidate,
)
from latlas_latency.session import CONSTANT_SHARE
from latlas_ops.errors import InvalidInputError, TargetMismatchError, UnknownOpError

N_NETWORKS = 10


@pytest.fixture(scope="module")
def measure(campaigner, make_board):
    """`measure(network_ms, seed)`: ten networks in a fresh session on a changed device."""

    class ChangedBoard(make_board):
        change = staticmethod(lambda board, network, ms: ms)

        def network_ms(self, network):
            return self.change(self, network, super().network_ms(network))

    def run(change=None, *, seed=0, n_networks=N_NETWORKS, n_rounds=3, target=None):
        rng = np.random.default_rng(seed)
        board = ChangedBoard(seed=seed + 100)
        session = math.exp(rng.normal(0, SESSION_DRIFT))
        board.change = lambda board, network, ms: (
            session * (ms if change is None else change(board, network, ms))
        )
        batch = campaigner.stratified(n_networks, rng)
        seen = campaigner.observe([board], batch, PLAIN, n_rounds)
        return [dataclasses.replace(one, target=target or one.target) for one in seen]

    return run


def lower_graph_level(board, network, ms):
    """Every kind of op slower, each by another factor."""
    factors = {"mbconv": 2.0, "stem": 1.3, "head": 1.5}
    kernels = {3: 0.8, 5: 1.0, 7: 1.2}
    total = 0.0
    for op in network.ops:
        factor = factors[op.kind]
        if op.kind == "mbconv":
            factor *= kernels[op.integer("kernel")]
        total += factor * board.op_ms(op)
    return board.gap * total + board.run_cost_us / 1e3


def two_threads(board, network, ms):
    """Half the time for the large ops, and a price per op for the two to meet."""
    return sum(0.5 * board.op_ms(op) + 0.012 for op in network.ops)


def test_an_unchanged_device_is_valid_at_least_19_times_of_20(table, measure):
    found = [revalidate(table, measure(seed=seed)) for seed in range(20)]
    assert sum(one.verdict == "valid" for one in found) >= 19
    assert np.median([one.error_as_is for one in found]) < 0.03


@pytest.mark.parametrize("change", [lower_graph_level, two_threads])
def test_a_changed_runtime_is_never_valid(table, measure, change):
    found = [revalidate(table, measure(change, seed=seed)) for seed in range(20)]
    assert all(one.verdict != "valid" for one in found)


def test_one_factor_is_found_and_mends_the_table(table, measure, space, other_target):
    seen = measure(lambda board, network, ms: 1.3 * ms, seed=3, target=other_target)
    found = revalidate(table, seen, changed=["graph_level"])
    assert found.verdict == "rescale"
    assert found.scale == pytest.approx(1.3, rel=3 * SESSION_DRIFT)
    assert found.error_as_is == pytest.approx(1 - 1 / found.scale, abs=0.02)
    assert found.error_rescaled < 0.03
    assert found.reason.startswith("changed: graph_level; 10 networks take ")
    mended = rescaled(table, found, other_target)
    assert mended.target == other_target
    assert mended.validation is None
    before, after = (model.predict([one.network for one in seen]) for model in (table, mended))
    np.testing.assert_allclose(after.mean_ms, found.scale * before.mean_ms)
    widths = [(one.upper_ms - one.lower_ms) / one.mean_ms for one in (before, after)]
    assert (widths[1] >= widths[0]).all()
    again = revalidate(mended, measure(lambda board, network, ms: 1.3 * ms, seed=3))
    assert again.verdict == "valid"
    assert again.scale == pytest.approx(1, abs=0.01)
    assert validate(mended, seen, space).mape == pytest.approx(again.error_as_is)


def test_a_change_of_relative_costs_is_to_be_rebuilt_even_at_the_same_mean(table, measure):
    def traded(board, network, ms):
        kernels = [op.integer("kernel") for op in network.ops[1:-1]]
        return ms * (1.15 if np.mean(kernels) > 5 else 0.85)

    found = revalidate(table, measure(traded, seed=5))
    assert found.verdict == "rebuild"
    assert found.reason.startswith("no factor mends the table: ")
    with pytest.raises(InvalidInputError, match="not to be rescaled, the verdict is 'rebuild'"):
        rescaled(table, found)


def test_a_valid_table_is_not_rescaled(table, measure):
    found = revalidate(table, measure(seed=1))
    assert found.verdict == "valid"
    with pytest.raises(InvalidInputError, match="the verdict is 'valid'"):
        rescaled(table, found)


def test_a_table_is_carried_over_to_the_target_that_replaced_its_own(
    table, measure, target, other_target
):
    valid = carried_over(table, revalidate(table, measure(seed=1)), other_target)
    assert (valid.target, valid.entries) == (other_target, table.entries)
    assert valid.calibration == table.calibration
    slower = revalidate(table, measure(lambda board, network, ms: 1.5 * ms, seed=1))
    assert slower.verdict == "rescale"
    mended = carried_over(table, slower, other_target)
    assert mended.target == other_target
    assert mended.calibration != table.calibration
    with pytest.raises(InvalidInputError, match="the verdict is 'rebuild'"):
        carried_over(table, dataclasses.replace(slower, verdict="rebuild"), target)


def test_an_uncalibrated_table_is_never_valid_and_calibrated_by_the_factor(table, measure):
    raw = dataclasses.replace(table, calibration=None)
    seen = measure(seed=2)
    found = revalidate(raw, seen)
    assert found.verdict == "rescale"
    assert "not calibrated, so it cannot be valid as it is" in found.reason
    mended = rescaled(raw, found)
    assert mended.calibrated
    networks = [one.network for one in seen]
    np.testing.assert_allclose(
        mended.predict(networks).mean_ms, found.scale * raw.predict(networks).mean_ms
    )
    assert revalidate(mended, measure(seed=2)).verdict == "valid"


# -- many trials on bare figures -------------------------------------------------------------


def trials(rng, n_trials, *, noise=0.01, residual=0.01, change=1.0, spread=0.0, constant=0.0):
    """Judgements of `n_trials` sessions on a device that became `change` times as slow.

    Args:
        noise: standard deviation of labels.
        residual: the table's own error.
        change: factor, a number or one per trial.
        spread: standard deviation of what ops moved against one another.
        constant: standard deviation of what every network takes longer, as a share of a middling
            latency.
    """
    shape = (n_trials, N_NETWORKS)
    logs = rng.normal(0, math.hypot(noise, residual), shape)
    logs += rng.normal(0, SESSION_DRIFT, (n_trials, 1)) + rng.normal(0, spread, shape)
    logs += np.log(np.broadcast_to(change, n_trials))[:, None]
    predicted_ms = rng.uniform(1, 10, shape)
    centres_ms = 1 / np.mean(1 / predicted_ms, axis=1, keepdims=True)
    logs += rng.normal(0, constant, (n_trials, 1)) * (centres_ms / predicted_ms - 1)
    calibration = rng.normal(0, 0.005, (n_trials, 1))
    # As it is found from eight networks, and drawn towards the typical.
    own = math.hypot(noise, residual) ** 2 * rng.chisquare(6, n_trials) / 6
    typical = 0.01**2 + noise**2
    residuals = np.sqrt((6 * own + 10 * typical) / 16)
    others = np.full(N_NETWORKS, 0.005)
    return [
        judge(
            predicted * np.exp(log), predicted, Expectation(float(found), 16, others), noise=noise
        )
        for predicted, log, found in zip(predicted_ms, logs + calibration, residuals, strict=True)
    ]


def share(found, verdict):
    return np.mean([one.verdict == verdict for one in found])


@pytest.mark.parametrize(("noise", "residual"), [(0.005, 0.01), (0.01, 0.012), (0.02, 0.015)])
def test_false_alarms_are_rare(noise, residual):
    found = trials(np.random.default_rng(7), 400, noise=noise, residual=residual)
    assert share(found, "valid") >= 0.98


def test_nothing_is_put_down_to_drift_where_something_changed():
    predicted_ms = np.linspace(1, 10, N_NETWORKS)
    expectation = Expectation(0.01, 16, np.full(N_NETWORKS, 0.005))
    known = judge(0.93 * predicted_ms, predicted_ms, expectation, noise=0.01, changed=["threads"])
    unknown = judge(0.93 * predicted_ms, predicted_ms, expectation, noise=0.01)
    assert (known.verdict, unknown.verdict) == ("rescale", "valid")
    same = judge(predicted_ms, predicted_ms, expectation, noise=0.01, changed=["threads"])
    assert same.verdict == "valid"
    assert "no more than their noise explains" in same.reason


def test_ops_measured_alone_are_not_excused_by_their_known_bias(table, measure):
    def traded(board, network, ms):
        kernels = [op.integer("kernel") for op in network.ops[1:-1]]
        return ms * (1.15 if np.mean(kernels) > 5 else 0.85)

    conditions = dataclasses.replace(table.conditions, method=ALONE)
    alone = dataclasses.replace(table, calibration=None, conditions=conditions)
    assert revalidate(alone, measure(traded, seed=5)).verdict == "rebuild"


def test_small_and_large_networks_may_drift_apart_as_between_two_sessions():
    found = trials(np.random.default_rng(12), 400, noise=0.005, constant=CONSTANT_SHARE)
    assert share(found, "valid") >= 0.98
    assert np.std([one.constant_share for one in found]) == pytest.approx(CONSTANT_SHARE, rel=0.2)


def test_a_price_on_every_network_is_no_factor():
    found = trials(np.random.default_rng(13), 50, noise=0.005, constant=0.4)
    apart = [one for one in found if abs(one.constant_share) > 0.15]
    assert len(apart) >= 25
    assert all(one.verdict == "rebuild" for one in apart)
    assert any("small and large networks moved apart by" in one.reason for one in apart)


@pytest.mark.parametrize(("noise", "residual"), [(0.005, 0.01), (0.02, 0.015)])
def test_graph_levels_and_threads_are_never_missed(noise, residual):
    rng = np.random.default_rng(8)
    for low, high in ((1.3, 2.5), (0.55, 0.7)):
        change = rng.uniform(low, high, 200)
        found = trials(rng, 200, noise=noise, residual=residual, change=change, spread=0.06)
        assert share(found, "valid") == 0


def test_larger_changes_of_relative_costs_are_told_from_a_factor():
    rng = np.random.default_rng(9)
    assert share(trials(rng, 200, change=1.3), "rescale") >= 0.97
    assert share(trials(rng, 200, change=1.3, spread=0.06), "rebuild") >= 0.9


def test_the_error_after_rescaling_is_not_optimistic():
    rng = np.random.default_rng(10)
    found = trials(rng, 300, change=1.5)
    # What a further network would err by, with the factor of all ten.
    deviation = math.hypot(math.hypot(0.01, 0.01), 0.014 / math.sqrt(N_NETWORKS))
    truth = deviation * math.sqrt(2 / math.pi)
    assert np.mean([one.error_rescaled for one in found]) == pytest.approx(truth, rel=0.05)


def test_one_spoilt_label_of_ten_changes_neither_factor_nor_verdict():
    rng = np.random.default_rng(11)
    predicted_ms = np.linspace(1, 10, N_NETWORKS)
    expectation = Expectation(0.014, 16, np.full(N_NETWORKS, 0.005))
    measured_ms = predicted_ms * np.exp(rng.normal(0, 0.01, N_NETWORKS))
    measured_ms[3] *= 1.6
    found = judge(measured_ms, predicted_ms, expectation, noise=0.01)
    assert found.verdict == "valid"
    assert found.scale == pytest.approx(1, abs=0.02)
    assert found.error_as_is > 0.03


def test_a_noisy_session_says_so(table, measure):
    seen = measure(seed=4)
    noisy = [
        dataclasses.replace(
            one,
            visits=tuple(
                dataclasses.replace(
                    visit,
                    series=tuple(
                        dataclasses.replace(
                            series,
                            samples_ns=np.rint(
                                series.samples_ns * (1 + 0.1 * ((index + visit.round) % 2))
                            ).astype(np.int64),
                        )
                        for series in visit.series
                    ),
                )
                for visit in one.visits
            ),
        )
        for index, one in enumerate(seen)
    ]
    found = revalidate(table, noisy)
    assert found.noise > 0.02
    assert f"label noise is {found.noise:.1%}" in found.reason


def test_figures_are_those_of_the_labels(table, measure):
    seen = measure(seed=6)
    found = revalidate(table, seen)
    matrix = np.array([one.visit_medians_ns for one in seen]) / 1e6
    measured_ms = labels_of_rounds(matrix)
    predicted_ms = table.predict([one.network for one in seen]).mean_ms
    assert found.error_as_is == pytest.approx(np.mean(np.abs(predicted_ms / measured_ms - 1)))
    assert found.scale == pytest.approx(np.median(measured_ms / predicted_ms), abs=0.01)
    assert found.n_networks == N_NETWORKS
    assert "\n" not in found.reason


def test_what_cannot_be_judged_is_refused(table, measure, campaign, other_target):
    seen = measure(seed=1)
    with pytest.raises(InvalidInputError, match="at least 5 networks, got 4"):
        revalidate(table, seen[:4])
    with pytest.raises(InvalidInputError, match="revalidation networks must be plain"):
        revalidate(table, campaign.profiled)
    with pytest.raises(InvalidInputError, match="at least two rounds"):
        revalidate(table, measure(seed=1, n_rounds=1))
    stray = dataclasses.replace(seen[0], target=other_target)
    with pytest.raises(TargetMismatchError, match="differ in graph_level"):
        revalidate(table, [stray, *seen[1:]])
    few = dataclasses.replace(table, entries=table.entries[:3])
    with pytest.raises(UnknownOpError):
        revalidate(few, seen)


def test_the_answer_is_plain_values():
    found = judge(
        np.linspace(1, 2, 6), np.linspace(1, 2, 6), Expectation(0.01, 16, np.zeros(6)), noise=0.01
    )
    assert isinstance(found, Revalidation)
    assert all(isinstance(value, (str, float, int)) for value in dataclasses.astuple(found))
    assert (found.scale, found.error_as_is, found.scatter) == (1.0, 0.0, 0.0)
