"""Who runs in which slot. Pure Python: no model, no tensors.

Not covered: priorities, preemption, a budget of prefill tokens per step.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

S = TypeVar("S")


class Scheduler(Generic[S]):
    """First come, first served over a fixed number of slots."""

    def __init__(self, slots: int) -> None:
        self._free = list(range(slots - 1, -1, -1))
        self._waiting: deque[tuple[str, S]] = deque()
        self.running: dict[int, tuple[str, S]] = {}

    def add(self, request_id: str, sequence: S) -> None:
        self._waiting.append((request_id, sequence))

    def admit(self) -> list[tuple[int, S]]:
        """Give free slots to those who wait longest; returns the newly admitted."""
        admitted = []
        while self._free and self._waiting:
            slot = self._free.pop()
            self.running[slot] = self._waiting.popleft()
            admitted.append((slot, self.running[slot][1]))
        return admitted

    def release(self, slot: int) -> None:
        del self.running[slot]
        self._free.append(slot)

    def abort(self, request_id: str) -> int:
        """Forget every sequence of a request, waiting or running. Returns how many there were."""
        before = len(self._waiting)
        self._waiting = deque(entry for entry in self._waiting if entry[0] != request_id)
        slots = [slot for slot, (owner, _) in self.running.items() if owner == request_id]
        for slot in slots:
            self.release(slot)
        return before - len(self._waiting) + len(slots)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self.running)
