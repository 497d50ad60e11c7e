"""The settings of a client."""

from __future__ import annotations

import dataclasses
import io
import math
import os
import stat
from datetime import timedelta
from typing import Optional, Union

from .errors import BadRequestError, UnauthorizedError

#: The ttl of a value that does not expire.
NO_EXPIRY = math.inf

#: Seconds, a timedelta, NO_EXPIRY, or None for the namespace's.
TTL = Union[None, float, timedelta]


def seconds(timeout: float, name: str = "timeout") -> float:
    """Return a time limit that is valid."""
    if not isinstance(timeout, (int, float)) or not 0.001 <= timeout <= 3600:
        raise BadRequestError(f"{name} is {timeout!r}: give 0.001 to 3600 seconds")
    return timeout


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a client was given, with defaults in place. Times are seconds."""

    socket: Optional[str] = None
    namespace: str = "default"
    name: str = ""
    token: str = dataclasses.field(default="", repr=False)
    token_file: str = ""
    connect_timeout: float = 0.25
    timeout: float = 1.0
    load_timeout: float = 30.0
    wait_timeout: float = 10.0
    max_in_flight: int = 1024
    max_loads: int = 4096
    fail_open: bool = True
    near_cache: int = 0
    near_bound: float = 1.0
    shared_memory: bool = True

    def __post_init__(self) -> None:
        if self.token and self.token_file:
            raise BadRequestError("token and token_file are given: leave out one of them")
        for name in ("connect_timeout", "timeout", "load_timeout", "wait_timeout"):
            seconds(getattr(self, name), name)
        for name in ("max_in_flight", "max_loads"):
            value = getattr(self, name)
            if not 1 <= value <= 1 << 20:
                raise BadRequestError(f"{name} is {value}: give 1 to {1 << 20}")
        if self.near_cache and self.near_cache < 1 << 20:
            raise BadRequestError(f"near_cache is {self.near_cache} bytes: give {1 << 20} or more, or 0 for none")
        if not 0.1 <= self.near_bound <= 60:
            raise BadRequestError(f"near_bound is {self.near_bound}: give 0.1 to 60 seconds")

    def secret(self) -> str:
        """Return the token. A token file is read for each connection, so that a new token is found."""
        return _read_token(self.token_file) if self.token_file else self.token


def _read_token(path: str) -> str:
    try:
        with io.open(path, encoding="utf-8") as f:  # while the interpreter ends, there is no open
            mode = os.fstat(f.fileno()).st_mode
            token = f.read(4096).rstrip("\r\n")
    except (OSError, ValueError) as e:
        raise UnauthorizedError(f"token file {path}: {e}") from None
    if stat.S_IMODE(mode) & 0o007:
        raise UnauthorizedError(f"token file {path} may be used by every user: run chmod o= {path}")
    if not token:
        raise UnauthorizedError(f"token file {path} is empty: write the token into it")
    return token


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, rounded up."""
    return math.ceil(seconds * 1000 - 1e-6)


def ttl_ms(ttl: TTL) -> Optional[int]:
    """Return a TTL as it is on the wire: None is the namespace's, 0 is no expiry."""
    if ttl is None:
        return None
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if seconds == NO_EXPIRY:
        return 0
    if not 0 < seconds <= 31_536_000:
        raise BadRequestError(f"a ttl of {seconds} seconds: give more than 0 and at most 31536000, or NO_EXPIRY")
    return max(1, milliseconds(seconds))
