"""Doubt: a call has ended by its time without an answer. Its sidecar may hang, or the call alone was slow.

A PING is posted to find out. Until its answer has come, the connection is in doubt, and calls are not sent on it. They
wait until HESITATION after the PING was posted, and fail at once later. There is no timer: the PING stays under way.
"""

from __future__ import annotations


from . import _wire
from ._clock import monotonic
from .errors import ConnectionError

HESITATION = 0.1  # seconds for which calls wait for the answer to the PING

PING = _wire.tail(_wire.PING, _wire.MAX_TIMEOUT_MS)


def hangs(since: float) -> ConnectionError:
    """Return the error of a call that is not sent. since is when the call without an answer began."""
    return ConnectionError(
        f"the sidecar has not answered for {monotonic() - since:.1f} s: it hangs or is stopped: look at it with "
        "cachesidecar health, or restart it"
    )
