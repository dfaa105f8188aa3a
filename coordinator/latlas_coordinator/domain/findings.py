"""What is found in a campaign's visits as its rounds are done: suspicions, and its precision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

VisitKey = tuple[str, int]
"""Task and round of a visit: no two visits have the same."""


class SuspicionKind(Enum):
    """What cannot be right."""

    STRETCH = "stretch"
    DISAGREEMENT = "disagreement"
    BREAK = "break"


@dataclass(frozen=True)
class Suspicion:
    """One thing that cannot be right.

    Attributes:
        kind: what it is.
        subject: what it is about: two suspicions of one kind and subject are the same, if their
            times overlap.
        text: the same for people, one line.
        first_ns, last_ns: Unix time of the first and the last visit of a stretch; else 0.
        revisited: whether visits were ordered because of it.
        open: whether it was there at the last look, and better visits were not.
        doubtful: task and round of the visits that cannot be trusted because of it; of stretches.
    """

    kind: SuspicionKind
    subject: str
    text: str
    first_ns: int = 0
    last_ns: int = 0
    revisited: bool = False
    open: bool = True
    doubtful: tuple[VisitKey, ...] = ()

    def is_same(self, other: Suspicion) -> bool:
        """Whether both are about the same thing."""
        return (
            (self.kind, self.subject) == (other.kind, other.subject)
            and self.first_ns <= other.last_ns
            and other.first_ns <= self.last_ns
        )


@dataclass(frozen=True)
class Findings:
    """The last look at a campaign's visits.

    Attributes:
        suspicions: whatever was ever found in this campaign.
        entry_error: relative error that the noise of a table's entries is expected to add to a
            network; None where that is not known, or there are no entries.
        label_error: largest relative standard error of a network's own latency, of those that
            calibrate or judge models or were measured for themselves; None if it is known of none.
        n_labels_unknown: of these networks, those whose error is not known.
        remarks: what could not be looked at, or is not known, and why; one line each.
    """

    suspicions: tuple[Suspicion, ...] = ()
    entry_error: float | None = None
    label_error: float | None = None
    n_labels_unknown: int = 0
    remarks: tuple[str, ...] = ()

    @property
    def n_revisited(self) -> int:
        """Suspicions because of which visits were ordered."""
        return sum(one.revisited for one in self.suspicions)

    @property
    def n_open(self) -> int:
        """Suspicions that are left."""
        return sum(one.open for one in self.suspicions)

    @property
    def doubtful(self) -> frozenset[VisitKey]:
        """Visits that cannot be trusted because of any suspicion."""
        return frozenset(visit for one in self.suspicions for visit in one.doubtful)

    def joined_by(self, found: Iterable[Suspicion]) -> Findings:
        """These findings and suspicions that were found apart, in place of what is the same."""
        found = tuple(found)
        others = [one for one in self.suspicions if not any(one.is_same(other) for other in found)]
        return replace(self, suspicions=(*others, *found))

    def earlier(self, found: Suspicion) -> tuple[Suspicion, ...]:
        """What is known of a suspicion already."""
        return tuple(one for one in self.suspicions if one.is_same(found))

    def unseen(self, kinds: Iterable[SuspicionKind], found: Iterable[Suspicion]) -> list[Suspicion]:
        """Suspicions of these kinds that are not among `found`."""
        found, kinds = tuple(found), set(kinds)
        return [
            one
            for one in self.suspicions
            if one.kind in kinds and not any(one.is_same(other) for other in found)
        ]
