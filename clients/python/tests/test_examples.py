"""The examples, run for real: two processes, a PostgreSQL server, a sidecar."""

import importlib.util
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Iterator, List, Tuple

import pytest
from raw import HERE, LIMIT, Sidecar, missing, wait_for

EXAMPLES = HERE.parent / "examples"

# The command for a port, and what must be installed.
SERVERS = {
    "flask_app": (
        ["-m", "gunicorn", "--preload", "--workers", "2", "--threads", "8", "--bind", "127.0.0.1:{}", "flask_app:app"],
        ["flask", "gunicorn", "psycopg2"],
    ),
    "fastapi_app": (
        ["-m", "uvicorn", "--workers", "2", "--host", "127.0.0.1", "--port", "{}", "fastapi_app:app"],
        ["fastapi", "uvicorn", "asyncpg", "psycopg2"],
    ),
}


@pytest.fixture(scope="module")
def postgres() -> Iterator[Any]:
    if importlib.util.find_spec("psycopg2") is None:
        missing("install psycopg2 (Debian: python3-psycopg2) to test the examples")
    from postgres import Postgres

    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # sockets have short paths
    server = Postgres(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def free_port() -> int:
    """Find a port that the system gives to no connection."""
    while True:
        port = random.randrange(10_000, 20_000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


class App:
    """An example that serves."""

    def __init__(self, name: str, folder: Path, postgres: Any) -> None:
        command, modules = SERVERS[name]
        for module in modules:
            if importlib.util.find_spec(module) is None:
                missing(f"install {module} (Debian: python3-{module}) to test the example {name}")
        self.sidecar = Sidecar(folder)
        self.log = folder / "app.log"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/users/"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *(part.format(port) for part in command)], cwd=EXAMPLES, stdout=log, stderr=log,
                env={
                    **os.environ, "PYTHONPATH": str(HERE.parent / "src"), "DATABASE_URL": postgres.url,
                    "CACHESIDECAR_SOCKET": self.sidecar.path, "PYTHONDONTWRITEBYTECODE": "1",
                },
            )  # fmt: skip
        wait_for(lambda: self.serves() or self.process.poll() is not None, "the app")
        assert self.process.poll() is None, self.log.read_text()

    def serves(self) -> bool:
        try:
            return self.get("0")[0] == 404
        except OSError:
            return False

    def get(self, id: str) -> Tuple[int, Any]:
        try:
            with urllib.request.urlopen(self.url + id, timeout=LIMIT) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as e:
            return e.code, None

    def put(self, id: str, name: str) -> None:
        # As a form and in the query: each app takes its own.
        url = f"{self.url}{id}?name={name}"
        request = urllib.request.Request(url, data=f"name={name}".encode(), method="PUT")
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:
            assert answer.status == 200

    def loads(self, id: str) -> int:
        return self.log.read_text().count(f"loading user {id}\n")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(LIMIT)
        self.sidecar.stop()


@pytest.fixture(params=sorted(SERVERS))
def app(request: pytest.FixtureRequest, tmp_path: Path, postgres: Any) -> Iterator[App]:
    with postgres.connect() as db, db.cursor() as c:
        c.execute("DROP TABLE IF EXISTS users; CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL)")
        c.execute("INSERT INTO users VALUES (42, 'Ada'), (43, 'Grace')")
    one = App(request.param, tmp_path, postgres)
    yield one
    one.stop()


def together(n: int, call: Callable[[], Any]) -> Tuple[List[threading.Thread], List[Any]]:
    results: List[Any] = []
    threads = [threading.Thread(target=lambda: results.append(call())) for _ in range(n)]
    for t in threads:
        t.start()
    return threads, results


def test_example(app: App, postgres: Any) -> None:
    db = postgres.connect()
    with db.cursor() as c:
        c.execute("LOCK TABLE users")  # loads wait until the transaction is over
        threads, answers = together(12, lambda: app.get("42"))
        wait_for(lambda: app.loads("42"), "a load")
        db.commit()
    db.close()
    for t in threads:
        t.join()
    assert answers == [(200, {"id": 42, "name": "Ada"})] * 12
    assert app.loads("42") == 1
    for i in range(20):
        app.put("42", f"Ada-{i}")
        for _ in range(4):  # both processes answer
            assert app.get("42") == (200, {"id": 42, "name": f"Ada-{i}"})
    assert app.loads("42") == 21
    assert app.get("44") == app.get("44") == (404, None) and app.loads("44") == 1
    app.put("44", "Barbara")
    assert app.get("44") == (200, {"id": 44, "name": "Barbara"})


def test_example_without_the_sidecar(app: App) -> None:
    assert app.get("43")[0] == 200
    app.sidecar.stop()
    assert app.get("43") == (200, {"id": 43, "name": "Grace"})  # loaded by each for itself
    app.sidecar.start()
    loads = app.loads("43")
    wait_for(lambda: app.get("43")[0] == 200 and app.loads("43") - loads == 0 or loads_again(app), "the cache again")


def loads_again(app: App) -> bool:
    """Tells whether twenty reads in a row are without a load."""
    before = app.loads("43")
    return all(app.get("43")[0] == 200 for _ in range(20)) and app.loads("43") == before


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_size(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 80
