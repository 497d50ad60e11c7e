"""Users of a PostgreSQL table, over HTTP with Flask, cached by the sidecar of this host.

    pip install cachesidecar flask gunicorn psycopg2
    createdb app && psql app -c "CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL)"
    cachesidecar run &
    DATABASE_URL=postgresql:///app gunicorn --preload --workers 2 --threads 8 flask_app:app

    curl -X PUT -d name=Ada http://127.0.0.1:8000/users/42
    curl http://127.0.0.1:8000/users/42

However many processes and hosts ask for a user who is not cached, one of them asks the database,
and the others wait for its answer. A change is committed first, and then its key is deleted:
from then on no process reads the old name, and a load that began before is not kept.
"""

import logging
import os
from contextlib import closing
from typing import Any, Dict, Optional, Tuple

import psycopg2
from flask import Flask, abort, request

from cachesidecar import Client

logging.basicConfig(level=logging.INFO)
log = logging.getLogger("users")

app = Flask(__name__)
# The client connects with its first call, in each worker for itself; all threads share it.
cache = Client(namespace="users")


def query(sql: str, *values: Any) -> Optional[Tuple[Any, ...]]:
    with closing(psycopg2.connect(os.environ["DATABASE_URL"])) as db, db, db.cursor() as cursor:
        cursor.execute(sql, values)
        row: Optional[Tuple[Any, ...]] = cursor.fetchone()
        return row


def load(id: int) -> Optional[Dict[str, Any]]:
    log.info("loading user %d", id)
    row = query("SELECT name FROM users WHERE id = %s", id)
    return {"id": id, "name": row[0]} if row else None


@app.get("/users/<int:id>")
def read(id: int) -> Dict[str, Any]:
    # That there is no such user is a value too: None is kept for a minute like any other.
    user: Optional[Dict[str, Any]] = cache.get_or_set(f"user:{id}", lambda: load(id), ttl=60)
    if user is None:
        abort(404)
    return user


@app.put("/users/<int:id>")
def write(id: int) -> Dict[str, Any]:
    name = request.form["name"]
    query(
        "INSERT INTO users VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING id", id, name
    )
    cache.delete(f"user:{id}")
    return {"id": id, "name": name}
