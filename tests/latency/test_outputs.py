"""Digests of outputs, and how far two programs are apart by them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from latlas_latency.measurement import Computed, OutputDigest, digests, output_error
from latlas_latency.measurement.outputs import MOST_VALUES
from latlas_ops.errors import InvalidInputError

INPUTS = ("float32 1x3",)


def computed(*outputs: np.ndarray) -> Computed:
    return Computed(INPUTS, digests(outputs))


def test_a_small_output_is_kept_whole() -> None:
    (digest,) = digests([np.array([[3.0, -4.0]], dtype=np.float32)])
    assert digest == OutputDigest((1, 2), 5.0, (3.0, -4.0))


def test_of_a_large_one_numbers_from_first_to_last_are_kept() -> None:
    (digest,) = digests([np.arange(10_000, dtype=np.float32).reshape(100, 100)])
    assert (digest.values[0], digest.values[-1], len(digest.values)) == (0.0, 9999.0, MOST_VALUES)
    assert np.ptp(np.diff(digest.values)) <= 1


def test_many_outputs_share_the_room() -> None:
    found = digests([np.arange(1000.0)] * 16)
    assert {len(digest.values) for digest in found} == {MOST_VALUES // 16}


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint8, np.int64, np.bool_])
def test_numbers_of_every_type_are_told(dtype: type) -> None:
    (digest,) = digests([np.array([1, 0, 1]).astype(dtype)])
    assert digest == OutputDigest((3,), math.sqrt(2), (1.0, 0.0, 1.0))


def test_a_scalar_and_nothing_are_outputs_too() -> None:
    scalar, nothing = digests([np.array(2.0), np.empty((0, 3))])
    assert scalar == OutputDigest((), 2.0, (2.0,))
    assert nothing == OutputDigest((0, 3), 0.0, ())


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_what_is_no_finite_number_is_said_to_be_none(value: float) -> None:
    assert digests([np.array([1.0, value])]) == (OutputDigest((2,), 0.0, (), is_finite=False),)


def test_outputs_that_are_no_arrays_of_numbers_are_not_told() -> None:
    assert digests([np.ones(3), ["a", "b"]]) == ()
    assert digests([np.array(["a", "b"])]) == ()


def test_a_digest_on_the_wire_stays_small_and_finite() -> None:
    for norm, values in ((math.nan, ()), (1.0, (math.inf,)), (1.0, (0.0,) * (MOST_VALUES + 1))):
        with pytest.raises(InvalidInputError, match="a few numbers, all of them finite"):
            OutputDigest((1,), norm, values)


def test_the_error_is_a_share_of_the_largest_number() -> None:
    error = output_error(computed(np.array([1.0, -4.1])), computed(np.array([1.0, -4.0])))
    assert error == pytest.approx(0.025)


def test_equal_outputs_have_no_error_even_where_all_are_zero() -> None:
    assert output_error(computed(np.zeros(3)), computed(np.zeros(3))) == 0
    assert output_error(computed(np.ones(3)), computed(np.zeros(3))) == math.inf


def test_the_output_that_is_furthest_off_counts() -> None:
    error = output_error(
        computed(np.array([1.0]), np.array([1.5])), computed(np.array([1.0]), np.array([1.0]))
    )
    assert error == pytest.approx(0.5)


def test_what_is_off_between_the_kept_numbers_shows_in_the_norm() -> None:
    right, wrong = np.ones(1001), np.ones(1001)
    kept = np.linspace(0, 1000, MOST_VALUES).round().astype(int)
    wrong[np.setdiff1d(np.arange(1001), kept)] = 2
    assert output_error(computed(wrong), computed(right)) > 0.5


def test_what_is_no_number_is_as_wrong_as_can_be() -> None:
    assert output_error(computed(np.array([math.nan])), computed(np.ones(1))) == math.inf


def test_the_norm_of_a_large_output_is_that_of_all_its_numbers() -> None:
    numbers = np.random.default_rng(0).standard_normal(200_001)
    (digest,) = digests([numbers])
    assert digest.norm == pytest.approx(np.linalg.norm(numbers))


@pytest.mark.parametrize(
    ("one", "reference", "why"),
    [
        (None, computed(np.ones(2)), "^its outputs are not known"),
        (computed(np.ones(2)), Computed(), "the reference's outputs are not known"),
        (computed(np.ones(2)), computed(np.ones(2), np.ones(2)), "it has 1 outputs, the reference"),
        (
            computed(np.ones((2, 3))),
            computed(np.ones((3, 2))),
            "output 0 has the shape 2x3, .* 3x2",
        ),
        (computed(np.ones(1)), computed(np.array([math.nan])), "reference's output 0 holds what"),
        (
            Computed(("float32 1x3x3x8",), digests([np.ones(2)])),
            computed(np.ones(2)),
            "its inputs are float32 1x3x3x8, the reference's float32 1x3",
        ),
    ],
)
def test_outputs_that_cannot_be_compared_say_why(
    one: Computed | None, reference: Computed | None, why: str
) -> None:
    with pytest.raises(InvalidInputError, match=why):
        output_error(one, reference)
