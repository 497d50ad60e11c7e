"""Tests' own way to a sidecar: requests of the protocol on a socket, without the client."""

import importlib
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, List, NoReturn, Optional

import msgpack
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]  # of the repository; not there in an sdist
LIMIT = 20.0  # s, for which a test waits for what must happen

HELLO, GET, SET, DELETE, SHARED = 1, 3, 5, 6, 24
OK, MISS = 0, 1
SHARE = 8192


def missing(what: str) -> NoReturn:
    """Skips the test; in CI nothing may be missing."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


def extension() -> Any:
    """Returns the module that is written in C."""
    try:
        return importlib.import_module("cachesidecar._native")
    except ImportError:
        missing("build the extension: /usr/bin/python3 setup.py build_ext --inplace (Debian: gcc python3-dev)")


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Returns the first result of condition that is true."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.002)
    pytest.fail(f"{what}: not within {LIMIT} s")


class Connection:
    """A connection that has said HELLO."""

    def __init__(self, path: str, **hello: object) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(LIMIT)
        self.socket.connect(path)
        self.id = 0
        self.welcome = self.call(HELLO, dict(hello, v=[1], client="test"))[2]

    def send(self, *requests: List[object]) -> None:
        bodies = [msgpack.packb(r) for r in requests]
        self.socket.sendall(b"".join(struct.pack(">I", len(b)) + b for b in bodies))

    def receive(self) -> Any:
        return msgpack.unpackb(self.take(int.from_bytes(self.take(4), "big")))

    def take(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            more = self.socket.recv(n - len(data))
            if not more:
                raise EOFError("the sidecar has closed the connection")
            data += more
        return data

    def call(self, op: int, *arguments: object) -> Any:
        self.id += 1
        self.send([self.id, op, 0, *arguments])
        return self.receive()

    def set(self, namespace: str, key: bytes, value: bytes) -> None:
        assert self.call(SET, namespace, key, value)[1] == OK

    def share(self, namespace: str, key: bytes) -> None:
        """Asks for a value as often as it takes to be in the shared memory."""
        for _ in range(2):
            self.call(GET, namespace, key, SHARE)

    def close(self) -> None:
        self.socket.close()


def program() -> str:
    """Returns the path of the sidecar's program; it is built once."""
    told = os.environ.get("CACHESIDECAR_PROGRAM")
    if told:
        return told
    go = shutil.which("go")
    if go is None or not (ROOT / "go.mod").exists():
        missing("set CACHESIDECAR_PROGRAM to the program cachesidecar, or install Go, to test with a real sidecar")
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"cachesidecar-tests-{os.getuid()}" / "cachesidecar"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    subprocess.run([go, "build", "-o", str(path), "./cmd/cachesidecar"], cwd=ROOT, check=True)
    os.environ["CACHESIDECAR_PROGRAM"] = str(path)
    return str(path)


class Sidecar:
    """A sidecar of a test's own, in a folder."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.path = str(folder / "s.sock")
        self.log = folder / "sidecar.log"
        self.command = [program(), "run", "--socket", self.path, "--http", "off", "--bind", "127.0.0.1:0", *flags]
        self.process: Optional["subprocess.Popen[bytes]"] = None
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        wait_for(self.serves, f"a sidecar at {self.path}; its log: {self.log.read_text()}")

    def serves(self) -> bool:
        try:
            Connection(self.path).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(LIMIT)
        self.process = None


def python(script: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs a script with this Python, and the package of this folder."""
    path = os.pathsep.join([str(HERE.parent / "src"), str(HERE)])
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True, text=True, timeout=3 * LIMIT,
    )  # fmt: skip
