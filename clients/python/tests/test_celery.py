"""Celery's prefork: its processes inherit a client that is connected."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
from raw import HERE, LIMIT, Sidecar, missing


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[Sidecar]:
    one = Sidecar(tmp_path)
    yield one
    one.stop()


def test_prefork(sidecar: Sidecar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("celery") is None:
        missing("install Celery (Debian: celery) to test its prefork")
    environment = {
        "CACHESIDECAR_SOCKET": sidecar.path, "CELERY_FOLDER": str(tmp_path), "C_FORCE_ROOT": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE.parent / "src"), str(HERE)]),
    }  # fmt: skip
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--pool", "prefork", "--concurrency", "2",
             "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"],
            cwd=tmp_path, stdout=log, stderr=log, env={**os.environ, **environment, "CELERY_WORKER": "1"},
        )  # fmt: skip
    try:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        module: Any = importlib.import_module("celery_app")
        asked = [module.square.delay(i % 5) for i in range(40)]
        answers = [a.get(timeout=2 * LIMIT, interval=0.05) for a in asked]
        assert [(n, before) for n, before, _ in answers] == [((i % 5) ** 2, "fork") for i in range(40)]
        assert 1 <= len({pid for _, _, pid in answers}) <= 2 and worker.pid not in {pid for _, _, pid in answers}
        assert sorted((tmp_path / "loads").read_text().split()) == ["0", "1", "2", "3", "4"]
    except BaseException:
        print((tmp_path / "worker.log").read_text())
        raise
    finally:
        worker.terminate()
        worker.wait(LIMIT)
