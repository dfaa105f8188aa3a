"""Waking those who wait for a change in the store."""

from __future__ import annotations

import asyncio


class Changes:
    """A counter of changes that can be waited for. Belongs to one event loop."""

    def __init__(self) -> None:
        self.version = 0
        """Number of changes so far."""
        self._next = asyncio.Event()

    def notify(self) -> None:
        """Says that something has changed."""
        self.version += 1
        self._next.set()
        self._next = asyncio.Event()

    async def beyond(self, version: int) -> int:
        """Waits until there were more than `version` changes and returns how many."""
        while self.version <= version:
            await self._next.wait()
        return self.version
