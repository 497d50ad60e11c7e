"""Users of a PostgreSQL table, over HTTP with FastAPI, cached by the sidecar of this host.

    pip install cachesidecar fastapi uvicorn asyncpg
    createdb app && psql app -c "CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL)"
    cachesidecar run &
    DATABASE_URL=postgresql:///app uvicorn --workers 2 fastapi_app:app

    curl -X PUT "http://127.0.0.1:8000/users/42?name=Ada"
    curl http://127.0.0.1:8000/users/42

However many processes and hosts ask for a user who is not cached, one of them asks the database,
and the others wait for its answer. A change is committed first, and then its key is deleted:
from then on no process reads the old name, and a load that began before is not kept.
"""

import logging
import os
from typing import Any, Dict, Optional

import asyncpg
from fastapi import FastAPI, HTTPException

from cachesidecar import AsyncClient

logging.basicConfig(level=logging.INFO)
log = logging.getLogger("users")

app = FastAPI()
cache = AsyncClient(namespace="users")  # it connects with its first call


@app.on_event("startup")
async def connect() -> None:
    app.state.db = await asyncpg.create_pool(os.environ["DATABASE_URL"])


@app.on_event("shutdown")
async def disconnect() -> None:
    await cache.close()
    await app.state.db.close()


async def load(id: int) -> Optional[Dict[str, Any]]:
    log.info("loading user %d", id)
    row = await app.state.db.fetchrow("SELECT name FROM users WHERE id = $1", id)
    return {"id": id, "name": row["name"]} if row else None


@app.get("/users/{id}")
async def read(id: int) -> Dict[str, Any]:
    # That there is no such user is a value too: None is kept for a minute like any other.
    user: Optional[Dict[str, Any]] = await cache.get_or_set(f"user:{id}", lambda: load(id), ttl=60)
    if user is None:
        raise HTTPException(404)
    return user


@app.put("/users/{id}")
async def write(id: int, name: str) -> Dict[str, Any]:
    await app.state.db.execute(
        "INSERT INTO users VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET name = excluded.name", id, name
    )
    await cache.delete(f"user:{id}")
    return {"id": id, "name": name}
