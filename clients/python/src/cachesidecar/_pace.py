"""Pace says when a client may try to connect again. It is pure: the time is given to it."""

from __future__ import annotations

import random
from typing import Optional

FIRST_PAUSE, LAST_PAUSE, EAGER_PAUSE = 0.010, 1.0, 0.004
MOVE_FOR = 5.0  # seconds for which calls wait for a sidecar that has said that it closes
MOVE_AGAIN = 0.005  # seconds between two attempts meanwhile


class Pace:
    """The pauses between attempts: they double up to a second, with jitter. Calls meanwhile fail fast."""

    __slots__ = ("error", "until", "pause", "moved")

    def __init__(self) -> None:
        self.error: Optional[Exception] = None  # of the last attempt
        self.until = 0.0
        self.pause = 0.0
        self.moved: Optional[float] = None  # when the sidecar said that it closes

    def refuses(self, now: float) -> Optional[Exception]:
        """Return the last error while no attempt may be made."""
        return self.error if self.error is not None and now < self.until else None

    def succeeded(self) -> None:
        self.error, self.pause = None, 0.0

    def failed(self, error: Exception, now: float) -> None:
        self.error = error
        if self.moving(now):
            self.until = now + EAGER_PAUSE
            return
        self.pause = min(max(2 * self.pause, FIRST_PAUSE), LAST_PAUSE)
        self.until = now + self.pause * random.uniform(0.5, 1.5)

    def leaves(self, now: float) -> None:
        """The sidecar closes: it is mostly started again."""
        self.moved = now

    def moving(self, now: float) -> bool:
        """Report whether the sidecar has said lately that it closes."""
        return self.moved is not None and now - self.moved < MOVE_FOR
