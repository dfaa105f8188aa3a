import numpy as np
import pytest

from latlas_latency.attribution import attribute, attribute_all
from latlas_latency.measurement import PLAIN, PROFILED, WHOLE_NETWORK, Series, Visit
from latlas_latency.observations import Drift, Observation
from latlas_ops.errors import InvalidInputError
from latlas_ops.lowering import lower

POSITIONS = {"a": 0, "a2": 0, "b": 1}


def profiled(*nodes, mode=PROFILED):
    whole = Series(WHOLE_NETWORK, np.array([100, 200]))
    return Visit("t", "d", 0, mode, 0, 300, 0, (whole, *nodes))


def node(label, *samples):
    return Series(label, np.array(samples), node="Conv")


def test_node_times_are_summed_per_op_and_run():
    found = attribute(profiled(node("a", 1, 2), node("b", 10, 20), node("a2", 5, 6)), POSITIONS, 3)
    assert found.samples_ns.tolist() == [[6, 10, 0], [8, 20, 0]]
    assert found.n_nodes.tolist() == [2, 1, 0]
    assert found.remainder_share == 0


def test_what_belongs_to_no_op_is_kept_as_a_remainder():
    nodes = node("a", 1, 2), node("", 3, 4), node("not_a_tensor", 10, 20)
    found = attribute(profiled(*nodes), POSITIONS, 2)
    assert found.remainder_ns.tolist() == [13, 24]
    assert found.n_remainder_nodes == 2
    assert found.n_nodes_total == 3
    assert found.remainder_share == pytest.approx(37 / 40)


def test_attribution_is_complete(make_board, space):
    network = space.network(space.archs(space.extremes())[1])
    visit = make_board().visit(network, PROFILED, 0, "t")
    found = attribute(visit, lower(network).tensor_positions(), len(network.ops))
    total = sum(series.samples_ns for series in visit.nodes)
    np.testing.assert_array_equal(found.total_ns, total)
    assert (found.n_nodes > 0).all()
    assert found.n_nodes_total == len(visit.nodes)


def test_the_drift_of_each_sitting_is_divided_out_of_op_times(make_board, space):
    network = space.network(space.archs(space.extremes())[1])
    board = make_board()
    visits = tuple(board.visit(network, PROFILED, round_, "t") for round_ in range(2))
    seen = Observation(network, lower(network).tensor_positions(), visits)
    drift = Drift({(board.device_id, 1): 2.0}, 0.0, 0.0, removed=True)
    found = attribute_all(seen, drift)
    each = [attribute(visit, seen.tensor_positions, len(network.ops)) for visit in visits]
    for row, divisor in enumerate((1.0, 2.0)):
        median_ns = np.median(each[row].samples_ns, axis=0)
        np.testing.assert_allclose(found.position_ns[row], median_ns / divisor)
        assert found.total_ns[row] == np.median(each[row].total_ns) / divisor
    np.testing.assert_array_equal(found.n_nodes, each[0].n_nodes)


@pytest.mark.parametrize("mode", [PLAIN, PROFILED])
def test_a_visit_without_node_times_cannot_be_attributed(mode):
    with pytest.raises(InvalidInputError, match="visit of t in round 0 holds no node times"):
        attribute(profiled(mode=mode), POSITIONS, 2)
