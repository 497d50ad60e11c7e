"""The metrics hook.

A client calls its ``on_call`` after every call, on the thread or the task of the call:

    on_call(op, result, seconds, source)

``op`` is the method's request, such as "get" or "set". ``result`` is "ok", "miss", or the kind of an error, such as
"timeout". ``source`` is the source of a read's Item, else "". A hook must be quick. What it raises is logged, and
changes nothing for the call.
"""

from __future__ import annotations

import logging
from typing import Any, Callable, Sequence

from . import _wire
from ._item import SOURCES
from .errors import BY_STATUS, CacheError, InternalError

OnCall = Callable[[str, str, float, str], None]

NAMES = {
    _wire.PING: "ping", _wire.GET: "get", _wire.MGET: "get_many", _wire.SET: "set", _wire.DELETE: "delete",
    _wire.TOUCH: "touch", _wire.INCR: "incr", _wire.LEASE: "lease", _wire.FILL: "fill", _wire.FLUSH: "flush",
    _wire.STATS: "stats", _wire.MEMBERS: "members",
    _wire.METAGET: "get_and_touch",
}


def tell(hook: OnCall, op: str, result: str, seconds: float, source: str) -> None:
    """Call a hook."""
    try:
        hook(op, result, seconds, source)
    except Exception:
        logging.getLogger("cachesidecar").exception("on_call has raised an error")


def result(op: int, answer: Sequence[Any]) -> str:
    """Return the result of an answered call."""
    status = answer[1]
    if status == _wire.MISS or op == _wire.METAGET and status == _wire.STALE:
        return "miss"
    if status == _wire.EXISTS:
        return "exists"
    if status <= _wire.EXISTS:
        return "ok"
    return BY_STATUS.get(status, InternalError).kind


def source(op: int, answer: Sequence[Any]) -> str:
    """Return where the value of an answered read was."""
    if op in (_wire.GET, _wire.LEASE) and answer[1] in (_wire.OK, _wire.STALE) and len(answer) > 6:
        return SOURCES.get(answer[6], "")
    return ""


def failure(error: BaseException) -> str:
    """Return the result of a call that was not answered."""
    return error.kind if isinstance(error, CacheError) else "interrupted"
