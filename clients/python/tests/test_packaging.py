"""Wheel and sdist, built and installed without a network, and a read with what was installed."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Iterator, List

import pytest
from raw import HERE, LIMIT, ROOT, Connection, Sidecar, missing

PROJECT = HERE.parent
NO_NETWORK = ["--no-index", "--no-deps", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, so that a build leaves nothing in it."""
    if not (ROOT / "go.mod").exists():
        missing("the packages are built from a checkout of the repository")
    copy = tmp_path_factory.mktemp("source") / "python"
    left = shutil.ignore_patterns("build", "dist", "*.egg-info", "*.so", "__pycache__", ".*_cache")
    shutil.copytree(PROJECT, copy, ignore=left)  # links become files
    return copy


def run(*command: str, cwd: Path, **environment: str) -> str:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CACHESIDECAR_PURE")}
    done = subprocess.run(
        command, cwd=cwd, env={**env, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=6 * LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def build(source: Path, out: Path, what: str, **environment: str) -> str:
    output = run(sys.executable, "setup.py", what, "--dist-dir", str(out), cwd=source, **environment)
    shutil.rmtree(source / "build", ignore_errors=True)
    return output


READ = """
import sys, cachesidecar
from cachesidecar._region import PureRegion, open_region
from cachesidecar import _hash
assert "site-packages" in cachesidecar.__file__, cachesidecar.__file__
pure = _hash.xxh3_64 is _hash.xxh3_64_pure
with cachesidecar.Client(sys.argv[1], namespace="users") as c:
    print(c.get("packaged"), "pure" if pure else "native")
"""


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    one = Sidecar(tmp_path_factory.mktemp("s"))
    c = Connection(one.path)
    c.set("users", b"packaged", b"value")
    c.close()
    yield one
    one.stop()


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    run(sys.executable, "-m", "venv", "--system-site-packages", str(tmp_path / "venv"), cwd=tmp_path)
    return tmp_path / "venv" / "bin"


def install_and_read(venv: Path, sidecar: Sidecar, *what: str, **environment: str) -> str:
    run(str(venv / "pip"), "install", *NO_NETWORK, *what, cwd=venv, **environment)
    return run(str(venv / "python"), "-c", READ, sidecar.path, cwd=venv, **environment).strip()


def names(package: Path) -> List[str]:
    if package.suffix == ".whl":
        return zipfile.ZipFile(package).namelist()
    return [m.name for m in tarfile.open(package) if m.isfile()]


def test_wheel(source: Path, venv: Path, sidecar: Sidecar, tmp_path: Path) -> None:
    build(source, tmp_path, "bdist_wheel")
    (wheel,) = tmp_path.glob("*.whl")
    assert "-cp310-abi3-linux" in wheel.name
    inside = names(wheel)
    assert "cachesidecar/_native.abi3.so" in inside and "cachesidecar/py.typed" in inside
    assert any(n.endswith("dist-info/LICENSE") for n in inside)
    assert not any(n.endswith((".c", ".h")) or n.startswith("tests") for n in inside)
    assert install_and_read(venv, sidecar, str(wheel)) == "b'value' native"
    assert run(
        str(venv / "python"), "-c", READ, sidecar.path, cwd=venv, CACHESIDECAR_PURE="1"
    ).strip() == "b'value' pure"  # fmt: skip


def test_sdist(source: Path, venv: Path, sidecar: Sidecar, tmp_path: Path) -> None:
    build(source, tmp_path, "sdist")
    (sdist,) = tmp_path.glob("*.tar.gz")
    inside = [n.split("/", 1)[1] for n in names(sdist)]
    for name in ("LICENSE", "README.md", "src/cachesidecar/_native.c", "src/cachesidecar/cachesidecar.h"):
        assert name in inside, name
    assert install_and_read(venv, sidecar, "--no-build-isolation", str(sdist)) == "b'value' native"


def test_pure_wheel(source: Path, venv: Path, sidecar: Sidecar, tmp_path: Path) -> None:
    build(source, tmp_path, "bdist_wheel", CACHESIDECAR_PURE="1")
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert install_and_read(venv, sidecar, str(wheel)) == "b'value' pure"


def test_without_a_compiler(source: Path, venv: Path, sidecar: Sidecar, tmp_path: Path) -> None:
    output = build(source, tmp_path, "bdist_wheel", CC="/nonexistent/cc")
    assert "built without its extension" in output and "gcc python3-dev" in output
    (wheel,) = tmp_path.glob("*.whl")
    assert install_and_read(venv, sidecar, str(wheel)) == "b'value' pure"
