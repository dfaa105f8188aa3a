from __future__ import annotations

import random
from itertools import islice

from latlas_agent.backoff import backoff_delays_s


def test_waits_grow_to_a_bound_and_vary() -> None:
    delays = list(islice(backoff_delays_s(random.Random(1), first_s=1, longest_s=8), 6))
    for delay, bound in zip(delays, [1, 2, 4, 8, 8, 8], strict=True):
        assert bound / 2 <= delay <= bound
    assert len(set(delays)) == 6


def test_agents_do_not_march_in_step() -> None:
    first, second = (list(islice(backoff_delays_s(random.Random(i)), 5)) for i in (1, 2))
    assert first != second
