"""Measures Python clients against each other; benchmarks/README.md says what and how.

Inputs are the arguments, with the sockets of servers that run. Output is one JSON object a line: first the
versions, then the calls and seconds of each side of each case. A value that differs from the one that was set ends
the program with an error, and so does a client that is not the one that was asked for.
"""

import argparse
import asyncio
import functools
import json
import platform
import sys
import threading
from time import perf_counter

import cachesidecar
import hiredis
import pymemcache
import redis
import redis.asyncio
import redis.asyncio.connection as aioconnection
from pymemcache.client.base import Client as Memcache
from pymemcache.client.base import PooledClient as MemcachePool

OURS, NEAR, SHARED = "sidecar, socket", "sidecar, near cache", "sidecar, shared memory"
REDIS, REDIS_SLOW, REDIS_ONE = "redis-py, hiredis", "redis-py, its own parser", "redis-py, hiredis, one connection"
MEMCACHED, LRU = "pymemcache", "functools.lru_cache"
WARM_PASSES = 20  # over all keys, until a cache in the process has them
BLOCK = 16  # calls between two looks at the clock


class Data:
    """The keys, their values, and an order in which they are asked for."""

    def __init__(self, a):
        self.keys = [f"{i:0{a.key_size}d}" for i in range(a.entries)]
        self.values = [f"{i:x}.".ljust(a.value_size, "v").encode()[: a.value_size] for i in range(a.entries)]
        step = next(s for s in range(int(a.entries * 0.618) | 1, 2 * a.entries) if gcd(s, a.entries) == 1)
        order = [i * step % a.entries for i in range(a.entries)]
        self.keys, self.values = [self.keys[i] for i in order], [self.values[i] for i in order]
        self.pairs = list(zip(self.keys, self.values))

    def check(self, side, got, first=0):
        """Compares what a side answered for the keys from the first on."""
        if got != self.values[first : first + len(got)]:
            n = next(n for n, value in enumerate(got) if value != self.values[first + n])
            sys.exit(f"{side}: {self.keys[first + n]} is {got[n]!r}, want {self.values[first + n]!r}")


def gcd(a, b):
    return a if b == 0 else gcd(b, a % b)


class Side:
    """One side of a case; run(seconds) returns how many calls it made, and in which time."""

    def __init__(self, name, run):
        self.name, self.run, self.calls, self.seconds = name, run, 0, 0.0

    def turn(self, a):
        self.run(a.warm_up / 1000)
        calls, seconds = self.run(a.turn / 1000)
        self.calls, self.seconds = self.calls + calls, self.seconds + seconds


def play(a, case, sides):
    """Lets the sides take turns, each time beginning with another one, and prints what they did."""
    for turn in range(a.turns):
        for i in range(len(sides)):
            sides[(a.round + turn + i) % len(sides)].turn(a)
    for s in sides:
        print(json.dumps({"case": case, "side": s.name, "calls": s.calls, "seconds": s.seconds}), flush=True)


def gets(data, name, get):
    """GETs by one thread. The comparing of values is not in the time."""

    def run(seconds):
        calls, took = 0, 0.0
        while took < seconds or calls == 0:
            began = perf_counter()
            got = [get(key) for key in data.keys]
            took += perf_counter() - began
            calls += len(got)
            data.check(name, got)
        return calls, took

    return Side(name, run)


def sets(data, name, put, get):
    """SETs by one thread. The reading back is not in the time."""

    def run(seconds):
        calls, took = 0, 0.0
        while took < seconds or calls == 0:
            began = perf_counter()
            for key, value in data.pairs:
                put(key, value)
            took += perf_counter() - began
            calls += len(data.pairs)
        data.check(name, [get(key) for key in data.keys[:BLOCK]])
        return calls, took

    return Side(name, run)


def threaded(data, name, get, count):
    """GETs by some threads, each in another place of the order."""
    blocks = len(data.keys) // BLOCK

    def run(seconds):
        calls, failed, start = [0] * count, [], threading.Barrier(count + 1)

        def thread(n):
            try:
                start.wait()
                end, at = perf_counter() + seconds, n * blocks // count
                while calls[n] == 0 or perf_counter() < end:
                    first = at % blocks * BLOCK
                    data.check(name, [get(key) for key in data.keys[first : first + BLOCK]], first)
                    calls[n], at = calls[n] + BLOCK, at + 1
            except BaseException as e:  # told by the main thread
                failed.append(e)
                start.abort()

        threads = [threading.Thread(target=thread, args=(n,)) for n in range(count)]
        for t in threads:
            t.start()
        start.wait()
        began = perf_counter()
        for t in threads:
            t.join()
        took = perf_counter() - began
        if failed:
            raise failed[0]
        return sum(calls), took

    return Side(name, run)


def tasked(loop, data, name, get, count):
    """GETs by some tasks of one event loop, each in another place of the order."""
    blocks = len(data.keys) // BLOCK

    async def task(n, end):
        calls, at = 0, n * blocks // count
        while calls == 0 or perf_counter() < end:
            first = at % blocks * BLOCK
            data.check(name, [await get(key) for key in data.keys[first : first + BLOCK]], first)
            calls, at = calls + BLOCK, at + 1
        return calls

    async def all_tasks(seconds):
        began = perf_counter()
        calls = await asyncio.gather(*(task(n, began + seconds) for n in range(count)))
        return sum(calls), perf_counter() - began

    return Side(name, lambda seconds: loop.run_until_complete(all_tasks(seconds)))


def redis_client(a, parser=None, **more):
    if parser is None:
        return redis.Redis(unix_socket_path=a.redis, **more)
    pool = redis.ConnectionPool(connection_class=redis.UnixDomainSocketConnection, path=a.redis, parser_class=parser)
    return redis.Redis(connection_pool=pool, **more)


def one_thread(a, data):
    ours = cachesidecar.Client(a.sidecar, namespace="socket", shared_memory=False)
    slow = redis_client(a, redis.connection.PythonParser)
    fast, single = redis_client(a), redis_client(a, single_connection_client=True)
    memcached = Memcache(a.memcached, default_noreply=False)
    clients = [(OURS, ours), (REDIS, fast), (REDIS_SLOW, slow), (REDIS_ONE, single), (MEMCACHED, memcached)]
    for _, c in clients:
        for key, value in data.pairs:
            c.set(key, value)
    play(a, "get", [gets(data, name, c.get) for name, c in clients])
    play(a, "set", [sets(data, name, c.set, c.get) for name, c in clients])
    for _, c in clients:
        c.close()


def threads(a, data):
    ours = cachesidecar.Client(a.sidecar, namespace="socket", shared_memory=False)
    memcached = MemcachePool(a.memcached, max_pool_size=a.threads, default_noreply=False)
    clients = [(OURS, ours), (REDIS, redis_client(a)), (MEMCACHED, memcached)]
    play(a, "threads", [threaded(data, name, c.get, a.threads) for name, c in clients])
    for _, c in clients:
        c.close()


def tasks(a, data):
    loop = asyncio.new_event_loop()
    ours = cachesidecar.AsyncClient(a.sidecar, namespace="socket", shared_memory=False)

    def peer(parser):
        pool = redis.asyncio.ConnectionPool(
            connection_class=aioconnection.UnixDomainSocketConnection, path=a.redis, parser_class=parser,
            max_connections=a.tasks,
        )
        return redis.asyncio.Redis(connection_pool=pool)

    fast, slow = peer(aioconnection.HiredisParser), peer(aioconnection.PythonParser)
    single = redis.asyncio.Redis(unix_socket_path=a.redis, single_connection_client=True)
    clients = [(OURS, ours), (REDIS, fast), (REDIS_SLOW, slow), (REDIS_ONE, single)]
    play(a, "tasks", [tasked(loop, data, name, c.get, a.tasks) for name, c in clients])
    loop.run_until_complete(ours.close())
    for c in (fast, slow, single):
        loop.run_until_complete(c.close())
        loop.run_until_complete(c.connection_pool.disconnect())
    loop.close()


def hits(a, data):
    """Hits in the process, beside a cache that knows nothing of others, and a GET of redis."""
    values = dict(data.pairs)
    lru = functools.lru_cache(maxsize=None)(values.__getitem__)
    peer = redis_client(a)
    shared = cachesidecar.Client(a.sidecar, namespace="shared")
    near = cachesidecar.Client(a.sidecar, namespace="near", shared_memory=False, near_cache=64 << 20)
    clients = [(SHARED, shared)] if a.pure else [(SHARED, shared), (NEAR, near)]
    for _, c in [*clients, (REDIS, peer)]:
        for key, value in data.pairs:
            c.set(key, value)
    for name, c in clients:
        for _ in range(WARM_PASSES):
            data.check(name, [c.get(key) for key in data.keys])
    used = "cachesidecar._native" in sys.modules
    if used == a.pure:
        sys.exit(f"the extension of the client is {'' if used else 'not '}used: build it with setup.py build_ext")
    sides = [(name, c.get) for name, c in clients] + [(LRU, lru), (REDIS, peer.get)]
    play(a, "hits-pure" if a.pure else "hits", [gets(data, name, get) for name, get in sides])
    for c in (shared, near, peer):
        c.close()


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("sidecar", "redis", "memcached"):
        p.add_argument("--" + name, required=True, help="path of the server's socket")
    for name in ("entries", "key-size", "value-size", "turns", "turn", "warm-up", "round", "tasks", "threads"):
        p.add_argument("--" + name, type=int, required=True)
    p.add_argument("--pure", action="store_true", help="hits in the shared memory alone, without the extension")
    a = p.parse_args()
    versions = {"python": platform.python_version(), "redis-py": redis.__version__, "hiredis": hiredis.__version__}
    versions["pymemcache"] = pymemcache.__version__
    print(json.dumps({"versions": versions}), flush=True)
    data = Data(a)
    for part in [hits] if a.pure else [one_thread, threads, tasks, hits]:
        part(a, data)


if __name__ == "__main__":
    main()
