"""Databases that keep a collection: the same recipes, filters and commands, past one machine.

Where a collection is kept is told by its location: a directory, or an address such as
`postgresql://user@host/database?collection=docs`. Everything that a query passes through stays as it is; only documents
and indexes are the database's own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from ..protocols import Retriever
from ..registry import require
from ..states import States
from ..storage import MANIFEST
from ..store import Store

Location: TypeAlias = str | os.PathLike[str]
"""A directory, or the address of a database."""

SCHEMES = ("postgresql://", "postgres://")


def is_address(location: Location) -> bool:
    """Whether a location is a database's address rather than a directory.

    Example:
        >>> is_address("postgresql://localhost/books?collection=docs"), is_address("my-docs")
        (True, False)
    """
    return isinstance(location, str) and location.startswith(SCHEMES)


def shown(location: Location) -> str:
    """A location as it may be shown: without a password.

    Example:
        >>> shown("postgresql://me:secret@host/books?collection=docs&password=x")
        'postgresql://me@host/books?collection=docs'
    """
    if not is_address(location):
        return str(location)
    parts = urlsplit(str(location))
    login, _, host = parts.netloc.rpartition("@")
    user = login.partition(":")[0]
    kept = [(key, value) for key, value in parse_qsl(parts.query, keep_blank_values=True) if "password" not in key]
    return urlunsplit(parts._replace(netloc=f"{user}@{host}" if user else host, query=urlencode(kept, safe="/")))


def store_at(location: Location) -> States:
    """What keeps the collection at a location.

    Raises:
        StorageError: If there is none, or it cannot be reached or read.
        MissingExtra: If the package for the database is missing; the message gives the `pip install` line.
    """
    if not is_address(location):
        return Store(Path(location))
    require("psycopg_pool", "postgres")
    from .postgres import Postgres

    return Postgres(str(location))


def make_at(location: Location, retriever: Retriever) -> None:
    """Make a collection without documents at a location that holds none."""
    if not is_address(location):
        Store.make(Path(location), retriever)
        return
    require("psycopg_pool", "postgres")
    from .postgres import Postgres

    Postgres.make(str(location), retriever)


def holds_one(location: Location) -> bool:
    """Whether there is a collection at a location."""
    if not is_address(location):
        return (Path(location) / MANIFEST).exists()
    require("psycopg_pool", "postgres")
    from .postgres import Postgres

    return Postgres.exists(str(location))


def copied(store: States, location: Location) -> None:
    """Copy the latest state of a store to a location that holds no collection."""
    if isinstance(store, Store) and not is_address(location):
        store.copy(Path(location))
        return
    require("psycopg_pool", "postgres")
    from .copying import copy

    copy(store, location, resume=False)
