"""Which outputs `latlas compare` takes for the reference, and what it says where there are none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from latlas.cli.candidates import Candidate, with_errors
from latlas.cli.ranking import print_ranking
from latlas_latency.measurement import Computed, Opening, Target, digests
from latlas_latency.program_details import ProgramDetails

TARGET = Target("here", "board", "onnxruntime", "1", "CPUExecutionProvider")
RIGHT, OFF = np.array([1.0, -2.0]), np.array([1.0, -2.1])


def details(outputs: np.ndarray | None) -> ProgramDetails:
    computed = None if outputs is None else Computed(("float32 1x3",), digests([outputs]))
    return ProgramDetails("net", 5.0, 6.0, 7.0, 100, opening=Opening(3, 2, 1, computed))


def candidate(name: str, outputs: np.ndarray | None, precision: str = "fp32") -> Candidate:
    target = dataclasses.replace(TARGET, name=name, precision=precision)
    return Candidate(target, details(outputs), None)


def test_the_first_target_in_fp32_is_the_reference() -> None:
    small, first, second = with_errors(
        [candidate("small", OFF, "fp16"), candidate("first", RIGHT), candidate("second", RIGHT)]
    )
    assert (small.is_reference, first.is_reference, second.is_reference) == (False, True, False)
    assert small.error == pytest.approx(0.05)
    assert (first.error, second.error) == (None, 0.0)


def test_one_that_tells_no_outputs_is_no_reference_and_has_no_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = with_errors([candidate("phone", None), candidate("a", RIGHT), candidate("b", OFF)])
    assert [one.is_reference for one in found] == [False, True, False]
    assert found[0].error_reason.startswith("its outputs are not known: ")
    print_ranking(found)
    out = capsys.readouterr().out
    assert "phone: no error of the outputs: its outputs are not known" in " ".join(out.split())
    assert "5.0e-02" in out


def test_without_a_target_in_fp32_there_is_no_reference() -> None:
    found = with_errors([candidate("a", RIGHT, "fp16"), candidate("b", OFF, "fp16")])
    assert {one.error_reason for one in found} == {"no target of precision fp32 tells its outputs"}


def test_with_another_model_the_same_target_is_the_reference() -> None:
    both = dataclasses.replace(candidate("a", OFF), other=details(RIGHT))
    (found,) = with_errors([both])
    assert found.error == pytest.approx(0.05)
    assert not found.is_reference


def test_a_target_that_was_not_measured_stays_as_it_is() -> None:
    broken = Candidate(TARGET, None, None, "no such file")
    first, second = with_errors([broken, candidate("a", RIGHT)])
    assert first == broken
    assert second.is_reference


def test_one_target_alone_has_nothing_to_be_compared_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (alone,) = with_errors([candidate("a", RIGHT)])
    assert not alone.is_reference
    print_ranking([alone])
    assert "ERROR" not in capsys.readouterr().out
