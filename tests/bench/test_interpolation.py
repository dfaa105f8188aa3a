"""The interpolation benchmark on recorded sessions; `test_additivity` gives it a real one."""

import dataclasses
import math

import numpy as np
import pytest

from latlas_latency.entries import INTERPOLATED, TableEntry
from latlas_latency.measurement import Target
from latlas_latency.table import LookupTable
from latlas_latency.validation import NamedErrors, Validation
from latlas_ops import get_space

SPACE = get_space("digits")
TARGET = Target("all", "board", "onnxruntime", "1.32.0", "CPUExecutionProvider")


@pytest.fixture(scope="module")
def interpolation(bench_module):
    return bench_module("interpolation")


def validation(interpolation, mape):
    errors = (mape, 3 * mape, 0.99, 0.99, 1.0, 1.0, math.nan, 0)
    part = NamedErrors(4, *errors, name=interpolation._PART)
    return Validation(12, *errors, 0.9, 0.9, 0.01, 0.004, parts=(part,))


@pytest.fixture
def compared(interpolation):
    """A table whose interpolated entries are 2 % off."""
    whole = LookupTable(
        TARGET, None, tuple(TableEntry(op, 0.1, 0.001, 3, 9) for op in SPACE.slot_entries.ops)
    )
    some = SPACE.slot_entries.ops[:10]
    entries = tuple(
        dataclasses.replace(entry, mean_ms=0.102, kind=INTERPOLATED) if entry.op in some else entry
        for entry in whole.entries
    )
    part = dataclasses.replace(whole, entries=entries)
    found = [validation(interpolation, mape) for mape in (0.01, 0.02)]
    return interpolation.Compared("ALL, session-1", (32, 48), whole, part, *found, 20.0, 12.0)


def test_without_a_session_there_is_nothing_to_judge(interpolation, tmp_path, capsys):
    assert interpolation.main([str(tmp_path)]) == interpolation.EXIT_UNUSABLE
    assert "holds no finished session" in capsys.readouterr().err


def test_interpolated_entries_are_held_against_measured_ones(compared):
    np.testing.assert_allclose(compared.entry_errors(), [0.02] * 10)


def test_a_table_in_part_stands_beside_the_whole_one(interpolation, compared):
    figures = {figure.name: figure for figure in interpolation._figures(compared)}
    of_part = "ALL, session-1, measured at 32 and 48"
    assert figures["ALL, session-1: MAPE"].value == pytest.approx(1.0)
    assert figures["ALL, session-1: MAPE"].bar is None
    assert figures[f"{of_part}: MAPE"].holds is False, "2 % are more than 1.5 %"
    assert figures[f"{of_part}: 90% intervals"].holds
    assert figures[f"{of_part}: MAPE of 4 networks between"].value == pytest.approx(2.0)
    errors = f"{of_part}: 10 interpolated entries against measured"
    assert figures[f"{errors}, 90 % within"].value == pytest.approx(2.0)
    assert figures[f"{of_part}: device time"].value == 12.0
