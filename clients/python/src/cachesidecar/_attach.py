"""How a client gets the shared memory: its descriptor comes over a connection of its own.

clients/c/README.md says what is checked. Without a region all reads go over the socket, so
whatever goes wrong here is no error.
"""

import array
import os
import socket
import struct
import sys
from contextlib import closing
from typing import Any, List, Mapping, Optional

import _socket
import msgpack

from . import _greenlets, errors
from ._clock import boot_ns, monotonic, same_clock
from ._region import Region, open_region
from ._socket import connect

__all__ = ["attach"]

_HELLO, _SHARED, _OK = 1, 24, 0
_LAYOUT = 1
_MAX_ANSWER = 64 << 10
_MAX_DESCRIPTORS = 4
# The sidecar's answers may be anything.
_FAILURES = (
    errors.ConnectionError, OSError, EOFError, ValueError, TypeError, LookupError, OverflowError,
    msgpack.UnpackException,
)  # fmt: skip


def attach(path: str, hello: Mapping[str, object], timeout: float) -> Optional[Region]:
    """Asks the sidecar at a path for its region and maps it; None if that cannot be, within timeout seconds.

    hello is the map of HELLO, with the token that the client has. The caller has seen SHARED
    in the features of HELLO's answer. No descriptor stays open but that of the mapping.
    """
    if sys.platform != "linux":
        return None
    deadline = monotonic() + timeout
    try:
        with closing(_Passed(connect(path, deadline), deadline)) as passed:
            return _region(passed, hello)
    except _FAILURES:
        return None


def _region(passed: "_Passed", hello: Mapping[str, object]) -> Optional[Region]:
    before = boot_ns()
    passed.send([1, _HELLO, 0, dict(hello)], [2, _SHARED, 0])
    welcome = passed.answer(1)
    offer = passed.answer(2)
    after = boot_ns()
    if not same_clock({"id": welcome["boot"]["id"], "now_ns": offer["now_ns"]}, before, after):
        return None
    if not passed.descriptors or offer["layout"] != _LAYOUT:
        return None
    region = open_region(passed.descriptors[-1], offer["id"], offer["counter"])
    if region.epoch != welcome["epoch"]:
        region.close()
        return None
    return region


class _Passed:
    """A connection whose answers may bring descriptors. It owns them."""

    def __init__(self, connected: _socket.socket, deadline: float) -> None:
        self.descriptors: List[int] = []
        self._deadline = deadline  # on the monotonic clock
        self._buffer = b""
        self._socket = connected

    def close(self) -> None:
        self._socket.close()
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors.clear()

    def _left(self) -> float:
        left = self._deadline - monotonic()
        if left <= 0:
            raise TimeoutError("the time to attach the shared memory is over")
        return left

    def send(self, *requests: List[object]) -> None:
        bodies = [msgpack.packb(r) for r in requests]
        self._socket.settimeout(self._left())
        self._socket.sendall(b"".join(struct.pack(">I", len(b)) + b for b in bodies))

    def answer(self, id: int) -> Any:
        """Reads the next answer, which must be the one to a request, and returns its map."""
        self._fill(4)
        n = int.from_bytes(self._buffer[:4], "big")
        if n > _MAX_ANSWER:
            raise ValueError(f"an answer of {n} bytes")
        self._fill(4 + n)
        reply = msgpack.unpackb(self._buffer[4 : 4 + n], raw=False, strict_map_key=False)
        self._buffer = self._buffer[4 + n :]
        if reply[0] != id or reply[1] != _OK or not isinstance(reply[2], dict):
            raise ValueError(f"the sidecar answers {reply[:3]}")
        return reply[2]

    def _fill(self, n: int) -> None:
        """Reads until the buffer has n bytes."""
        room = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
        while len(self._buffer) < n:
            if not _greenlets.wait(self._socket, True, False, self._left()):
                continue
            data, control, _, _ = self._socket.recvmsg(4096, room, socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT)
            for level, kind, body in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds = array.array("i")
                    fds.frombytes(body[: len(body) - len(body) % fds.itemsize])
                    self.descriptors += fds
            if not data:
                raise EOFError("the sidecar closed the connection")
            self._buffer += data
