"""Calls of several keys of which some fail: the other ones have their results."""

from __future__ import annotations

import asyncio
import builtins
import pickle
from typing import Any, Callable, Dict, Iterator, List, Mapping, Tuple, Type, Union

import pytest

import cachesidecar as cs
from cachesidecar import AsyncClient, Client, _wire, errors
from scripted import Peer, Server

Key = Union[str, bytes]
Failed = Mapping[Key, cs.CacheError]


class Two:
    """A blocking and an asynchronous client with the same calls."""

    def __init__(self, kind: str, path: str, **settings: Any) -> None:
        self.settings: Dict[str, Any] = {"shared_memory": False, **settings}
        self.kind, self.path = kind, path

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if self.kind == "sync":
                with Client(self.path, **self.settings) as client:
                    return getattr(client, name)(*args, **options)

            async def run() -> Any:
                async with AsyncClient(self.path, **self.settings) as client:
                    return await getattr(client, name)(*args, **options)

            return asyncio.run(run())

        return call


#: What the server answers for keys that begin so; other keys have themselves as their values.
STATUS = {"bad": 16, "large": 17, "down": 23, "late": 21, "lost": 19, "busy": 22}


class Keys:
    """Answers each key as its name says, and keeps the keys of each request."""

    def __init__(self) -> None:
        self.asked: List[List[str]] = []

    def serve(self, peer: Peer, n: int) -> None:
        while True:
            request = peer.request()
            if not request:
                return
            keys = request[4] if isinstance(request[4], list) else [request[4]]
            names = [key.decode() for key in keys]
            self.asked.append(names)
            if "cut" in names:
                return
            items = [self.item(request[1], name) for name in names]
            if "short" in names:
                items = items[1:]
            if "all" in names:
                peer.answer(request[0], 18, "no right")
            elif request[1] in (_wire.MGET, _wire.DELETE):
                peer.answer(request[0], 0, items)
            else:
                peer.answer(request[0], *items[0])

    def item(self, op: int, name: str) -> List[Any]:
        for start, status in STATUS.items():
            if name.startswith(start):
                return [status, f"{start} here"]
        if name == "absent":
            return [1, 0]
        if name == "again" and sum("again" in names for names in self.asked) == 1:
            return [22, "the answer has become too long"]
        if name == "torn":
            return [0]
        if op == _wire.MGET:
            return [0, name.encode(), 3 if name == "strange" else 16, 7, 0, 2, 0]
        return [0, 7]


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def server(keys: Keys) -> Iterator[Server]:
    with Server(keys.serve) as one:
        yield one


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, server: Server) -> Two:
    return Two(request.param, server.path)


def kinds(failed: Failed) -> Dict[Key, str]:
    return {key: error.kind for key, error in failed.items()}


LONG = "x" * 1025
ASKED: List[Key] = ["down1", "a", "", "bad", "absent", b"b", LONG, "strange", "late", "a", "\ud800", "lost"]
FAILED = {
    "": "bad_request", LONG: "bad_request", "\ud800": "bad_request", "down1": "origin", "bad": "bad_request",
    "late": "timeout", "lost": "unavailable", "strange": "encoding",
}


def test_reads(client: Two, keys: Keys) -> None:
    values, failed = client.get_many(ASKED, partial=True)
    assert values == {"a": "a", b"b": "b"} and kinds(failed) == FAILED
    with pytest.raises(cs.BadRequestError, match=r"key '': a key of 0 bytes.*of 8 keys that have failed") as caught:
        client.get_many(ASKED)
    assert caught.value.values == values and kinds(caught.value.errors) == FAILED
    items, failed = client.get_items(ASKED, partial=True)
    assert {key: item.data for key, item in items.items()} == {"a": b"a", b"b": b"b", "strange": b"strange"}
    assert kinds(failed) == {key: kind for key, kind in FAILED.items() if key != "strange"}
    assert keys.asked == [["down1", "a", "bad", "absent", "b", "strange", "late", "lost"]] * 3  # one request, once


@pytest.mark.parametrize("name, kind", [
    ("bad", cs.BadRequestError), ("down", cs.OriginError), ("late", builtins.TimeoutError), ("lost", ConnectionError),
    ("strange", cs.EncodingError),
])
def test_the_error_is_of_the_class_of_the_first_failure(client: Two, name: str, kind: Type[Exception]) -> None:
    with pytest.raises(kind, match=f"^key {name!r}: ") as caught:
        client.get_many(["a", name, "b"])
    error = caught.value
    assert isinstance(error, cs.CacheError) and error.values == {"a": "a", "b": "b"}
    assert list(error.errors) == [name] and error.__cause__ is error.errors[name]
    assert error.errors[name].values == {} == error.errors[name].errors
    copy = pickle.loads(pickle.dumps(error))  # as a pool of processes does
    assert type(copy) is type(error) and copy.values == error.values and str(copy) == str(error)


def test_nothing_fails(client: Two) -> None:
    assert client.get_many(["a", "absent"]) == {"a": "a"}
    assert client.get_many(["a", "absent"], partial=True) == ({"a": "a"}, {}) == cs.Results({"a": "a"}, {})
    assert client.get_many([], partial=True) == ({}, {}) and client.get_many([]) == {}
    assert client.set_many({"a": 1}, partial=True) == ({"a": 7}, {})
    assert client.delete_many(["a", "absent", "a", b"a"]) == {"a": True, "absent": False, b"a": True}
    assert client.get_many(["a", b"a"]) == {"a": "a", b"a": "a"}  # one key, as both spell it


def test_busy_keys_are_asked_for_again_while_that_is_of_use(client: Two, keys: Keys) -> None:
    assert client.get_many(["a", "again", "b"]) == {"a": "a", "b": "b", "again": "again"}
    values, failed = client.get_many(["a", "busy1", "busy2", "b"], partial=True)
    assert values == {"a": "a", "b": "b"} and kinds(failed) == {"busy1": "busy", "busy2": "busy"}
    assert keys.asked == [["a", "again", "b"], ["again"], ["a", "busy1", "busy2", "b"], ["busy1", "busy2"]]


MANY = [f"k{i}" for i in range(3 * 1024)]


@pytest.mark.parametrize("name, kind", [("cut", "timeout"), ("short", "internal"), ("all", "unauthorized")])
def test_one_of_several_requests_fails(client: Two, name: str, kind: str) -> None:
    """The keys of the other ones have their results, also of those that come after it."""
    some = [*MANY[:1500], name, *MANY[1500:]]
    lost = some[1024:2048]
    values, failed = client.get_many(some, partial=True)
    assert values == {key: key for key in some if key not in lost}
    assert kinds(failed) == {key: kind for key in lost}
    values, failed = client.delete_many(some, partial=True)
    assert list(values) == [key for key in some if key not in lost] and kinds(failed) == {key: kind for key in lost}


def test_an_answer_that_cannot_be_read_takes_no_result_away(client: Two) -> None:
    values, failed = client.get_many(["a", "torn", "b"], partial=True)
    assert values == {"a": "a"} and kinds(failed) == {"torn": "internal", "b": "internal"}


def test_no_sidecar(client: Two, server: Server, tmp_path: Any) -> None:
    nobody = Two(client.kind, str(tmp_path / "none"))
    for call in (nobody.get_many, nobody.get_items, nobody.delete_many):
        assert kinds(call(["a", "b"], partial=True).errors) == {"a": "unavailable", "b": "unavailable"}
        with pytest.raises(cs.ConnectionError, match="cannot connect") as caught:
            call(["a", "b"])
        assert set(caught.value.errors) == {"a", "b"} and caught.value.values == {}
    assert kinds(nobody.set_many({"a": 1}, partial=True).errors) == {"a": "unavailable"}


def test_writes(client: Two, keys: Keys) -> None:
    stored = {"a": 1, "down": 2, "": 3, "long": b"x" * 2000, "late": 4, "b": 5, "huge": 1 << 64}
    wanted = {"": "bad_request", "huge": "too_large", "down": "origin", "late": "timeout"}
    values, failed = client.set_many(stored, partial=True)
    assert values == {"a": 7, "b": 7, "long": 7} and kinds(failed) == wanted
    with pytest.raises(cs.BadRequestError) as caught:
        client.set_many(stored)
    assert caught.value.values == values and kinds(caught.value.errors) == wanted
    some = ["a", "down", "", "absent", "bad", "b"]
    wanted = {"": "bad_request", "down": "origin", "bad": "bad_request"}
    values, failed = client.delete_many(some, partial=True)
    assert values == {"a": True, "absent": False, "b": True} and kinds(failed) == wanted
    with pytest.raises(cs.BadRequestError) as caught:
        client.delete_many(some)
    assert caught.value.values == values and kinds(caught.value.errors) == wanted
    with pytest.raises(cs.OriginError, match="^down here$"):
        client.delete("down")


def test_writes_in_several_requests(client: Two) -> None:
    some = {**{key: 1 for key in MANY[:300]}, "cut": 1, **{key: 1 for key in MANY[300:600]}}
    values, failed = client.set_many(some, partial=True)
    assert set(values) | set(failed) == set(some) and not set(values) & set(failed)
    assert failed["cut"].kind == "timeout" and set(kinds(failed).values()) == {"timeout"}
    assert {*MANY[:256], *MANY[520:600]} <= set(values)


def test_what_is_wrong_with_the_call_is_no_key_s_error(client: Two, keys: Keys) -> None:
    wrong: List[Tuple[type, Callable[[], Any]]] = [
        (TypeError, lambda: client.get_many(["a", None], partial=True)),
        (TypeError, lambda: client.set_many({"a": 1, 2: 1}, partial=True)),
        (TypeError, lambda: client.set_many({"a": 1, "b": object()}, partial=True)),
        (TypeError, lambda: client.delete_many(["a", 1], partial=True)),
        (cs.BadRequestError, lambda: client.get_many(["a"], timeout=-1, partial=True)),
        (cs.BadRequestError, lambda: client.set_many({"a": 1}, ttl=-1, partial=True)),
        (cs.BadRequestError, lambda: client.set_many({"a": 1}, flags=1, partial=True)),
        (cs.BadRequestError, lambda: client.set_many({"a": 1}, timeout=-1, partial=True)),
        (cs.BadRequestError, lambda: client.delete_many(["a"], replica_lag=-1, partial=True)),
    ]
    for kind, call in wrong:
        with pytest.raises(kind):
            call()
    assert keys.asked == []


def test_what_is_near_by_is_returned(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(server.path, shared_memory=False) as client:
        def near_by(key: bytes) -> Any:
            flags = 3 if key == b"odd" else 16
            return cs.Item(key, b"kept", flags, 1, None, "near", 0.0, False) if key < b"x" else None

        monkeypatch.setattr(client, "_near_by", near_by)
        values, failed = client.get_many(["a", "odd", "x", "xabsent", "\ud800"], partial=True)
        assert values == {"a": "kept", "x": "x", "xabsent": "xabsent"}
        assert kinds(failed) == {"\ud800": "bad_request", "odd": "encoding"}


def test_all_errors_have_both() -> None:
    """Those of one key have nothing."""
    for name in cs.__all__:
        kind = getattr(cs, name)
        if isinstance(kind, type) and issubclass(kind, cs.CacheError):
            assert kind("text").values == {} == kind("text").errors
    assert errors.of_several({}, {"k": cs.BusyError("b")}).kind == "busy"
