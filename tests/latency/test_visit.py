import numpy as np
import pytest

from latlas_latency.measurement import PLAIN, PROFILED, WHOLE_NETWORK, Series, Visit
from latlas_ops.errors import InvalidInputError


def make_visit(**changes):
    fields = {
        "task_id": "t1",
        "device_id": "b1",
        "round": 0,
        "mode": PLAIN,
        "started_ns": 1,
        "duration_ns": 60,
        "warmup_runs": 2,
        "series": (Series(WHOLE_NETWORK, np.array([30, 10, 20])),),
    }
    return Visit(**(fields | changes))


def test_samples_are_kept_as_they_came_and_cannot_be_changed():
    visit = make_visit()
    assert visit.network_ns.tolist() == [30, 10, 20]
    with pytest.raises(ValueError, match="read-only"):
        visit.network_ns[0] = 1


def test_samples_travel_packed_as_little_endian_int64():
    series = Series("x", np.array([1, 2**40]))
    assert series.packed() == (1).to_bytes(8, "little") + (2**40).to_bytes(8, "little")
    back = Series.unpack("x", series.packed(), "node")
    assert (back.samples_ns.tolist(), back.node) == ([1, 2**40], "node")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Series("x", np.array([], dtype=np.int64)), "'x': needs at least one sample"),
        (lambda: Series("x", np.array([[1]])), "'x': needs at least one sample"),
        (lambda: Series("x", np.array([1, -2])), "'x': negative duration -2 ns"),
        (lambda: Series.unpack("x", b"1234567"), "'x': 7 bytes are not whole int64s"),
    ],
)
def test_a_malformed_series_is_refused_by_name(make, complaint):
    with pytest.raises(InvalidInputError, match=complaint):
        make()


WHOLE = Series(WHOLE_NETWORK, np.array([30, 10]))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"mode": "fast"}, "mode 'fast' is unknown"),
        ({"round": -1}, "round -1 is negative"),
        ({"series": ()}, "the whole network comes first"),
        ({"series": (Series("n", np.array([1])),)}, "the whole network comes first"),
        ({"series": (WHOLE, WHOLE)}, "a plain visit has one series"),
        (
            {"mode": PROFILED, "series": (WHOLE, Series("n", np.array([1])))},
            "series 'n' has 1 samples, the whole network 2",
        ),
        ({"series": (Series(WHOLE_NETWORK, np.array([0, 5])),)}, "an inference took no time"),
    ],
)
def test_a_visit_is_validated_at_birth(changes, complaint):
    with pytest.raises(InvalidInputError, match=f"visit of t1: {complaint}"):
        make_visit(**changes)


def test_a_profiled_visit_holds_its_nodes_after_the_network():
    node = Series("n", np.array([0, 5]), node="Conv")
    assert make_visit(mode=PROFILED, series=(WHOLE, node)).nodes == (node,)
