"""Which of an agent's devices are there: a board is while its agent runs, phones come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from latlas_latency.measurement import Device


class Presence:
    """The devices that an agent has, and those of them that it can announce now.

    Args:
        devices: all of them; they are there.

    Attributes:
        stale: set when the coordinator should be told anew which devices are there.
    """

    def __init__(self, devices: Iterable[Device]) -> None:
        self.stale = asyncio.Event()
        self._there = {device.device_id: device for device in devices}
        self._some = asyncio.Event()
        self._note()

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices that are there."""
        return tuple(self._there.values())

    def lose(self, device_id: str) -> None:
        """Notes that a device is gone. When to tell is left to whoever holds its lease."""
        self._there.pop(device_id, None)
        self._note()

    def regain(self, device: Device) -> None:
        """Notes that a device is back."""
        self._there[device.device_id] = device
        self._note()
        self.stale.set()

    async def wait_for_any(self) -> None:
        """Waits until a device is there."""
        await self._some.wait()

    def _note(self) -> None:
        if self._there:
            self._some.set()
        else:
            self._some.clear()
