"""The cache backend, held to what Django documents, and to Django's own tests of its backends."""

import datetime
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List

import pytest
from raw import HERE, LIMIT, Sidecar, missing, wait_for

import cachesidecar
from cachesidecar import errors

try:
    import django
    from django.conf import settings
    from django.core.cache.backends.base import InvalidCacheKey
    from django.core.exceptions import ImproperlyConfigured
    from django.utils.safestring import SafeString, mark_safe

    from cachesidecar import django as backend
except ImportError:
    missing("install Django (Debian: python3-django) to test the cache backend")

pytestmark = pytest.mark.filterwarnings("ignore::django.core.cache.backends.base.CacheKeyWarning")


@pytest.fixture(scope="module", autouse=True)
def configured() -> None:
    if not settings.configured:
        settings.configure(CACHES={}, USE_TZ=True)
        django.setup()


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    one = Sidecar(tmp_path_factory.mktemp("s"))
    yield one
    one.stop()


@pytest.fixture(autouse=True)
def clients() -> Iterator[None]:
    yield
    for shared in backend._clients.values():
        shared.client.close()
    backend._clients.clear()


@pytest.fixture
def make(sidecar: Sidecar) -> Callable[..., Any]:
    def new(location: str = sidecar.path, options: Dict[str, Any] = {}, **params: Any) -> Any:
        return backend.CacheBackend(location, {"OPTIONS": options, **params})

    return new


@pytest.fixture
def cache(make: Callable[..., Any]) -> Any:
    one = make()
    one.clear()
    return one


def test_simple(cache: Any) -> None:
    cache.set("key", "value")
    assert cache.get("key") == "value"
    assert cache.get("none") is None and cache.get("none", "bang!") == "bang!"
    cache.set("none", None)
    assert cache.get("none", "bang!") is None  # a stored None is a value
    assert cache.has_key("none") and "key" in cache and "absent" not in cache


def test_add(cache: Any) -> None:
    assert cache.add("a", "value") is True
    assert cache.add("a", "new") is False and cache.get("a") == "value"
    assert cache.add("a", "new", timeout=0) is False and cache.add("b", "new", timeout=0) is True
    assert cache.get("b") is None


def test_many(cache: Any) -> None:
    assert cache.set_many({"a": "a", "b": 2, "c": None}) == []
    assert cache.get_many(["a", "c", "d"]) == {"a": "a", "c": None}
    assert cache.get_many(iter(["a", "b"])) == {"a": "a", "b": 2}
    assert cache.get_many([]) == {}
    assert cache.delete_many(["a", "d"]) is None and cache.delete_many([]) is None
    assert cache.get("a") is None and cache.get("b") == 2
    assert list(cache.get_many([b"b".decode(), "b"])) == ["b"]
    cache.set_many({"e": 1}, timeout=0)
    assert cache.get("e") is None


def test_many_are_one_call(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are stored as they are, and those that are pickles."""
    calls: List[str] = []
    cache = make(options={"pickle": True, "shared_memory": False, "on_call": lambda op, *_: calls.append(op)})
    client, together = cache._client, []
    set_many = client.set_many

    def counted(some: Any, **options: Any) -> Any:
        together.append(len(some))
        return set_many(some, **options)

    monkeypatch.setattr(client, "set_many", counted)
    values = {"bytes": b"b", "text": "t", "set": {1}, "other": b"c"}
    cache.set_many(values)
    assert together == [3, 1] and calls == ["set"] * 4  # the hook hears of each key
    calls.clear()
    assert cache.get_many([*values, "absent"]) == values
    assert calls == ["get_many"]


def test_delete(cache: Any) -> None:
    cache.set("a", 1)
    assert cache.delete("a") is True and cache.delete("a") is False and cache.get("a") is None


def test_clear(cache: Any, make: Callable[..., Any]) -> None:
    other = make(options={"namespace": "other"})
    cache.set("a", 1), other.set("a", 1)
    cache.clear()
    assert cache.get("a") is None and other.get("a") == 1


def test_incr(cache: Any) -> None:
    cache.set("n", 41)
    assert cache.incr("n") == 42 and cache.get("n") == 42
    assert cache.incr("n", 10) == 52 and cache.incr("n", -10) == 42
    assert cache.decr("n") == 41 and cache.decr("n", 10) == 31
    for call in (cache.incr, cache.decr, cache.incr_version, cache.decr_version):
        with pytest.raises(ValueError, match="not found"):
            call("absent")
    for number, delta, want in ((1.5, 1, 2.5), (True, 1, 2), (7, 0.5, 7.5), (1 << 62, 1 << 61, 3 << 61)):
        cache.set("n", number, timeout=1000)
        assert cache.incr("n", delta) == want == cache.get("n")
        assert 900 < cache._client.get_item(":1:n").ttl <= 1000
    for value in ("x", "5", None, [1], b"5"):
        cache.set("text", value)
        with pytest.raises(TypeError):
            cache.incr("text")
        assert cache.get("text") == value


def test_incr_keeps_the_timeout(cache: Any) -> None:
    cache.set("n", 1, timeout=1000)
    cache.incr("n")
    assert 900 < cache._client.get_item(":1:n").ttl <= 1000


def test_timeouts(cache: Any, make: Callable[..., Any]) -> None:
    def ttl(one: Any, key: str) -> Any:
        return one._client.get_item(one.make_key(key)).ttl

    for timeout, low, high in ((1000, 990, 1000), (0.9, 0, 0.9), (10**9, 31_000_000, 31_536_000)):
        cache.set("a", 1, timeout=timeout)
        assert low < ttl(cache, "a") <= high
        cache.set("b", 1)
        assert cache.touch("b", timeout) is True and low < ttl(cache, "b") <= high
        cache.delete("c")
        assert cache.add("c", 1, timeout) and low < ttl(cache, "c") <= high
    cache.set("a", 1)
    assert 290 < ttl(cache, "a") <= 300  # Django's default
    cache.set("a", 1, timeout=None)
    assert ttl(cache, "a") is None
    assert cache.touch("a") and 290 < ttl(cache, "a") <= 300
    assert cache.touch("a", None) and ttl(cache, "a") is None
    for gone in (0, -1):
        cache.set("a", 1)
        assert cache.set("a", 2, timeout=gone) is None and cache.get("a") is None
        cache.set("a", 1)
        assert cache.touch("a", gone) is True and cache.get("a") is None
        assert cache.touch("a", gone) is False and cache.touch("a") is False
    for given, want in ((7, (6, 7)), (None, None), ("7", (6, 7)), ("x", (290, 300))):
        other = make(TIMEOUT=given)
        other.set("default", 1)
        left = ttl(other, "default")
        assert left is None if want is None else want[0] < left <= want[1], given


def test_timeouts_leave_the_origin(tmp_path: Path, make: Callable[..., Any]) -> None:
    """A timeout that is over ends a value of the cache. What the namespace writes through to keeps its own."""
    rows, config = tmp_path / "rows", tmp_path / "config.yaml"
    rows.mkdir()
    scripts = {"command": 'exec cat "$0/$1"', "store": 'exec cat > "$0/$1"', "delete": 'exec rm -f "$0/$1"'}
    commands = {name: ["sh", "-c", script, str(rows)] for name, script in scripts.items()}
    namespace = {"write_through": True, "origin": {"exec": commands}}
    config.write_text(json.dumps({"namespaces": {"django": namespace}}))  # JSON is YAML too
    one = Sidecar(tmp_path, "--config", str(config))
    try:
        cache = make(one.path)
        row = rows / cache.make_key("a")
        calls: Dict[str, Callable[[], Any]] = {
            "set": lambda: cache.set("a", b"two", timeout=0),
            "set_many": lambda: cache.set_many({"a": b"two"}, timeout=-1),
            "touch, 0": lambda: cache.touch("a", 0),
            "touch, -1": lambda: cache.touch("a", -1),
        }
        for ends in calls.values():
            cache.set("a", b"one")
            assert row.read_bytes() == b"one"
            assert ends() in (None, [], True)
            assert cache._client.get_item(cache.make_key("a"), no_load=True) is None
            assert row.read_bytes() == b"one" and cache.get("a") == b"one"
        assert cache.delete("a") is True and not row.exists()
    finally:
        one.stop()


def test_expiration(cache: Any) -> None:
    cache.set("a", 1, timeout=0.05)
    wait_for(lambda: cache.get("a") is None, "the end of a value")
    assert cache.add("a", 2) and cache.get("a") == 2


def test_values(cache: Any) -> None:
    now = datetime.datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=datetime.timezone.utc)
    for value in (
        "text", "ümlaut ↑", b"bytes", b"", "", 0, -1, 2**63 - 1, True, False, None, 1.5, [1, "a", [b"b"]],
        {"a": {"b": [1, None]}, 1: 2}, now,
    ):  # fmt: skip
        cache.set("value", value)
        got = cache.get("value")
        assert got == value and type(got) is type(value), value
        assert cache.get_many(["value"]) == {"value": value}
    cache.set("value", (1, (2, 3)))
    assert cache.get("value") == [1, [2, 3]]


class Thing:
    def __init__(self, n: int) -> None:
        self.n = n


def test_other_types_are_refused(cache: Any) -> None:
    for value in (Thing(1), {1, 2}, [Thing(1)], datetime.datetime(2024, 1, 1), datetime.date(2024, 1, 1), object()):
        for call in (cache.set, cache.add):
            with pytest.raises(TypeError, match='set "pickle": True in OPTIONS'):
                call("value", value)
    assert cache.get("value") is None


def test_pickle(cache: Any, make: Callable[..., Any]) -> None:
    pickled = make(options={"pickle": True})
    for value in ("a", 7, None, 1.5, True, b"x", (1, (2,)), {1, 2}, 2**70, [1], datetime.date(2024, 1, 1)):
        pickled.set("value", value)
        got = pickled.get("value")
        assert got == value and type(got) is type(value)
        assert pickled.get_many(["value"]) == {"value": value}
    pickled.set("thing", Thing(7))
    assert pickled.get("thing").n == 7
    assert pickled.get_or_set("new", lambda: Thing(8)).n == pickled.get("new").n == 8
    pickled.set("n", 1)
    assert pickled.incr("n") == 2 and cache.get("n") == 2
    reads: List[Callable[[], Any]] = [lambda: cache.get("thing"), lambda: cache.get_many(["thing"])]
    for read in reads:
        with pytest.raises(errors.EncodingError, match='"pickle": True'):
            read()  # nothing is ever unpickled without the setting
    assert cache.has_key("thing")


def test_versions_and_prefix(cache: Any, make: Callable[..., Any]) -> None:
    cache.set("a", 1)
    assert cache.get("a", version=1) == 1 and cache.get("a", version=2) is None
    cache.set("a", 2, version=2)
    assert cache.get("a") == 1 and cache.get("a", version=2) == 2
    v2 = make(VERSION=2)
    assert v2.get("a") == 2 and v2.get_many(["a"]) == {"a": 2} and v2.get_many(["a"], version=1) == {"a": 1}
    assert cache.add("a", 3, version=2) is False and cache.add("a", 3, version=3) is True
    assert cache.has_key("a", version=3) and not cache.has_key("a", version=4)
    assert cache.incr("a", version=2) == 3 and cache.decr("a", version=2) == 2
    assert cache.delete("a", version=1) and cache.get("a", version=2) == 2
    cache.set_many({"m": 1}, version=2), cache.delete_many(["m"], version=1)
    assert cache.get("m", version=2) == 1
    assert cache.incr_version("m", version=2) == 3
    assert cache.get("m", version=2) is None and cache.get("m", version=3) == 1
    assert cache.decr_version("m", version=3) == 2 and cache.get("m", version=2) == 1
    prefixed = make(KEY_PREFIX="p")
    assert prefixed.get("a", version=2) is None
    prefixed.set("a", "p")
    assert prefixed.get("a") == "p" and cache._client.get("p:1:a") == "p"
    custom = make(KEY_FUNCTION=lambda key, prefix, version: f"{key}!{version}")
    custom.set("a", "c")
    assert cache._client.get("a!1") == "c" and custom.get("a") == "c"


def test_keys(cache: Any, make: Callable[..., Any]) -> None:
    for key in ("key with spaces", "ключ", "x" * 1000, 7):
        cache.set(key, "value")
        assert cache.get(key) == "value" and cache.get_many([key]) == {key: "value"}
    whole = make(KEY_FUNCTION=lambda key, prefix, version: key)
    for key in ("x" * 1025, "ü" * 513, ""):
        calls: List[Callable[[], Any]] = [
            lambda: whole.get(key), lambda: whole.set(key, 1), lambda: whole.get_many([key])
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(InvalidCacheKey, match="1 to 1024"):
                call()


def test_get_or_set(cache: Any) -> None:
    calls: List[int] = []

    def load() -> str:
        calls.append(1)
        return "loaded"

    assert cache.get_or_set("a", load, 500) == "loaded" == cache.get_or_set("a", load) and len(calls) == 1
    assert 490 < cache._client.get_item(":1:a").ttl <= 500
    assert cache.get_or_set("b", "value") == "value" == cache.get("b")
    assert cache.get_or_set("c", lambda: None) is None and cache.get("c", "missing") is None
    assert cache.get_or_set("a", "two", version=2) == "two" and cache.get("a") == "loaded"
    assert cache.get_or_set("d", "now", timeout=0) == "now" and cache.get("d") is None
    with pytest.raises(ZeroDivisionError):
        cache.get_or_set("e", lambda: 1 // 0)
    with pytest.raises(TypeError):
        cache.get_or_set("f")


def test_one_load_for_many_threads(make: Callable[..., Any]) -> None:
    make().clear()
    calls: List[int] = []
    begun, go = threading.Event(), threading.Event()

    def load() -> int:
        calls.append(1)
        begun.set()
        assert go.wait(LIMIT)
        return 7

    results: List[int] = []
    threads = [threading.Thread(target=lambda: results.append(make().get_or_set("a", load))) for _ in range(8)]
    for t in threads:
        t.start()
    assert begun.wait(LIMIT)
    go.set()
    for t in threads:
        t.join()
    assert results == [7] * 8 and len(calls) == 1


def test_pickles_are_loaded_once_too(make: Callable[..., Any]) -> None:
    """All callers get what is stored, and only who unpickles gets a pickle."""
    cache, reader = make(options={"pickle": True}), make()
    cache.clear()
    calls: List[int] = []
    results: List[Any] = []

    def load() -> Any:
        calls.append(1)
        time.sleep(0.2)
        return {len(calls)}

    threads = [threading.Thread(target=lambda: results.append(cache.get_or_set("a", load))) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [{1}] * 8 == [cache.get("a")] * 8 and calls == [1]
    reads: List[Callable[[], Any]] = [lambda: reader.get("a"), lambda: reader.get_or_set("a", load)]
    for read in reads:
        with pytest.raises(errors.EncodingError, match="is a pickle"):
            read()


def test_an_outage(make: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sidecar = Sidecar(tmp_path)
    cache = make(sidecar.path)
    cache.set("a", 1)
    sidecar.stop()
    with caplog.at_level(logging.WARNING, "cachesidecar.django"):
        for _ in range(3):
            assert cache.get("a", 5) == 5 and cache.get_many(["a"]) == {}
            assert not cache.has_key("a") and "a" not in cache
        assert cache.get_or_set("a", lambda: 6) == 6 and cache.get_or_set("a", lambda: 6, timeout=0) == 6
        assert [r.getMessage()[:24] for r in caplog.records] == ["the cache does not answe"]
        for _ in range(2):
            cache.set("a", 1)  # it was missed in this request
        assert cache.add("c", 1) is False and cache.add("django.contrib.sessions.cachec", 1) is True
        assert cache.touch("a") is False and cache.set("c", 2) is None
        cache.set("views.decorators.cache.cache_page..GET.1.2", "page")
        assert cache.get_many(["x", "y"]) == {} and cache.set_many({"x": 1, "y": 2}) == ["x", "y"]
        assert "new" not in cache and cache.set("new", 1) is None and cache.add("new", 1, timeout=0) is True
        cache.close()  # the end of the request
        writes: List[Callable[[Any], Any]] = [
            lambda c: c.set("a", 1), lambda c: c.set_many({"x": 1}), lambda c: c.delete("a"), lambda c: c.incr("a"),
            lambda c: c.clear(), lambda c: c.delete_many(["a"]), lambda c: c.touch("a"), lambda c: c.add("d", 1),
        ]  # fmt: skip
        for policy, harmless in ((None, (6, 7)), ("log", (0, 1, 6, 7)), ("raise", ())):
            one = make(sidecar.path, {"writes": policy} if policy else {})
            for i, write in enumerate(writes):
                if i in harmless:
                    write(one)
                    continue
                with pytest.raises(cachesidecar.CacheError):
                    write(one)
        strict = make(sidecar.path, {"fail_open": False})
        reads: List[Callable[[], Any]] = [
            lambda: strict.get("a"), lambda: strict.get_many(["a"]), lambda: strict.get_or_set("a", 1)
        ]  # fmt: skip
        for read in reads:
            with pytest.raises(cachesidecar.CacheError):
                read()
        sidecar.start()
        wait_for(lambda: cache.has_key("b") or not cache._shared.down, "the end of the outage")
        cache.set("a", 2)
        assert cache.get("a") == 2
        assert [r.getMessage() for r in caplog.records][1:] == ["the cache answers again"]
    sidecar.stop()


def test_settings(make: Callable[..., Any]) -> None:
    with pytest.raises(ImproperlyConfigured, match="writes"):
        make(options={"writes": "never"})
    for options in ({"nonsense": 1}, {"timeout": -1}):
        with pytest.raises(ImproperlyConfigured, match="OPTIONS of the cache"):
            make(options=options)
    assert make()._client is make()._client and make(options={"namespace": "x"})._client is not make()._client
    make().close()
    assert make().get("after close") is None


def test_safe_text_stays_safe(cache: Any, make: Callable[..., Any]) -> None:
    """It is HTML, as template fragments are. Other clients read it as a text."""
    pickled = make(options={"pickle": True})
    for one in (cache, pickled):
        stores: List[Callable[[Any], Any]] = [
            lambda v: one.set("t", v), lambda v: one.set_many({"t": v}), lambda v: one.get_or_set("t", v)
        ]  # fmt: skip
        for store in stores:
            one.delete("t")
            store(mark_safe("<b>"))
            assert one.get("t") == "<b>" and type(one.get("t")) is SafeString
        one.set("t", "<b>")
        assert type(one.get("t")) is str
    cache.set("t", mark_safe("<b>"))
    assert type(cache._client.get(":1:t")) is str


PAGES = """
import sys
import django
from django.conf import settings
backend = {"BACKEND": "cachesidecar.django.CacheBackend", "LOCATION": sys.argv[1]}
settings.configure(
    CACHES={"default": backend, "pages": {**backend, "OPTIONS": {"pickle": True, "namespace": "pages"}}},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["django.contrib.sessions"], SESSION_ENGINE="django.contrib.sessions.backends.cached_db",
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"], SECRET_KEY="test", ROOT_URLCONF=__name__,
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}], ALLOWED_HOSTS=["*"],
)
django.setup()
from django.core.management import call_command
from django.http import HttpResponse
from django.template import engines
from django.test import Client
from django.urls import path
from django.views.decorators.cache import cache_page
from django.views.decorators.vary import vary_on_headers

call_command("migrate", verbosity=0)
template = engines["django"].from_string(
    "{% load cache %}{% cache 60 greeting %}<b>{{ name }}</b>{% endcache %}"
)
names = iter(range(1000))

def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(request.session["visits"])

urlpatterns = [
    path("page", cache_page(60, cache="pages")(vary_on_headers("Accept")(lambda request: HttpResponse(next(names))))),
    path("fragment", lambda request: HttpResponse(template.render({"name": next(names)}))),
    path("visits", visits),
]

browser = Client(raise_request_exception=False)
for line in sys.stdin:
    for visitor in (browser, Client(raise_request_exception=False)):
        answers = [visitor.get(page) for page in ["/page", "/fragment", "/visits"] * 2]
        print(*[f"{a.status_code}:{a.content.decode()}" for a in answers], flush=True)
"""


def test_pages_without_the_sidecar(tmp_path: Path) -> None:
    """Pages, fragments of templates and sessions that the database has, too, are made without the cache."""
    sidecar = Sidecar(tmp_path)
    site = subprocess.Popen(
        [sys.executable, "-c", PAGES, sidecar.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(HERE.parent / "src")},
    )  # fmt: skip

    def visit() -> List[List[str]]:
        assert site.stdin is not None and site.stdout is not None
        site.stdin.write("\n")
        site.stdin.flush()
        return [site.stdout.readline().split() for _ in range(2)]

    try:
        kept = ["200:0", "200:<b>1</b>"]
        assert visit() == [[*kept, "200:1", *kept, "200:2"], [*kept, "200:1", *kept, "200:2"]]
        sidecar.stop()
        assert visit() == [
            ["200:5", "200:<b>6</b>", "200:3", "200:7", "200:<b>8</b>", "200:4"],
            ["200:9", "200:<b>10</b>", "200:1", "200:11", "200:<b>12</b>", "200:2"],
        ]
        sidecar.start()
        assert all(answer.startswith("200:") for answers in visit() for answer in answers)
    finally:
        assert site.stdin is not None
        site.stdin.close()
        site.wait(LIMIT)
        sidecar.stop()


PROJECT = """
import os, sys, threading, time
import django
from django.conf import settings
settings.configure(
    CACHES={"default": {"BACKEND": "cachesidecar.django.CacheBackend", "LOCATION": sys.argv[1], "KEY_PREFIX": "site"}},
    SECRET_KEY="test", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], DEBUG=True,
    SESSION_ENGINE="django.contrib.sessions.backends.cache",
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
)
django.setup()
from django.core.cache import cache, caches
from django.http import JsonResponse
from django.test import Client
from django.urls import path

loads, lock = [], threading.Lock()

def view(request):
    def load():
        with lock:
            loads.append(1)
        time.sleep(0.05)
        return {"name": "Ada"}
    request.session["visits"] = request.session.get("visits", 0) + 1
    user = cache.get_or_set("user:42", load, 60)
    return JsonResponse({**user, "visits": request.session["visits"], "own": id(caches["default"])})

urlpatterns = [path("", view)]

def visit(results):
    browser = Client()
    for i in range(20):
        answer = browser.get("/").json()
        assert answer["name"] == "Ada" and answer["visits"] == i + 1, answer
        results.add(answer["own"])

cache.set("before", "fork")  # the parent is connected: gunicorn --preload
children = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        results = [set(), set()]
        try:
            threads = [threading.Thread(target=visit, args=[r]) for r in results]
            [t.start() for t in threads]
            [t.join() for t in threads]
            assert cache.get("before") == "fork"
            assert all(len(r) == 1 for r in results) and results[0] != results[1]  # a backend for each thread
            os.write(1, b"loads %d\\n" % len(loads))  # at once: the other child writes too
            os._exit(0)
        finally:
            os._exit(1)
    children.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
assert cache.get("user:42") == {"name": "Ada"} and cache.get("before") == "fork"
"""


def test_a_project_with_threads_after_fork(sidecar: Sidecar) -> None:
    """Sessions and a cached value, in two processes with two threads each."""
    done = subprocess.run(
        [sys.executable, "-c", PROJECT, sidecar.path], capture_output=True, text=True, timeout=3 * LIMIT,
        env={**os.environ, "PYTHONPATH": str(HERE.parent / "src")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["loads 0", "loads 1"]
