"""A namespace of an asyncio client: how it makes a call."""

from __future__ import annotations

import asyncio
from typing import Any, List, Optional, Tuple

from . import _answers, _calls, _wire
from ._alink import Greeted
from ._astate import State
from ._calls import Call
from ._clock import monotonic
from ._core import View
from ._settings import seconds


class TaskView(View):
    """A namespace of a client: the parts of its calls that wait in a task."""

    def _open(self, state: State, namespace: Optional[str]) -> None:
        self._view(state, namespace)
        self._state = state
        self._link = state.link

    async def _call(
        self, call: Call, timeout: Optional[float] = None, on: Optional[Greeted] = None, began: float = 0.0,
        attempt: int = 0,
    ) -> Tuple[List[Any], Greeted]:
        loop = asyncio.get_running_loop()
        if loop is not self._state.loop:
            self._state.bind(loop)
        limit = self._timeout if timeout is None else seconds(timeout)
        began = began or monotonic()
        self._before(call)
        try:
            late = self._late_token if call.op == _wire.LEASE else None
            message, conn = await self._link.do(call, limit, on, late, began, attempt)
            answer = _answers.decode(message, conn)
            self._answered(call, answer, began)
        except BaseException as e:
            self._failed(call, e, began, limit)
            raise
        return answer, conn

    async def _lease(self, k: bytes, options: int) -> Tuple[List[Any], Greeted]:
        asked = self._asked()
        if asked is not None:
            options |= _wire.ATTEST
        answer, conn = await self._call(_calls.lease(self._ns, k, options))
        self._leased(k, asked, answer, conn)
        return answer, conn
