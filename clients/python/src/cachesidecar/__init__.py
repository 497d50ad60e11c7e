"""A client of cachesidecar, the embedded cache with gossip invalidation.

``Client`` is for threads, ``AsyncClient`` for asyncio. Both talk to the sidecar on this host.
"""

from ._batch import Results
from ._feed import Event
from ._item import Item
from ._near import NearStats
from ._settings import NO_EXPIRY
from .aio import AsyncClient
from .client import Client
from .errors import (
    BadRequestError,
    BusyError,
    CacheError,
    ClosedError,
    ConnectionError,
    EncodingError,
    InternalError,
    NotStoredError,
    OriginError,
    TimeoutError,
    TooLargeError,
    UnauthorizedError,
    UnsupportedError,
)

__version__ = "0.1.0"

__all__ = [
    "NO_EXPIRY", "AsyncClient", "BadRequestError", "BusyError", "CacheError", "Client", "ClosedError",
    "ConnectionError", "EncodingError", "Event", "InternalError", "Item", "NearStats", "NotStoredError", "OriginError",
    "Results", "TimeoutError", "TooLargeError", "UnauthorizedError", "UnsupportedError",
]
