"""The errors of this package.

Every error is a CacheError. ConnectionError and TimeoutError are also the builtins of the same name, so
``except OSError`` and ``except TimeoutError`` catch them.
"""

from __future__ import annotations

import builtins
from types import MappingProxyType
from typing import Any, Dict, Mapping, Type, Union

__all__ = [
    "BadRequestError",
    "BusyError",
    "CacheError",
    "ClosedError",
    "ConnectionError",
    "EncodingError",
    "InternalError",
    "NotStoredError",
    "OriginError",
    "TimeoutError",
    "TooLargeError",
    "UnauthorizedError",
    "UnsupportedError",
]


class CacheError(Exception):
    """The base of all errors of this package."""

    #: The kind of the error, the same word in every language.
    kind = "internal"
    #: Of a call of several keys: the results of those that have not failed, by key.
    values: Mapping[Union[str, bytes], Any] = MappingProxyType({})
    #: Of a call of several keys: the errors of those that have failed, by key.
    errors: Mapping[Union[str, bytes], CacheError] = MappingProxyType({})


class ConnectionError(CacheError, builtins.ConnectionError):
    """The sidecar, or the host that owns the key, cannot be reached. Surely nothing was done."""

    kind = "unavailable"


class TimeoutError(CacheError, builtins.TimeoutError):
    """No answer came in time, or the connection broke before it. A write may have been done."""

    kind = "timeout"


class BusyError(CacheError):
    """The sidecar, or this client, has too much to do. Nothing was done; a later attempt may succeed."""

    kind = "busy"


class BadRequestError(CacheError):
    """The call is wrong. The message says how."""

    kind = "bad_request"


class TooLargeError(CacheError):
    """A value is longer, or a number is larger, than what can be stored."""

    kind = "too_large"


class UnauthorizedError(CacheError):
    """The caller lacks a right, or its token is not known. Nothing was done."""

    kind = "unauthorized"


class OriginError(CacheError):
    """The namespace's origin has failed."""

    kind = "origin"


class UnsupportedError(CacheError):
    """The sidecar does not know what was asked for: it is of an older version."""

    kind = "unsupported"


class InternalError(CacheError):
    """The sidecar has failed, or what answered is no sidecar."""

    kind = "internal"


class NotStoredError(CacheError):
    """A number could not be added to: the value is no number, or the sum needs more than 64 bits."""

    kind = "not_stored"


class EncodingError(CacheError):
    """A stored value cannot be decoded: another program wrote it in an encoding of its own."""

    kind = "encoding"


class ClosedError(CacheError):
    """The client was closed."""

    kind = "closed"


#: The errors of the statuses of answers; any other status from 16 on is an InternalError.
BY_STATUS: Dict[int, Type[CacheError]] = {
    5: NotStoredError,
    16: BadRequestError,
    17: TooLargeError,
    18: UnauthorizedError,
    19: ConnectionError,
    20: ConnectionError,
    21: TimeoutError,
    22: BusyError,
    23: OriginError,
    24: UnsupportedError,
    25: InternalError,
}

#: The errors after which a write was surely not executed.
NOTHING_DONE = (
    ConnectionError, BusyError, BadRequestError, TooLargeError, UnauthorizedError, UnsupportedError, ClosedError,
)


def of_several(
    values: Mapping[Union[str, bytes], Any], errors: Mapping[Union[str, bytes], CacheError]
) -> CacheError:
    """Return the error of a call of several keys. It is of the class of the first failure, and carries the rest."""
    key, first = next(iter(errors.items()))
    more = f" (of {len(errors)} keys that have failed this is the first; errors has all)" if len(errors) > 1 else ""
    error = type(first)(f"key {key!r}: {first}{more}")
    error.values, error.errors, error.__cause__ = values, errors, first
    return error


class NotSent(Exception):
    """Internal: the connection ended before the system took the last byte of a request. The call may be repeated."""

    #: Of the requests of one write: to how many of the last ones this applies. The others may be executed.
    last = 0


class Broken(Exception):
    """Internal: the connection ended before the answer came."""


class Malformed(InternalError):
    """Internal: an answer that is none. It ends the connection; users see an InternalError."""
