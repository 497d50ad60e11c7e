"""The sidecar's socket: its path, and a connection to it."""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import Optional

import _socket

from ._clock import monotonic
from ._permission import remedy
from .errors import ConnectionError

_CONNECT_AGAIN = 0.002  # seconds between two attempts if the system's queue is full


def find(path: Optional[str]) -> str:
    """Return the path of the sidecar's socket: the one given, else the usual ones."""
    if path:
        return path
    told = os.environ.get("CACHESIDECAR_SOCKET")
    if told:
        return told
    uid = os.getuid()
    own = f"/tmp/cachesidecar-{uid}"
    places = ["/run/cachesidecar/cachesidecar.sock"]
    if os.environ.get("XDG_RUNTIME_DIR"):
        places.append(os.path.join(os.environ["XDG_RUNTIME_DIR"], "cachesidecar", "cachesidecar.sock"))
    if _is_private(own, uid):
        places.append(os.path.join(own, "cachesidecar.sock"))
    closed = None
    for place in places:
        try:
            os.stat(place)
        except OSError as e:
            if closed is None and isinstance(e, PermissionError):
                closed = unreachable(place, e)
        else:
            return place
    if closed is not None:
        raise closed
    raise ConnectionError(
        f"no socket of a sidecar at {', '.join(places)}: start cachesidecar, or set CACHESIDECAR_SOCKET to its path"
    )


def _is_private(folder: str, uid: int) -> bool:
    """Anybody may make a folder in /tmp, and so pretend to be the sidecar."""
    try:
        s = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(s.st_mode) and s.st_uid == uid and stat.S_IMODE(s.st_mode) == 0o700


def full(error: OSError) -> bool:
    """Report whether a connect has failed because the system's queue is full."""
    return error.errno in (errno.EAGAIN, errno.EINPROGRESS)


def connect(path: str, deadline: float) -> _socket.socket:
    """Return a blocking socket that is connected to path before a moment of time.monotonic. See _greenlets."""
    while True:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(path)
            sock.setblocking(True)
            return sock
        except BaseException as e:
            sock.close()
            if not isinstance(e, OSError):
                raise
            if not full(e) or monotonic() + _CONNECT_AGAIN > deadline:
                raise unreachable(path, e) from e
        time.sleep(_CONNECT_AGAIN)


def unreachable(path: str, error: Exception) -> ConnectionError:
    why = f"permission denied: {remedy(path)}" if isinstance(error, PermissionError) else error
    return ConnectionError(f"cannot connect to the sidecar at {path}: {why}")
