"""The calls of several keys of an asyncio client. See _many."""

from __future__ import annotations

import asyncio
from typing import Any, Dict, Iterable, List, Literal, Mapping, Optional, Tuple, Union, overload

from . import _calls, _wire
from ._aview import TaskView
from ._batch import Batch, Results
from ._calls import Call, Key
from ._item import Item
from ._settings import TTL
from .errors import CacheError


class ManyView(TaskView):
    """A namespace of a client: its calls of several keys. See Client."""

    @overload
    async def get_many(
        self, keys: Iterable[Key], *, fresh: bool = ..., stale_ok: bool = ..., no_load: bool = ...,
        timeout: Optional[float] = ..., partial: Literal[False] = ...,
    ) -> Dict[Key, Any]: ...

    @overload
    async def get_many(
        self, keys: Iterable[Key], *, fresh: bool = ..., stale_ok: bool = ..., no_load: bool = ...,
        timeout: Optional[float] = ..., partial: Literal[True],
    ) -> Results: ...

    async def get_many(
        self, keys: Iterable[Key], *, fresh: bool = False, stale_ok: bool = False, no_load: bool = False,
        timeout: Optional[float] = None, partial: bool = False,
    ) -> Union[Dict[Key, Any], Results]:
        """Return the values of the keys that have one."""
        batch = await self._ask(keys, fresh, stale_ok, no_load, timeout)
        batch.decode()
        return batch.result(partial)  # type: ignore[no-any-return]

    @overload
    async def get_items(
        self, keys: Iterable[Key], *, fresh: bool = ..., stale_ok: bool = ..., no_load: bool = ...,
        timeout: Optional[float] = ..., partial: Literal[False] = ...,
    ) -> Dict[Key, Item]: ...

    @overload
    async def get_items(
        self, keys: Iterable[Key], *, fresh: bool = ..., stale_ok: bool = ..., no_load: bool = ...,
        timeout: Optional[float] = ..., partial: Literal[True],
    ) -> Results: ...

    async def get_items(
        self, keys: Iterable[Key], *, fresh: bool = False, stale_ok: bool = False, no_load: bool = False,
        timeout: Optional[float] = None, partial: bool = False,
    ) -> Union[Dict[Key, Item], Results]:
        """Return the values of the keys that have one, as they are stored, and what is known about them."""
        return (await self._ask(keys, fresh, stale_ok, no_load, timeout)).result(partial)  # type: ignore[no-any-return]

    async def _ask(
        self, keys: Iterable[Key], fresh: bool, stale_ok: bool, no_load: bool, timeout: Optional[float]
    ) -> Batch:
        limit = self._limit(timeout)
        batch, left = self._given(keys, fresh)
        while left:
            some, left = left[: _wire.MAX_KEYS], left[_wire.MAX_KEYS :]
            asked = self._asked()
            try:
                call = _calls.mget(self._ns, some, self._options(fresh, stale_ok, no_load))
                answer, conn = await self._call(call, limit)
                left[:0] = self._take(batch, some, answer, conn, asked)
            except CacheError as e:
                batch.failed(some, e)
        return batch

    @overload
    async def set_many(
        self, values: Mapping[Key, Any], *, ttl: TTL = ..., flags: int = ..., ack_all: bool = ...,
        timeout: Optional[float] = ..., partial: Literal[False] = ...,
    ) -> Dict[Key, int]: ...

    @overload
    async def set_many(
        self, values: Mapping[Key, Any], *, ttl: TTL = ..., flags: int = ..., ack_all: bool = ...,
        timeout: Optional[float] = ..., partial: Literal[True],
    ) -> Results: ...

    async def set_many(
        self, values: Mapping[Key, Any], *, ttl: TTL = None, flags: int = 0, ack_all: bool = False,
        timeout: Optional[float] = None, partial: bool = False,
    ) -> Union[Dict[Key, int], Results]:
        """Store values. Return their versions."""
        limit = self._limit(timeout)
        batch, parts = self._set_calls(values, ttl, flags, ack_all, self._link.max_value)
        for calls in parts:
            await self._store_some(batch, calls, limit)
        return batch.result(partial)  # type: ignore[no-any-return]

    async def _store_some(self, batch: Batch, calls: List[Tuple[bytes, Call]], timeout: float) -> None:
        answers = await asyncio.gather(*[self._call(call, timeout) for _, call in calls], return_exceptions=True)
        for (key, _), answer in zip(calls, answers):
            try:
                if isinstance(answer, BaseException):
                    raise answer
                batch.done(key, _calls.stored(answer[0]))
            except CacheError as e:
                batch.failed([key], e)

    @overload
    async def delete_many(
        self, keys: Iterable[Key], *, soft: bool = ..., cache_only: bool = ...,
        replica_lag: Optional[float] = ..., ack_all: bool = ..., timeout: Optional[float] = ...,
        partial: Literal[False] = ...,
    ) -> Dict[Key, bool]: ...

    @overload
    async def delete_many(
        self, keys: Iterable[Key], *, soft: bool = ..., cache_only: bool = ...,
        replica_lag: Optional[float] = ..., ack_all: bool = ..., timeout: Optional[float] = ...,
        partial: Literal[True],
    ) -> Results: ...

    async def delete_many(
        self, keys: Iterable[Key], *, soft: bool = False, cache_only: bool = False,
        replica_lag: Optional[float] = None, ack_all: bool = False, timeout: Optional[float] = None,
        partial: bool = False,
    ) -> Union[Dict[Key, bool], Results]:
        """Remove the values of keys from the whole cluster. Return which of them had one."""
        limit = self._limit(timeout)
        batch = Batch(keys)
        for some in batch.pages(_wire.MAX_KEYS):
            call = _calls.delete(self._ns, some, soft, cache_only, replica_lag, ack_all)
            try:
                answer, _ = await self._call(call, limit)
                for key, had in zip(some, _calls.deleted(answer, len(some))):
                    if isinstance(had, CacheError):
                        batch.failed([key], had)
                    else:
                        batch.done(key, had)
            except CacheError as e:
                batch.failed(some, e)
        return batch.result(partial)  # type: ignore[no-any-return]
