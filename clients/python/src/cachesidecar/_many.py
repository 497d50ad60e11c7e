"""The calls of several keys of a sync client."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Literal, Mapping, Optional, Tuple, Union, overload

from . import _answers, _calls, _wire
from ._batch import Batch, Results
from ._calls import Call, Key
from ._clock import monotonic
from ._item import Item
from ._settings import TTL
from ._view import ThreadView
from .errors import CacheError


class ManyView(ThreadView):
    """A namespace of a client: its calls of several keys.

    Each key has a result or an error of its own. If a key has failed, a call raises an error of the class of the first
    failure: its attribute values has the results of the other keys, and errors the errors, by key. With partial=True
    the call returns both and raises neither. A key or a value of a wrong type is a TypeError, and nothing is sent.
    """

    @overload
    def get_many(
        self, keys: Iterable[Key], *, fresh: bool = ..., stale_ok: bool = ..., no_load: bool = ...,
        timeout: Optional[float] = ..., partial: Literal[False] = ...,
    ) -> Dict[Key, Any]: ...

    @overload
    def get_many(
        self, keys: Iterable[Key], *, fresh: bool = ..., stale_ok: bool = ..., no_load: bool = ...,
        timeout: Optional[float] = ..., partial: Literal[True],
    ) -> Results: ...

    def get_many(
        self, keys: Iterable[Key], *, fresh: bool = False, stale_ok: bool = False, no_load: bool = False,
        timeout: Optional[float] = None, partial: bool = False,
    ) -> Union[Dict[Key, Any], Results]:
        """Return the values of the keys that have one."""
        batch = self._ask(keys, fresh, stale_ok, no_load, timeout)
        batch.decode()
        return batch.result(partial)  # type: ignore[no-any-return]

    @overload
    def get_items(
        self, keys: Iterable[Key], *, fresh: bool = ..., stale_ok: bool = ..., no_load: bool = ...,
        timeout: Optional[float] = ..., partial: Literal[False] = ...,
    ) -> Dict[Key, Item]: ...

    @overload
    def get_items(
        self, keys: Iterable[Key], *, fresh: bool = ..., stale_ok: bool = ..., no_load: bool = ...,
        timeout: Optional[float] = ..., partial: Literal[True],
    ) -> Results: ...

    def get_items(
        self, keys: Iterable[Key], *, fresh: bool = False, stale_ok: bool = False, no_load: bool = False,
        timeout: Optional[float] = None, partial: bool = False,
    ) -> Union[Dict[Key, Item], Results]:
        """Return the values of the keys that have one, as they are stored, and what is known about them."""
        return (self._ask(keys, fresh, stale_ok, no_load, timeout)).result(partial)  # type: ignore[no-any-return]

    def _ask(
        self, keys: Iterable[Key], fresh: bool, stale_ok: bool, no_load: bool, timeout: Optional[float]
    ) -> Batch:
        limit = self._limit(timeout)
        batch, left = self._given(keys, fresh)
        while left:
            some, left = left[: _wire.MAX_KEYS], left[_wire.MAX_KEYS :]
            asked = self._asked()
            try:
                call = _calls.mget(self._ns, some, self._options(fresh, stale_ok, no_load))
                answer, conn = self._call(call, limit)
                left[:0] = self._take(batch, some, answer, conn, asked)
            except CacheError as e:
                batch.failed(some, e)
        return batch

    @overload
    def set_many(
        self, values: Mapping[Key, Any], *, ttl: TTL = ..., flags: int = ..., ack_all: bool = ...,
        timeout: Optional[float] = ..., partial: Literal[False] = ...,
    ) -> Dict[Key, int]: ...

    @overload
    def set_many(
        self, values: Mapping[Key, Any], *, ttl: TTL = ..., flags: int = ..., ack_all: bool = ...,
        timeout: Optional[float] = ..., partial: Literal[True],
    ) -> Results: ...

    def set_many(
        self, values: Mapping[Key, Any], *, ttl: TTL = None, flags: int = 0, ack_all: bool = False,
        timeout: Optional[float] = None, partial: bool = False,
    ) -> Union[Dict[Key, int], Results]:
        """Store values. Return their versions."""
        limit = self._limit(timeout)
        batch, parts = self._set_calls(values, ttl, flags, ack_all, self._link.max_value)
        for calls in parts:
            self._store_some(batch, calls, limit)
        return batch.result(partial)  # type: ignore[no-any-return]

    def _store_some(self, batch: Batch, calls: List[Tuple[bytes, Call]], timeout: float) -> None:
        began = monotonic()
        for _, call in calls:
            self._before(call)
        outcomes: List[Union[bytes, Exception]] = []
        failed: BaseException = CacheError("not sent")
        try:
            outcomes, conn = self._link.do_many([call for _, call in calls], timeout)
        except BaseException as e:
            failed = e
            if not isinstance(e, CacheError):
                raise
            batch.failed([key for key, _ in calls], e)
        finally:
            for _, call in calls[len(outcomes) :]:
                self._failed(call, failed, began, timeout)
        for (key, call), outcome in zip(calls, outcomes):
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                answer = _answers.decode(outcome, conn)
            except CacheError as e:
                self._failed(call, e, began, timeout)
                batch.failed([key], e)
                continue
            self._answered(call, answer, began)
            try:
                batch.done(key, _calls.stored(answer))
            except CacheError as e:
                batch.failed([key], e)

    @overload
    def delete_many(
        self, keys: Iterable[Key], *, soft: bool = ..., cache_only: bool = ...,
        replica_lag: Optional[float] = ..., ack_all: bool = ..., timeout: Optional[float] = ...,
        partial: Literal[False] = ...,
    ) -> Dict[Key, bool]: ...

    @overload
    def delete_many(
        self, keys: Iterable[Key], *, soft: bool = ..., cache_only: bool = ...,
        replica_lag: Optional[float] = ..., ack_all: bool = ..., timeout: Optional[float] = ...,
        partial: Literal[True],
    ) -> Results: ...

    def delete_many(
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
                answer, _ = self._call(call, limit)
                for key, had in zip(some, _calls.deleted(answer, len(some))):
                    if isinstance(had, CacheError):
                        batch.failed([key], had)
                    else:
                        batch.done(key, had)
            except CacheError as e:
                batch.failed(some, e)
        return batch.result(partial)  # type: ignore[no-any-return]
