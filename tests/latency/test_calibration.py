import numpy as np
import pytest

from latlas_latency.calibration import fit_affine
from latlas_ops.errors import InvalidInputError

X = np.linspace(1, 10, 8)


def test_a_line_is_recovered_with_its_uncertainty():
    rng = np.random.default_rng(0)
    fits = [
        fit_affine(X, (0.2 + 1.1 * X) * (1 + rng.normal(0, 0.01, 8)), "calibration")
        for _ in range(300)
    ]
    slopes = np.array([fit.slope for fit in fits])
    intercepts = np.array([fit.intercept for fit in fits])
    assert slopes.mean() == pytest.approx(1.1, rel=0.003)
    assert intercepts.mean() == pytest.approx(0.2, abs=0.005)
    # What each fit says of its own error is what the fits really scatter by.
    assert np.mean([fit.covariance[1][1] for fit in fits]) == pytest.approx(slopes.var(), rel=0.25)
    assert np.mean([fit.residual**2 for fit in fits]) == pytest.approx(0.01**2, rel=0.15)


@pytest.mark.parametrize("n_networks", [5, 8, 12])
def test_intervals_cover_what_they_promise(n_networks):
    rng = np.random.default_rng(n_networks)
    inside = []
    for _ in range(400):
        x = np.linspace(1, 10, n_networks)
        fit = fit_affine(x, (0.2 + 1.1 * x) * (1 + rng.normal(0, 0.02, n_networks)), "calibration")
        new = rng.uniform(1, 10, 8)
        measured = (0.2 + 1.1 * new) * (1 + rng.normal(0, 0.02, 8))
        inside.append(np.abs(measured - fit.mean(new)) <= fit.half_width(new, 0.9))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.03)


def test_further_variance_widens_the_interval():
    fit = fit_affine(X, 1.1 * X * (1 + 0.01 * np.cos(9 * X)), "calibration")
    assert (fit.half_width(X, 0.9, 0.01) > 1.5 * fit.half_width(X, 0.9)).all()


def test_one_label_that_a_burst_has_spoilt_does_not_tilt_the_line():
    y = (0.2 + 1.1 * X) * (1 + 0.003 * np.cos(9 * X))
    y[6] *= 1.3
    fit = fit_affine(X, y, "calibration")
    assert fit.slope == pytest.approx(1.1, rel=0.02)


def test_the_unit_of_x_does_not_matter():
    y = 0.2 + 1.1 * X
    assert fit_affine(X * 1e9, y, "MACs").slope == pytest.approx(1.1e-9)


@pytest.mark.parametrize(
    ("x", "y", "complaint"),
    [
        ([1, 2], [1, 2], "calibration needs at least 3 networks, got 2; measure more"),
        ([2, 2, 2], [1, 2, 3], "all networks are of one size"),
        ([1, 2, 3], [1, -2, 3], "must be positive"),
        ([1, 2, 3], [3, 2, 1], "does not grow with the predicted one"),
    ],
)
def test_networks_that_carry_no_line_are_refused(x, y, complaint):
    with pytest.raises(InvalidInputError, match=complaint):
        fit_affine(x, y, "calibration")
