"""Does everything that pymemcache can do, against the server HOST:PORT."""

import sys
import time

from pymemcache import exceptions
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.client.retrying import RetryingClient

HOST, PORT = sys.argv[1].rsplit(":", 1)
SERVER = (HOST, int(PORT))
failures = []


def same(what, got, want):
    if got != want:
        failures.append(f"{what}: {got!r}, want {want!r}")


def raises(what, error, call, *args, **kwargs):
    try:
        failures.append(f"{what}: {call(*args, **kwargs)!r}, want {error.__name__}")
    except error:
        pass


def single(c, noreply):
    """Every command about one key. Without replies, the next get shows what a command did."""
    p = f"single-{noreply}-"

    def says(got, want):
        return True if noreply else got == want

    same("get of nothing", c.get(p + "a"), None)
    same("get of nothing, default", c.get(p + "a", "d"), "d")
    same("gets of nothing", c.gets(p + "a"), (None, None))
    same("set", c.set(p + "a", b"one", noreply=noreply), True)
    same("get", c.get(p + "a"), b"one")
    same("add", says(c.add(p + "a", b"two", noreply=noreply), False), True)
    same("get behind add", c.get(p + "a"), b"one")
    same("add of another", c.add(p + "b", b"two", noreply=noreply), True)
    same("replace", c.replace(p + "b", b"three", noreply=noreply), True)
    same("replace of nothing", says(c.replace(p + "c", b"x", noreply=noreply), False), True)
    same("append", c.append(p + "b", b">", noreply=noreply), True)
    same("prepend", c.prepend(p + "b", b"<", noreply=noreply), True)
    same("get behind these", c.get(p + "b"), b"<three>")
    same("append to nothing", says(c.append(p + "c", b"x", noreply=noreply), False), True)
    same("prepend to nothing", says(c.prepend(p + "c", b"x", noreply=noreply), False), True)
    same("nothing came of it", c.get(p + "c"), None)

    value, cas = c.gets(p + "a")
    same("gets", value, b"one")
    same("cas", c.cas(p + "a", b"four", cas, noreply=noreply), True)
    same("cas again", says(c.cas(p + "a", b"five", cas, noreply=noreply), False), True)
    same("get behind cas", c.get(p + "a"), b"four")
    same("cas of nothing", says(c.cas(p + "c", b"x", cas, noreply=noreply), None), True)

    c.set(p + "n", b"10")
    same("incr", says(c.incr(p + "n", 5, noreply=noreply), 15), True)
    same("get behind incr", c.get(p + "n"), b"15")
    same("decr", says(c.decr(p + "n", 6, noreply=noreply), 9), True)
    same("get behind decr", c.get(p + "n").strip(), b"9")
    same("incr of nothing", c.incr(p + "c", 1, noreply=noreply), None)
    same("decr of nothing", c.decr(p + "c", 1, noreply=noreply), None)

    same("touch", c.touch(p + "a", 100, noreply=noreply), True)
    same("touch of nothing", says(c.touch(p + "c", 100, noreply=noreply), False), True)
    same("delete", c.delete(p + "a", noreply=noreply), True)
    same("get behind delete", c.get(p + "a"), None)
    same("delete of nothing", says(c.delete(p + "a", noreply=noreply), False), True)


def many(c, noreply):
    """Commands about many keys."""
    values = {f"many-{i}": b"v%d" % i for i in range(300)}
    same("set_many", c.set_many(values, noreply=noreply), [])
    same("get_many", c.get_many(list(values) + ["many-x"]), values)
    same("get_multi", c.get_multi(["many-1", "many-x"]), {"many-1": b"v1"})
    got = c.gets_many(["many-1", "many-2", "many-x"])
    same("gets_many", {k: v for k, (v, _) in got.items()}, {"many-1": b"v1", "many-2": b"v2"})
    same("cas by gets_many", c.cas("many-1", b"w", got["many-1"][1]), True)
    same("delete_many", c.delete_many(["many-1", "many-2", "many-x"], noreply=noreply), True)
    same("get_many behind it", c.get_many(["many-1", "many-2", "many-3"]), {"many-3": b"v3"})


def values(c):
    """Any bytes, any flags, any size, and times."""
    blob = bytes(range(256)) * 100 + b"\r\nEND\r\nSTORED\r\n"
    same("set of any bytes", c.set("blob", blob, noreply=False), True)
    same("get of any bytes", c.get("blob"), blob)
    same("set of none", c.set("empty", b"", noreply=False), True)
    same("get of none", c.get("empty"), b"")
    same("a long key", (c.set("k" * 250, b"x", noreply=False), c.get("k" * 250)), (True, b"x"))
    raises("a value too large", exceptions.MemcacheServerError, c.set, "large", b"x" * (2 << 20), noreply=False)
    same("the connection behind it", c.get("empty"), b"")
    c.set("text", b"hi")
    raises("incr of text", exceptions.MemcacheClientError, c.incr, "text", 1)
    c.set("short", b"x", expire=1)
    c.set("touched", b"x", expire=1)
    c.touch("touched", 100, noreply=False)
    c.set("past", b"x")
    same("touch to the past", (c.touch("past", -1, noreply=False), c.get("past")), (True, None))
    same("a point in time", (c.set("point", b"x", expire=int(time.time()) + 100), c.get("point")), (True, b"x"))
    time.sleep(2.1)
    same("what has expired", c.get_many(["short", "touched"]), {"touched": b"x"})


def server(c):
    """Commands about the server."""
    if not c.version():
        failures.append("there is no version")
    stats = c.stats()
    for name in (b"pid", b"uptime", b"version", b"curr_items", b"cmd_get", b"get_hits", b"get_misses", b"bytes"):
        if name not in stats:
            failures.append(f"stats lacks {name!r}: {sorted(stats)}")
    c.set("flushed", b"x")
    same("flush_all later", c.flush_all(delay=100, noreply=False), True)
    same("get before it", c.get("flushed"), b"x")
    same("flush_all", c.flush_all(noreply=False), True)
    same("get behind it", c.get("flushed"), None)
    c.set("flushed", b"x")
    c.flush_all(noreply=True)
    same("get behind a flush without a reply", c.get("flushed"), None)
    raises("a key with a space", exceptions.MemcacheIllegalInputError, c.get, "a b")
    c.quit()
    same("get behind quit", c.get("flushed"), None)  # on another connection
    c.close()


plain = Client(SERVER, default_noreply=False, timeout=10)
clients = [
    plain,
    Client(SERVER, timeout=10, no_delay=True),
    PooledClient(SERVER, default_noreply=False, timeout=10),
    HashClient([SERVER], default_noreply=False, timeout=10),
    RetryingClient(Client(SERVER, default_noreply=False, timeout=10), attempts=2),
]
for client in clients:
    for noreply in (False, True):
        client.flush_all(noreply=False) if not isinstance(client, HashClient) else plain.flush_all()
        single(client, noreply)
        many(client, noreply)
values(plain)
server(plain)
sys.exit("\n".join(failures) or 0)
