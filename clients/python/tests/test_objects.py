"""What a program may do with a client beside calling it: pickle, copy and print it."""

from __future__ import annotations

import asyncio
import copy
import functools
import multiprocessing
import pickle
import re
from typing import Any, Callable, List

import pytest

from cachesidecar import AsyncClient, Client
from cachesidecar._settings import Settings

SECRET = "a-secret-token"
CLIENTS: List[Callable[[], Any]] = [
    Client, AsyncClient, lambda: Client(near_cache=1 << 20), lambda: AsyncClient(near_cache=1 << 20),
    lambda: Client().in_namespace("users"), lambda: AsyncClient().in_namespace("users"),
]


class Sub(Client):
    pass


def spawn(client: Any) -> None:
    process = multiprocessing.get_context("spawn").Process(target=print, args=(client,))
    process.start()


@pytest.mark.parametrize("make", [*CLIENTS, Sub])
@pytest.mark.parametrize("what", [
    pickle.dumps, copy.copy, copy.deepcopy, lambda client: pickle.dumps({"cache": [client]}),
    lambda client: pickle.dumps(client.get), lambda client: pickle.dumps(functools.partial(print, client), 0),
    lambda client: copy.deepcopy({"cache": client}), spawn,
])
def test_a_client_says_why_it_cannot_be_pickled(make: Callable[[], Any], what: Callable[[Any], Any]) -> None:
    client = make()
    name = type(client).__name__
    with pytest.raises(TypeError, match=f"^{name} cannot be pickled or copied: .*Make a client in each process"):
        what(client)
    if isinstance(client, Client):
        client.close()
    else:
        asyncio.run(client.close())


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_no_token_in_what_is_printed(kind: Any) -> None:
    client = kind("/nowhere/s.sock", token=SECRET, near_cache=1 << 20)
    shown = [repr(client), f"{client}", f"{vars(client)}", f"{vars(client._state)}", str(client.near_stats())]
    assert [text for text in shown if SECRET in text] == []
    settings = Settings(token=SECRET)
    assert SECRET not in repr(settings) and settings.secret() == SECRET and "token_file" in repr(settings)
    try:
        client.get("k") if kind is Client else asyncio.run(client.get("k"))
    except Exception as e:
        assert not re.search(SECRET, f"{e!r} {e} {vars(e)}")
    client.close() if kind is Client else asyncio.run(client.close())
