import dataclasses

import numpy as np
import pytest

from latlas_latency.measurement import (
    PLAIN,
    WHOLE_NETWORK,
    Conditions,
    Flag,
    FlagThresholds,
    Series,
    UsualClocks,
    Visit,
    kept_visits,
    visit_flags,
)
from latlas_ops.errors import InvalidInputError

QUIET = Conditions(
    clock_mhz=2400.0,
    throttled=False,
    other_cpu_share=0.03,
    waiting_share=0.001,
    memory_stall_share=0.0,
    online_cores=4,
)
NEIGHBOUR = dataclasses.replace(QUIET, other_cpu_share=0.25)
ON_OUR_CORE = dataclasses.replace(QUIET, waiting_share=0.5)


def visit(conditions=QUIET, round_=0, device_id="b1"):
    return Visit(
        task_id="t1",
        device_id=device_id,
        round=round_,
        mode=PLAIN,
        started_ns=1,
        duration_ns=30,
        warmup_runs=1,
        series=(Series(WHOLE_NETWORK, np.array([30])),),
        conditions=conditions,
    )


def visits(*conditions):
    return [visit(each, round_) for round_, each in enumerate(conditions)]


def rounds(found):
    return [each.round for each in found]


# -- flags ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "flags"),
    [
        ({}, set()),
        ({"throttled": True}, {Flag.THROTTLED}),
        ({"other_cpu_share": 0.25}, {Flag.CROWDED}),
        ({"waiting_share": 0.2}, {Flag.CROWDED}),
        ({"memory_stall_share": 0.1}, {Flag.MEMORY_PRESSURE}),
        ({"clock_mhz": 1500.0}, {Flag.SLOW_CLOCK}),
        ({"clock_mhz": 2300.0}, set()),
        ({"clock_mhz": 1500.0, "throttled": True}, {Flag.SLOW_CLOCK, Flag.THROTTLED}),
        ({"other_gpu_share": 0.2}, {Flag.CROWDED}),
        ({"other_gpu_share": 0.05}, set()),
        ({"gpu_clock_mhz": 1000.0}, {Flag.SLOW_CLOCK}),
        ({"gpu_clock_mhz": 1400.0}, set()),
    ],
)
def test_each_bad_state_has_its_flag(change, flags):
    found = visit_flags(
        dataclasses.replace(QUIET, **change), usual=UsualClocks(cpu_mhz=2400.0, gpu_mhz=1410.0)
    )
    assert found == flags


def test_what_a_device_does_not_tell_is_no_flag():
    assert visit_flags(Conditions(), usual=UsualClocks(2400.0, 1410.0)) == frozenset()


def test_a_slow_clock_needs_a_usual_one_to_be_told_from():
    assert visit_flags(dataclasses.replace(QUIET, clock_mhz=1.0)) == frozenset()


def test_a_neighbour_weighs_as_much_on_a_large_machine_as_on_a_small_one():
    """A whole core in use beside the measurement: half of two cores, a sixteenth of sixteen."""
    for cores in (2, 4, 16):
        busy = dataclasses.replace(QUIET, other_cpu_share=1 / cores, online_cores=cores)
        idle = dataclasses.replace(QUIET, other_cpu_share=0.2 / cores, online_cores=cores)
        assert visit_flags(busy) == {Flag.CROWDED}
        assert visit_flags(idle) == frozenset()


def test_visits_from_before_the_cores_were_counted_are_flagged_only_when_in_no_doubt():
    old = dataclasses.replace(QUIET, online_cores=None)
    assert visit_flags(dataclasses.replace(old, other_cpu_share=0.15)) == frozenset()
    assert visit_flags(dataclasses.replace(old, other_cpu_share=0.3)) == {Flag.CROWDED}


def test_a_whole_core_that_one_wants_to_allow_is_no_flag():
    assert visit_flags(NEIGHBOUR, FlagThresholds(other_cores=1.5)) == frozenset()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("other_cores", 0.0),
        ("other_gpu_share", 0.0),
        ("waiting_share", -1.0),
        ("clock_share", 1.0),
        ("clock_share", 0.0),
    ],
)
def test_a_threshold_that_flags_everything_or_nothing_is_refused(field, value):
    with pytest.raises(InvalidInputError, match=field):
        FlagThresholds(**{field: value})


def test_the_usual_clock_is_each_devices_own():
    clocks = [(2400.0, "b1"), (2400.0, "b1"), (1500.0, "b1"), (600.0, "b2"), (None, "b3")]
    seen = [
        visit(dataclasses.replace(QUIET, clock_mhz=mhz), device_id=device) for mhz, device in clocks
    ]
    assert UsualClocks.of(seen) == {
        "b1": UsualClocks(2400.0),
        "b2": UsualClocks(600.0),
        "b3": UsualClocks(),
    }


def test_the_usual_clock_of_a_gpu_is_told_from_the_visits_that_ran_on_it():
    on_gpu = [visit(dataclasses.replace(QUIET, gpu_clock_mhz=mhz)) for mhz in (1400.0, 1400.0, 900)]
    given = [*on_gpu, *visits(QUIET, QUIET)]
    assert UsualClocks.of(given) == {"b1": UsualClocks(cpu_mhz=2400.0, gpu_mhz=1400.0)}
    assert kept_visits(given).left_out == (on_gpu[2],)
    assert kept_visits(given, usual={"b1": UsualClocks(2400.0)}).left_out == ()


# -- what tables are built from ------------------------------------------------------------------


def test_flagged_visits_are_left_out_and_not_lost():
    given = visits(QUIET, NEIGHBOUR, QUIET, ON_OUR_CORE)
    selection = kept_visits(given)
    assert rounds(selection.kept) == [0, 2]
    assert rounds(selection.left_out) == [1, 3]
    assert selection.flagged_kept == ()


def test_one_undisturbed_visit_is_worth_more_than_several_disturbed_ones():
    selection = kept_visits(visits(NEIGHBOUR, QUIET, ON_OUR_CORE))
    assert rounds(selection.kept) == [1]


def test_a_session_that_is_crowded_throughout_keeps_everything_and_says_so():
    slightly_less = dataclasses.replace(QUIET, other_cpu_share=0.22)
    selection = kept_visits(visits(NEIGHBOUR, slightly_less, NEIGHBOUR))
    assert rounds(selection.kept) == [0, 1, 2]
    assert selection.flagged_kept == selection.kept
    assert selection.left_out == ()


def test_among_disturbed_visits_those_that_are_clearly_worse_are_left_out():
    selection = kept_visits(visits(NEIGHBOUR, ON_OUR_CORE, NEIGHBOUR))
    assert rounds(selection.kept) == [0, 2]
    assert rounds(selection.left_out) == [1]
    assert rounds(selection.flagged_kept) == [0, 2]


def test_with_more_visits_asked_for_the_least_disturbed_join():
    selection = kept_visits(visits(ON_OUR_CORE, QUIET, NEIGHBOUR), least=2)
    assert rounds(selection.kept) == [1, 2]
    assert rounds(selection.flagged_kept) == [2]


def test_fewer_visits_than_asked_for_are_all_kept():
    assert rounds(kept_visits(visits(QUIET), least=2).kept) == [0]
    assert rounds(kept_visits(visits(ON_OUR_CORE)).kept) == [0]
    assert kept_visits([]).kept == ()


def test_no_visit_is_a_figure_from_nothing():
    with pytest.raises(InvalidInputError, match="at least one"):
        kept_visits(visits(QUIET), least=0)


def test_a_slow_clock_is_told_from_the_whole_campaign():
    """Alone, three visits at half the clock look usual."""
    slow = dataclasses.replace(QUIET, clock_mhz=1200.0)
    given = visits(slow, slow, QUIET)
    assert rounds(kept_visits(given).kept) == [0, 1, 2]
    assert rounds(kept_visits(given, usual={"b1": UsualClocks(2400.0)}).kept) == [2]


def test_throttled_visits_give_way_and_stay_where_all_are_throttled():
    hot = dataclasses.replace(QUIET, throttled=True)
    assert rounds(kept_visits(visits(hot, QUIET, hot)).kept) == [1]
    assert rounds(kept_visits(visits(hot, hot)).flagged_kept) == [0, 1]
