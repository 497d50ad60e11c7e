"""The app of test_celery: a task that reads through a client that its parent has used."""

import os
from typing import Any, Tuple

from celery import Celery

from cachesidecar import Client

folder = os.environ["CELERY_FOLDER"]
for name in ("queue", "results"):
    os.makedirs(f"{folder}/{name}", exist_ok=True)
app = Celery(
    broker="filesystem://",
    backend=f"file://{folder}/results",
    broker_transport_options={"data_folder_in": f"{folder}/queue", "data_folder_out": f"{folder}/queue"},
)
cache = Client(namespace="users")
if os.environ.get("CELERY_WORKER") == "1":
    cache.set("before", "fork")  # the pool's processes are forked after this: they inherit a connection


def load(n: int) -> int:
    with open(f"{folder}/loads", "a", encoding="ascii") as f:
        f.write(f"{n}\n")
    return n * n


@app.task(name="square")  # type: ignore[misc]
def square(n: int) -> Tuple[int, Any, int]:
    return cache.get_or_set(f"square:{n}", lambda: load(n), ttl=60), cache.get("before"), os.getpid()
