"""What `latlas compare` shows: targets by latency, their outputs, and what was required of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from latlas.cli.candidates import Candidate
from latlas.cli.output import milliseconds, print_table
from latlas.cli.target import setup

if TYPE_CHECKING:
    from latlas.gate import Judgement

_NS_PER_MS = 1e6
_REFERENCE = "reference"


def print_ranking(candidates: Sequence[Candidate]) -> None:
    """Prints the targets, the fastest first, and what their outputs cannot be compared for."""
    from latlas.gate import LEAST_RUNS, LEVEL, Requirement, judge

    best_ns = min((one.details.p50_ns for one in candidates if one.details), default=math.nan)
    has_errors = any(
        one.is_reference or one.error is not None or one.error_reason for one in candidates
    )
    rows = []
    for one in candidates:
        row = [one.target.name, one.target.device_model, one.target.runtime, setup(one.target)]
        if one.details is None:
            rows.append([*row, "-", "-", "-", *(["-"] if has_errors else []), one.reason])
            continue
        figures = [
            getattr(one.details, f"{name}_ns") if one.details.n_runs >= least else math.nan
            for name, least in LEAST_RUNS.items()
        ]
        rows.append(
            [
                *row,
                *(_milliseconds(value_ns) for value_ns in figures),
                *([_error_in_words(one)] if has_errors else []),
                f"{one.details.p50_ns / best_ns:.2f}",
            ]
        )
    print_table(
        [
            *("TARGET", "DEVICE MODEL", "RUNTIME", "SETUP", "P50", "P95", "P99"),
            *(["ERROR"] if has_errors else []),
            "TIMES THE FASTEST",
        ],
        rows,
        empty="",
    )
    for one in candidates:
        if one.error_reason:
            print(f"{one.target.name}: no error of the outputs: {one.error_reason}")
    for one in candidates:
        if one.details is not None and one.other is not None:
            found = judge(
                Requirement("p50", 1.0, is_relative=True), one.details.visits, one.other.visits
            )
            print(
                f"{one.target.name}: {one.details.label} takes {abs(found.value - 1):.1%} "
                f"{'longer' if found.value > 1 else 'less'} than {one.other.label}, round by round "
                f"({LEVEL:.0%} interval {_in_words(found, found.lower)} to "
                f"{_in_words(found, found.upper)})".replace("%", " %").replace("  %", " %")
            )


def print_judgements(judged: Sequence[tuple[Candidate, list[Judgement]]]) -> None:
    """Prints what was required and what came of it, if anything was."""
    rows = [
        (
            candidate.target.name,
            f"{one.requirement.quantity} < {_in_words(one, one.requirement.limit)}",
            _in_words(one, one.value),
            "-"
            if one.requirement.is_of_outputs
            else f"{_in_words(one, one.lower)} to {_in_words(one, one.upper)}",
            "-" if one.requirement.is_of_outputs else one.n_rounds,
            one.verdict.value,
        )
        for candidate, judgements in judged
        for one in judgements
    ]
    if rows:
        print()
        print_table(
            ("TARGET", "REQUIREMENT", "MEASURED", "99 % INTERVAL", "ROUNDS", "VERDICT"),
            rows,
            empty="",
        )
        notes = {one.note for _, judgements in judged for one in judgements if one.note}
        for note in sorted(notes):
            print(f"Inconclusive: {note}.")
        if any(row[-1] == "inconclusive" for row in rows) and not notes:
            print("The limit lies inside the interval; more --rounds narrow it.")


def _milliseconds(value_ns: float) -> str:
    return "-" if math.isnan(value_ns) else milliseconds(value_ns / _NS_PER_MS)


def _error_in_words(candidate: Candidate) -> str:
    if candidate.is_reference:
        return _REFERENCE
    return "-" if candidate.error is None else f"{candidate.error:.1e}"


def _in_words(judgement: Judgement, value: float) -> str:
    if judgement.requirement.is_of_outputs:
        return "?" if math.isnan(value) else f"{value:.2g}"
    if not (math.isfinite(value) and value > 0):
        return "?"
    if judgement.requirement.is_relative:
        return f"{value - 1:+.1%}".replace("%", " %")
    return milliseconds(value / _NS_PER_MS)


def record(candidate: Candidate, judgements: Sequence[Judgement]) -> dict[str, object]:
    """A target as plain values."""
    return {
        "target": candidate.target.to_dict(),
        "details": candidate.details,
        "against": candidate.other,
        "reason": candidate.reason,
        "output_error": 0.0 if candidate.is_reference else candidate.error,
        "output_error_reason": candidate.error_reason,
        "is_reference": candidate.is_reference,
        "judgements": [
            {
                "quantity": one.requirement.quantity,
                "unit": _unit(one),
                "limit": one.requirement.limit,
                "value": one.value,
                "lower": one.lower,
                "upper": one.upper,
                "n_rounds": one.n_rounds,
                "verdict": one.verdict.value,
                "note": one.note,
            }
            for one in judgements
        ],
    }


def _unit(judgement: Judgement) -> str:
    if judgement.requirement.is_of_outputs:
        return "share"
    return "ratio" if judgement.requirement.is_relative else "ns"
