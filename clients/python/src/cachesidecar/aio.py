"""The asyncio client."""

from __future__ import annotations

import asyncio
from typing import Any, List, Optional

from . import _calls, _encode, _wire
from ._alink import Link
from ._calls import Call, Key
from ._item import Item
from ._settings import TTL, Settings
from .errors import Malformed


class AsyncClient:
    """A client of the sidecar on this host, for asyncio."""

    def __init__(self, socket: Optional[str] = None, *, namespace: str = "default", **settings: Any) -> None:
        self._settings = Settings(socket, namespace, **settings)
        self._link = Link(self._settings)
        self._ns = _wire.NIL

    async def _call(self, call: Call, timeout: Optional[float]) -> List[Any]:
        message, conn = await self._link.do(call, self._settings.timeout if timeout is None else timeout)
        try:
            return _wire.decode(message[4:])
        except Malformed as e:
            conn.end(e)
            raise

    async def get(self, key: Key, default: Any = None, *, timeout: Optional[float] = None) -> Any:
        k = _calls.key_bytes(key)
        item = _calls.item(k, await self._call(_calls.get(self._ns, k, 0), timeout))
        return default if item is None else item.value

    async def set(self, key: Key, value: Any, *, ttl: TTL = None, timeout: Optional[float] = None) -> int:
        data, mark = _encode.encode(value)
        call = _calls.store(self._ns, _calls.key_bytes(key), data, mark, ttl, 0, 0, False)
        version = _calls.stored(await self._call(call, timeout))
        assert version
        return version

    async def close(self) -> None:
        self._link.close()
