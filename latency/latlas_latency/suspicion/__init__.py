"""Measurements that look wrong, told from the measurements themselves.

Three signs, each a pure function that returns records for people to see and for a planner to
measure again: a stretch of a series that shifted (`shifts`), a table entry that is faster than a
smaller op's (`entries`), and two runs of one subject that disagree (`runs`).
"""

from latlas_latency.siblings import DIRECTIONS
from latlas_latency.suspicion.entries import MonotonicityBreak, monotonicity_breaks
from latlas_latency.suspicion.runs import Disagreement, disagreements
from latlas_latency.suspicion.shifts import Shift, find_shifts

__all__ = [
    "DIRECTIONS",
    "Disagreement",
    "MonotonicityBreak",
    "Shift",
    "disagreements",
    "find_shifts",
    "monotonicity_breaks",
]
