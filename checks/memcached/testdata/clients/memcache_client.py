"""Does what python-memcached (the module memcache) can do, against the server HOST:PORT."""

import sys
import time

import memcache

failures = []


def same(what, got, want):
    if got != want:
        failures.append(f"{what}: {got!r}, want {want!r}")


def raises(what, error, call, *args, **kwargs):
    try:
        failures.append(f"{what}: {call(*args, **kwargs)!r}, want {error.__name__}")
    except error:
        pass


c = memcache.Client([sys.argv[1]], cache_cas=True, debug=False)
c.flush_all()
same("get of nothing", c.get("a"), None)
same("replace of nothing", c.replace("a", "x"), 0)
same("append to nothing", c.append("a", "x"), 0)
same("delete of nothing", c.delete("a"), 1)  # it takes NOT_FOUND for done
same("touch of nothing", c.touch("a", 10), 0)
same("incr of nothing", c.incr("a"), None)
same("set", c.set("a", "one", time=100), 1)
same("add of what is there", c.add("a", "x"), 0)
same("add", c.add("b", "two"), 1)
same("replace", c.replace("b", "three"), 1)
same("append", c.append("b", ">"), 1)
same("prepend", c.prepend("b", "<"), 1)
same("get", c.get("b"), "<three>")
same("touch", c.touch("b", 100), 1)
same("delete", (c.delete("b"), c.get("b")), (1, None))
for value in (b"\r\nEND\r\n\0\xff", b"", "ü", 7, -7, 1 << 40, True, 1.5, None, [1, "two"], {"a": {"b": 1}}):
    c.set("value", value)
    same(f"get of {type(value).__name__}", c.get("value"), value)
c.set("long", "abc " * 2000, min_compress_len=100)
same("a long value", c.get("long"), "abc " * 2000)

c.set("n", 5)
same("incr", c.incr("n", 3), 8)
same("decr", c.decr("n", 20), 0)
same("get of a number", c.get("n"), 0)
values = {f"many-{i}": f"v{i}" for i in range(300)}
same("set_multi", c.set_multi(values, time=100), [])
same("get_multi", c.get_multi([*values, "none"]), values)
same("delete_multi", (c.delete_multi(["many-1", "many-2"]), c.get("many-2")), (1, None))
same("gets", c.gets("a"), "one")
same("cas", c.cas("a", "four"), True)
other = memcache.Client([sys.argv[1]])
same("gets", c.gets("a"), "four")
other.set("a", "another's")
same("cas behind another", c.cas("a", "five"), 0)
same("get behind cas", c.get("a"), "another's")

c.set("short", "x", time=1)
same("until a point in time", (c.set("point", "x", time=int(time.time()) + 100), c.get("point")), (1, "x"))
same("in the past", (c.set("past", "x", time=-1), c.get("past")), (1, None))
for _ in range(100):
    if c.get("short") is None:
        break
    time.sleep(0.1)
same("what has expired", c.get("short"), None)
stats = c.get_stats()[0][1]
same("stats", [name for name in ("cmd_get", "bytes", "version") if name not in stats], [])
raises("a key with a space", memcache.Client.MemcachedKeyCharacterError, c.get, "a b")
c.disconnect_all()
same("behind disconnect_all", c.get("a"), "another's")
same("flush_all", (c.flush_all(), c.get("a")), (None, None))
sys.exit("\n".join(failures) or 0)
