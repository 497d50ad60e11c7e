"""The boot clock, which no setting of the wall clock moves and which goes on while the machine sleeps.

Freshness is counted on it alone. Where there is none (macOS), the monotonic clock stands in, and no moment is sent
to the sidecar.
"""

from __future__ import annotations

import functools
import io
import os
import time
from typing import Any, Callable, Mapping

CLOCK_ERROR_NS = 2_000_000  # readings of one clock by two processes may differ by as much

if hasattr(time, "CLOCK_BOOTTIME"):
    _CLOCK: int = time.CLOCK_BOOTTIME
else:  # pragma: no cover
    _CLOCK = time.CLOCK_MONOTONIC

#: The monotonic clock. Time limits are counted on it, and not on time.monotonic, which tests stop (freezegun and
#: time-machine do): a call without an answer would then last for ever.
monotonic: Callable[[], float] = functools.partial(
    time.clock_gettime, getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC)
)


def boot_ns() -> int:
    """Read the boot clock, in nanoseconds."""
    return time.clock_gettime_ns(_CLOCK)


def boot_id() -> str:
    """Name the boot clock of this process; empty: it is not known."""
    if not hasattr(time, "CLOCK_BOOTTIME"):  # pragma: no cover
        return ""
    try:
        # While the interpreter ends, there is no open.
        with io.open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
            boot = f.read().strip()
    except (OSError, ValueError):
        return ""
    try:
        space = os.readlink("/proc/self/ns/time")
    except OSError:  # before Linux 5.6
        space = ""
    return f"{boot} {space}"


def same_clock(boot: Mapping[str, Any], before_ns: int, after_ns: int) -> bool:
    """Report whether a sidecar's clock is this one, by its reading between two readings of this process."""
    there, now = boot.get("id"), boot.get("now_ns")
    return (
        isinstance(there, str) and there != "" and there == boot_id() and isinstance(now, int)
        and before_ns - CLOCK_ERROR_NS <= now <= after_ns + CLOCK_ERROR_NS
    )
