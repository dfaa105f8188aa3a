"""What `latlas compare` finds of every target: figures, and how far the outputs are off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from latlas_ops.errors import InvalidInputError

if TYPE_CHECKING:
    from latlas_latency.measurement import Computed, Target
    from latlas_latency.program_details import ProgramDetails

_REFERENCE_PRECISION = "fp32"


@dataclass(frozen=True)
class Candidate:
    """One target, and what came of the model on it.

    Attributes:
        target: the target.
        details: of the model; None where it could not be measured.
        other: of the model that it is compared with, if there is one.
        reason: why it could not be measured.
        error: how far its outputs are from the reference's, as a share of the largest; None where
            that is not known, or where it is the reference.
        error_reason: why it is not known; empty where nothing was to be compared.
        is_reference: whether the outputs of the others are compared with its own.
    """

    target: Target
    details: ProgramDetails | None
    other: ProgramDetails | None
    reason: str = ""
    error: float | None = None
    error_reason: str = ""
    is_reference: bool = False


def with_errors(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with the errors of their outputs.

    The reference is the other model on the same target, where there is one; else the first of the
    candidates that computes in fp32 and tells its outputs.

    Args:
        candidates: in the order in which the user named their targets.
    """
    if any(one.other is not None for one in candidates):
        return [
            one if one.details is None else _compared(one, _computed(one.other))
            for one in candidates
        ]
    measured = [one for one in candidates if one.details is not None]
    if len(candidates) < 2 or not measured:
        return list(candidates)
    reference = next(_references(measured), None)
    return [one if one.details is None else _beside(one, reference) for one in candidates]


def _beside(candidate: Candidate, reference: Candidate | None) -> Candidate:
    if reference is None:
        why = f"no target of precision {_REFERENCE_PRECISION} tells its outputs"
        return replace(candidate, error_reason=why)
    if candidate is reference:
        return replace(candidate, is_reference=True)
    return _compared(candidate, _computed(reference.details))


def _references(measured: Sequence[Candidate]) -> Iterator[Candidate]:
    for one in measured:
        computed = _computed(one.details)
        if one.target.precision == _REFERENCE_PRECISION and computed and computed.outputs:
            yield one


def _compared(candidate: Candidate, reference: Computed | None) -> Candidate:
    from latlas_latency.measurement import output_error

    try:
        return replace(candidate, error=output_error(_computed(candidate.details), reference))
    except InvalidInputError as error:
        return replace(candidate, error_reason=str(error))


def _computed(details: ProgramDetails | None) -> Computed | None:
    return None if details is None or details.opening is None else details.opening.computed
