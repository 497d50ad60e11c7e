"""What the sidecar says about itself. It is pure."""

from __future__ import annotations

from typing import Any, FrozenSet, List, Mapping

from . import _clock, _wire
from ._calls import check
from .errors import Malformed


class Welcome:
    """The answer to HELLO."""

    __slots__ = ("version", "node", "server", "epoch", "features", "max_value", "max_answer", "hash", "one_clock")

    def __init__(self, told: Mapping[str, Any], before_ns: int, after_ns: int) -> None:
        try:
            #: The version of the protocol that the sidecar has chosen.
            self.version = int(told.get("v", 1))
            self.node = str(told["node"])
            self.server = str(told.get("server", ""))
            self.epoch = int(told["epoch"])
            self.features: FrozenSet[str] = frozenset(told["features"])
            self.max_value = int(told["limits"]["value"])
            self.hash: Mapping[str, Any] = dict(told.get("hash") or {})
            boot = dict(told.get("boot") or {})
        except (KeyError, TypeError, ValueError) as e:
            raise Malformed(f"the sidecar's answer to HELLO is malformed: {e!r}") from None
        self.max_answer = max(_wire.MAX_ANSWER, self.max_value + (17 << 20))
        #: Whether the sidecar and this process read the same boot clock.
        self.one_clock = _clock.same_clock(boot, before_ns, after_ns)


def welcome(answer: List[Any], before_ns: int, after_ns: int) -> Welcome:
    """Return what an answer to HELLO says. Raise the error that it is."""
    check(answer)
    if answer[0] != _wire.HELLO_ID:
        raise Malformed(f"what answers is no sidecar: its first answer has the id {answer[0]}")
    return Welcome(_wire.field(answer, 2, dict), before_ns, after_ns)
