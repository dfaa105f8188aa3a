"""Tails, first run, memory and nodes from the visits of one program."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest

from latlas_latency.details_wire import details_from_message, details_to_message
from latlas_latency.measurement import (
    PLAIN,
    PROFILED,
    WHOLE_NETWORK,
    Computed,
    Opening,
    OutputDigest,
    Series,
    Visit,
)
from latlas_latency.program_details import NodeTime, kernels_of, program_details
from latlas_protos.v1 import query_pb2


def visit(
    number: int,
    samples_ns: Sequence[int],
    nodes: dict[str, Sequence[int]] | None = None,
    opening: Opening | None = None,
) -> Visit:
    whole = Series(WHOLE_NETWORK, np.array(samples_ns))
    series = [Series("t", np.array(ns), name, "CPU") for name, ns in (nodes or {}).items()]
    return Visit(
        task_id="t",
        device_id="board",
        round=number,
        mode=PROFILED if nodes else PLAIN,
        started_ns=1000 + number,
        duration_ns=sum(samples_ns),
        warmup_runs=0,
        series=(whole, *series),
        opening=opening,
    )


def test_percentiles_are_over_all_inferences_and_over_those_of_each_visit() -> None:
    details = program_details("net", [visit(1, range(51, 101)), visit(0, range(1, 51))])
    assert details.n_runs == 100
    assert (details.p50_ns, details.p95_ns) == (50.5, 95.05)
    assert [one.round for one in details.visits] == [0, 1]
    assert [one.p50_ns for one in details.visits] == [25.5, 75.5]


def test_disturbed_visits_are_shown_and_not_counted() -> None:
    details = program_details("net", [visit(1, [10, 12])], (), [visit(0, [99])])
    assert (details.n_runs, details.p50_ns) == (2, 11)
    assert [(one.round, one.left_out) for one in details.visits] == [(0, True), (1, False)]


def test_what_opening_took_is_told_of_the_first_visit_that_opened_it() -> None:
    later, first = Opening(9, 8, 7), Opening(3, 2, 1)
    visits = [visit(2, [5], opening=later), visit(1, [5]), visit(0, [5], opening=first)]
    assert program_details("net", visits).opening == first
    assert program_details("net", [visit(0, [5])]).opening is None


def test_nodes_are_matched_by_name_and_share_their_sum() -> None:
    profiled = [
        visit(0, [100], {"Conv a": [30], "Relu b": [10]}),
        visit(1, [110], {"Relu b": [10], "Conv a": [28]}),
        visit(2, [120], {"Conv a": [99], "Relu b": [10]}),
    ]
    details = program_details("net", [visit(0, [50])], profiled)
    assert details.nodes == (
        NodeTime("Conv a", "CPU", 30.0, 0.75),
        NodeTime("Relu b", "CPU", 10.0, 0.25),
    )
    assert details.profiled_ns == 110


def test_two_nodes_of_one_name_stay_two() -> None:
    twice = visit(0, [100], {"Conv a": [30], "Conv b": [10]})
    same = [Series("t", series.samples_ns, "Conv", "CPU") for series in twice.nodes]
    renamed = dataclasses.replace(twice, series=(twice.series[0], *same))
    details = program_details("net", [visit(0, [50])], [renamed, renamed])
    assert [node.median_ns for node in details.nodes] == [30, 10]


def test_visits_of_one_sample_tell_no_tail() -> None:
    details = program_details("net", [visit(0, [4]), visit(1, [5])])
    assert (details.p50_ns, details.n_runs) == (4.5, 2)
    assert math.isnan(details.p95_ns)
    assert math.isnan(details.p99_ns)


def test_without_visits_there_are_no_figures() -> None:
    details = program_details("net", [])
    assert (details.n_runs, details.visits, details.nodes) == (0, (), ())
    assert math.isnan(details.p50_ns)
    assert math.isnan(details.profiled_ns)


@pytest.mark.parametrize(
    "opening",
    [
        None,
        Opening(3, 2, 1),
        Opening(3, 2, 1, Computed(("float32 4",), (OutputDigest((2,), 5.0, (3.0, 4.0)),))),
    ],
)
@pytest.mark.parametrize("table", ["", "known"])
def test_they_survive_the_wire(opening: Opening | None, table: str) -> None:
    details = program_details(
        "net", [visit(0, [4, 5], opening=opening)], [visit(0, [9], {"Conv a": [7]})]
    )
    details = dataclasses.replace(details, table=table, covered=0.5 if table else None)
    message = query_pb2.ProgramDetails.FromString(details_to_message(details).SerializeToString())
    assert details_from_message(message) == details


def test_the_table_that_knows_most_of_a_program_is_named() -> None:
    timed = visit(0, [100], {"Conv a": [30], "Conv b": [10]})
    shapes = ["1x2 > 1x2", "1x4 > 1x4"]
    nodes = [
        dataclasses.replace(series, shapes=shape)
        for series, shape in zip(timed.nodes, shapes, strict=True)
    ]
    timed = dataclasses.replace(timed, series=(timed.series[0], *nodes))
    assert kernels_of([timed]) == {("Conv", "1x2 > 1x2"), ("Conv", "1x4 > 1x4")}
    details = program_details("net", [visit(0, [50])], [timed])
    known = details.with_coverage({"little": {("Conv", "1x4 > 1x4")}, "much": kernels_of([timed])})
    assert (known.table, known.covered) == ("much", 1.0)
    little = details.with_coverage({"little": {("Conv", "1x4 > 1x4")}, "none": frozenset()})
    assert (little.table, little.covered) == ("little", 0.25)


def test_without_shapes_or_a_table_nothing_is_said_of_coverage() -> None:
    bare = program_details("net", [visit(0, [50])], [visit(0, [100], {"Conv a": [30]})])
    assert bare.with_coverage({"table": {("Conv", "")}}) is bare
    assert bare.covered is None
