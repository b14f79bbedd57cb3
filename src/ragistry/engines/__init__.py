"""Databases that keep a collection: the same recipes, filters and commands, past one machine.

Where a collection is kept is told by its location: a directory, or an address such as
`postgresql://user@host/database?collection=docs` or `milvus://host?collection=docs`. Everything that a query passes through
stays as it is; only documents and indexes are the database's own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

from ..protocols import Retriever
from ..registry import require
from ..states import States
from ..storage import MANIFEST
from ..store import Store

if TYPE_CHECKING:
    from .milvus import Milvus
    from .postgres import Postgres

Location: TypeAlias = str | os.PathLike[str]
"""A directory, or the address of a database."""

_POSTGRES, _MILVUS = ("postgresql://", "postgres://"), ("milvus://",)
SCHEMES = _POSTGRES + _MILVUS


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
    query = f"?{urlencode(kept, safe='/')}" if kept else ""
    return f"{parts.scheme}://{f'{user}@' if user else ''}{host}{parts.path}{query}"


def store_at(location: Location) -> States:
    """What keeps the collection at a location.

    Raises:
        StorageError: If there is none, or it cannot be reached or read.
        MissingExtra: If the package for the database is missing; the message gives the `pip install` line.
    """
    return _engine(location)(str(location)) if is_address(location) else Store(Path(location))


def make_at(location: Location, retriever: Retriever) -> None:
    """Make a collection without documents at a location that holds none."""
    if is_address(location):
        _engine(location).make(str(location), retriever)
    else:
        Store.make(Path(location), retriever)


def holds_one(location: Location) -> bool:
    """Whether there is a collection at a location."""
    if is_address(location):
        return _engine(location).exists(str(location))
    return (Path(location) / MANIFEST).exists()


def copied(store: States, location: Location) -> None:
    """Copy the latest state of a store to a location that holds no collection."""
    if isinstance(store, Store) and not is_address(location):
        store.copy(Path(location))
        return
    from .copying import copy

    copy(store, location, resume=False)


def _engine(address: Location) -> type[Postgres] | type[Milvus]:
    if str(address).startswith(_MILVUS):
        require("pymilvus", "milvus")
        from .milvus import Milvus

        return Milvus
    require("psycopg_pool", "postgres")
    from .postgres import Postgres

    return Postgres
