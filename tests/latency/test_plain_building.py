"""Tables without node times, on a simulated board with a known truth: is it found again?"""

import csv
import json
import math

import numpy as np
import pytest

from latlas_latency.chains import is_repeatable
from latlas_latency.comparison import validate
from latlas_latency.entries import TableEntry, relative_errors
from latlas_latency.formats import dump_latency_model, export_latency_model, load_latency_model
from latlas_latency.measurement import PLAIN, PROFILED
from latlas_latency.methods import ALONE, CHAINED, IN_SITU
from latlas_latency.observations import Observation
from latlas_latency.plain_building import build_alone_table, build_chained_table
from latlas_ops import Network
from latlas_ops.costs import network_cost, op_cost
from latlas_ops.errors import InvalidInputError, TargetMismatchError
from latlas_ops.lowering import lower

MISS_MS_PER_MB = 0.03


@pytest.fixture(scope="module")
def board(make_board):
    """A board with caches and layouts, which the simulated one has not.

    The more weights a model has, the less of them is in the cache; and images of many channels are
    converted as they come in and go out.
    """

    class CachingBoard(make_board):
        def network_ms(self, network):
            weight_mb = network_cost(network).weight_bytes / 1e6
            missed_ms = MISS_MS_PER_MB * weight_mb * weight_mb / (weight_mb + 4)
            ends = (network.input_shape, network.ops[-1].outputs[0])
            layout_ms = sum(math.prod(end) / 4e6 for end in ends if len(end) == 3 and end[0] > 3)
            return super().network_ms(network) + missed_ms + layout_ms

    return CachingBoard(seed=3, noise=0.006, drift=0.03)


def one_length_op(space, networks, which):
    """An op with chains: the smallest, which stands beside the framed ones, or the largest."""
    repeatable = sorted(
        filter(is_repeatable, space.slot_entries.ops), key=lambda op: op_cost(op).macs
    )
    if which == "largest":
        return repeatable[-1]
    return next(op for op in repeatable if any({op} < set(net.ops) for net in networks))


def observe(board, target, networks, name, n_rounds=3):
    return tuple(
        Observation(
            network,
            lower(network).tensor_positions(),
            tuple(
                board.visit(network, PLAIN, round_, f"{name}-{index}") for round_ in range(n_rounds)
            ),
            target=target,
        )
        for index, network in enumerate(networks)
    )


def chain_networks(space):
    """Chains, and frames with the first op of the shape at either end."""
    ops = space.slot_entries.ops
    keeps = {op.inputs[0]: op for op in reversed(ops) if is_repeatable(op)}
    stem_block = next(op for op in ops if op.kind == "mbconv" and op.inputs[0] not in keeps)
    found = []
    for op in ops:
        if is_repeatable(op):
            found += [Network.chain([op] * length) for length in (2, 5, 8)]
            continue
        for copies in (1, 3):
            before = [keeps[op.inputs[0]]] * copies if op.inputs[0] in keeps else []
            after = [keeps[op.outputs[0]]] * copies if op.outputs[0] in keeps else []
            if op.kind == "stem":
                block = next(
                    one
                    for one in ops
                    if one.kind == stem_block.kind and one.inputs[0] == op.outputs[0]
                )
                after = [block, *[keeps[block.outputs[0]]] * copies]
            found.append(Network.chain([*before, op, *after]))
    return found


@pytest.fixture(scope="module")
def sitting(board, campaigner, space, target):
    """Chains, ops alone and whole networks of one sitting."""
    rng = np.random.default_rng(0)
    return {
        "chains": observe(board, target, chain_networks(space), "chain"),
        "alone": observe(
            board, target, [Network.chain([op]) for op in space.slot_entries.ops], "alone"
        ),
        "plain": campaigner.observe([board], campaigner.covers(), PLAIN, 3),
        "calibration": campaigner.observe([board], campaigner.stratified(8, rng), PLAIN, 3),
        "unseen": campaigner.observe([board], space.sample(40, rng), PLAIN, 3),
    }


def chained(sitting, space, target, **changes):
    parts = {name: sitting[name] for name in ("chains", "plain", "calibration")}
    return build_chained_table(**{**parts, "space": space, "target": target, **changes})


def alone(sitting, space, target, **changes):
    parts = {name: sitting[name] for name in ("alone", "plain", "calibration")}
    return build_alone_table(**{**parts, "space": space, "target": target, **changes})


@pytest.fixture(scope="module")
def table(sitting, space, target):
    return chained(sitting, space, target)


def test_chains_and_frames_give_every_op_of_the_space_an_entry(table, space):
    assert table.missing(space) == ()
    assert {entry.n_occurrences for entry in table.entries} == {2, 3, 4}
    assert all(entry.n_visits == 3 * entry.n_occurrences for entry in table.entries)


def test_entries_are_the_true_latencies(sitting, space, target, board):
    raw = chained(sitting, space, target, plain=(), calibration=())
    beyond = {True: [], False: []}
    for entry in raw.entries:
        least_ms = board.gap * board.op_ms(entry.op)
        most_ms = least_ms + MISS_MS_PER_MB * op_cost(entry.op).weight_bytes / 1e6
        nearest_ms = min(max(entry.mean_ms, least_ms), most_ms)
        beyond[is_repeatable(entry.op)].append(abs(entry.mean_ms / nearest_ms - 1))
    # Between that of weights in the cache and that of weights that all have to be fetched.
    assert np.percentile(beyond[True], 90) < 0.03
    assert np.percentile(beyond[False], 90) < 0.08


def test_errors_of_entries_are_as_large_as_stated(sitting, space, target, make_board):
    # Without cache and layouts nothing but noise is left.
    plain_board = make_board(seed=5, noise=0.006, drift=0.0, burst_share=0)
    seen = observe(plain_board, target, chain_networks(space), "chain")
    raw = chained(sitting, space, target, chains=seen, plain=(), calibration=())
    errors = relative_errors(raw.entries)
    ratios = {True: [], False: []}
    for entry in raw.entries:
        truth_ms = plain_board.gap * plain_board.op_ms(entry.op)
        stated_ms = errors[entry.op] * entry.mean_ms
        assert stated_ms == pytest.approx(entry.error_ms)
        ratios[is_repeatable(entry.op)].append((entry.mean_ms - truth_ms) / stated_ms)
    # One-sided noise within a visit moves all of them alike, by half a per cent.
    assert 0.5 < np.std(ratios[True]) < 1.6
    # The call and the ends of a frame count as known, so that its error is stated somewhat low.
    assert 0.5 < np.std(ratios[False]) < 1.6


def test_a_stated_error_is_not_drawn_towards_those_of_other_entries(table):
    ops = [entry.op for entry in table.entries[:4]]
    stated = TableEntry(ops[0], 1.0, 0.02, 3, 9, error_ms=0.003)
    others = [TableEntry(op, 1.0, 0.03, 1, 3) for op in ops[1:]]
    errors = relative_errors([stated, *others])
    assert errors[ops[0]] == 0.003
    assert [errors[op] for op in ops[1:]] == pytest.approx([0.03] * 3)


def test_the_spread_of_an_entry_is_that_of_single_visits(sitting, space, target, make_board):
    board = make_board(seed=6, noise=0.006, drift=0.0, burst_share=0)
    few, many = (
        chained(
            sitting,
            space,
            target,
            chains=observe(board, target, chain_networks(space), f"of {n_rounds}", n_rounds),
            plain=(),
            calibration=(),
        )
        for n_rounds in (3, 12)
    )

    def typical(table, field):
        return np.median([getattr(entry, field) / entry.mean_ms for entry in table.entries])

    assert typical(many, "error_ms") < 0.7 * typical(few, "error_ms")
    assert typical(many, "spread_ms") == pytest.approx(typical(few, "spread_ms"), rel=0.4)


def test_the_table_is_calibrated_by_whole_networks(table, sitting, space):
    assert table.calibrated
    assert validate(table, sitting["unseen"], space).mape < 0.015


def test_ops_alone_are_worse_and_say_so(table, sitting, space, target):
    raw = alone(sitting, space, target, plain=(), calibration=())
    assert raw.remarks[0].startswith("measured alone: ")
    assert raw.caveats[0].startswith("measured alone and not calibrated: biased")
    mended = alone(sitting, space, target)
    assert mended.caveats == ()
    # Alone all weights are in the cache; chains of them are not, and have less to be charged for.
    assert mended.conditions.surroundings.per_weight_mb_ms > MISS_MS_PER_MB / 5
    assert mended.remarks[0].startswith("measured alone: ")
    unseen = sitting["unseen"]
    doubted = raw.predict([seen.network for seen in unseen])
    assert (doubted.lower_ms < 0.85 * doubted.mean_ms).all()
    assert (doubted.upper_ms > 1.18 * doubted.mean_ms).all()
    assert validate(raw, unseen, space).mape > 2 * validate(mended, unseen, space).mape
    raw_chained = chained(sitting, space, target, plain=(), calibration=())
    assert validate(raw, unseen, space).mape > validate(raw_chained, unseen, space).mape


def test_files_and_exports_carry_the_method(table, sitting, space, target):
    assert table.method == CHAINED
    assert load_latency_model(dump_latency_model(table)) == table
    assert "# measured in chains: " in export_latency_model(table, "csv", space)[0].decode()
    assert alone(sitting, space, target).method == ALONE


def test_files_and_exports_carry_the_errors_that_entries_state(table, sitting, space, target):
    lines = export_latency_model(table, "csv", space)[0].decode().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert [float(row["error_ms"]) for row in rows] == pytest.approx(
        [entry.error_ms for entry in table.entries]
    )
    assert "error_ms" not in dump_latency_model(alone(sitting, space, target)).decode()
    record = json.loads(dump_latency_model(table))
    record["entries"][3]["error_ms"] = -1
    with pytest.raises(InvalidInputError, match=r"entries\[3\]: error_ms must be a number of at"):
        load_latency_model(json.dumps(record).encode())
    for entry in record["entries"]:
        del entry["error_ms"]
    old = load_latency_model(json.dumps(record).encode())
    assert {entry.error_ms for entry in old.entries} == {None}


def test_a_file_from_before_there_was_a_choice_was_measured_in_situ(table):
    record = json.loads(dump_latency_model(table))
    del record["conditions"]["method"]
    assert load_latency_model(json.dumps(record).encode()).method == IN_SITU
    record["conditions"]["method"] = "guessed"
    with pytest.raises(InvalidInputError, match="no method is called 'guessed'"):
        load_latency_model(json.dumps(record).encode())


def test_conditions_speak_of_chains(table, sitting):
    assert table.conditions.n_profiled_networks == len(sitting["chains"])
    assert table.conditions.profiler_cost.n_networks == 0
    assert table.conditions.remainder_share == 0


@pytest.mark.parametrize("which", ["smallest", "largest"])
def test_an_op_of_which_one_length_was_measured_is_solved_with_the_frames(
    sitting, space, target, make_board, which
):
    board = make_board(seed=5, noise=0.006, drift=0.0, burst_share=0)
    networks = chain_networks(space)
    op = one_length_op(space, networks, which)
    some = [net for net in networks if set(net.ops) != {op} or len(net.ops) == 5]
    assert len(some) == len(networks) - 2
    raw = chained(
        sitting, space, target,
        chains=observe(board, target, some, "chain"), plain=(), calibration=(),
    )  # fmt: skip
    assert raw.missing(space) == ()
    entry = raw.by_op[op]
    assert entry.n_occurrences == sum(op in net.ops for net in some)
    assert any(set(net.ops) == {op} for net in some)
    assert entry.mean_ms == pytest.approx(board.gap * board.op_ms(op), rel=0.05)


def test_what_cannot_be_used_is_refused(sitting, space, target, other_target, campaign):
    with pytest.raises(InvalidInputError, match="measurements of chains, there are none"):
        chained(sitting, space, target, chains=())
    with pytest.raises(InvalidInputError, match="must be plain"):
        chained(sitting, space, target, plain=campaign.profiled)
    assert campaign.profiled[0].mode == PROFILED
    with pytest.raises(TargetMismatchError):
        chained(sitting, space, other_target)
    with pytest.raises(InvalidInputError, match="not one alone"):
        alone(sitting, space, target, alone=sitting["chains"][:1])
    with pytest.raises(InvalidInputError, match="calibration needs at least 3 networks, got 2"):
        chained(sitting, space, target, calibration=sitting["calibration"][:2])
