"""Calls to a Milvus server: addresses, clients, what is tried again, and errors that say what to do."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from ..errors import InvalidInput, MissingExtra, RagistryError, StorageError
from ..registry import require
from . import shown

Row: TypeAlias = dict[str, Any]
T = TypeVar("T")

PATIENCE = 30.0
"""Seconds for which what a server cannot do yet, as after a restart, is tried again."""
MOST = 16_384
"""The most rows that Milvus gives to one query or search."""
LONGEST = 65_535
"""Bytes of the longest text that a field of Milvus holds."""
_REACHING = 5.0  # seconds for a connection
_BATCH = 8 << 20  # bytes of one insertion; a server takes 64 MB at most
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_LEVELS = ("strong", "bounded")
_LATER = re.compile(
    r"load|channel|shard|replica|not (available|ready|healthy|serving|enough)|unavailable|initializ|rate ?limit|recover"
    r"|node not|no available|deadline|time ?out|state code|connection",
    re.IGNORECASE,
)
_UNLOADED = re.compile(r"released|not (been )?loaded", re.IGNORECASE)
_ADVICE = (
    (r"quota|disk|memory|space", "the server has run out of space or memory; free some and repeat"),
    (r"auth|password|permission|privilege", "the server refuses the user or password, or a right is missing"),
    (r"can't find|not found|not exist", "there is no collection (any more); create one"),
)
_lite = threading.Lock()
_open: Counter[str] = Counter()  # files of Milvus Lite, and how many of us use them


class Server:
    """A Milvus server, or a file of Milvus Lite, and the collection that an address names.

    Args:
        address: `milvus://user:password@host:port/database?collection=name`, or `milvus:///path/to/file.db?collection=name`.
            `secure=true` uses TLS. `consistency=bounded` lets readers be some seconds behind other processes' commits, which
            spares every search the time, about 0.2 s, that a server takes to be sure that there is nothing newer.

    Raises:
        InvalidInput: If it is no such address; passwords are never shown.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.location = shown(address)
        name, level = given.get("collection", "docs"), given.get("consistency", "strong").lower()
        if unknown := given.keys() - {"collection", "consistency", "secure"}:
            raise InvalidInput(
                f"{self.location!r}: an address of Milvus has no {min(unknown)!r}; it has collection, consistency and secure"
            )
        if not _NAME.fullmatch(name):
            raise InvalidInput(
                f"the collection {name!r:.60} cannot be a name in a database; give `?collection=` a name of a-z, 0-9 and _ "
                "that begins with a letter, at most 48 long"
            )
        if level not in _LEVELS:
            raise InvalidInput(f"consistency={level!r:.40} is not known; give one of {', '.join(_LEVELS)}")
        self.prefix, self.newest = f"ragistry_{name}_", level.capitalize()
        self.file = None if parts.netloc else Path(unquote(parts.path)).absolute()
        if self.file is not None and self.file.suffix != ".db":
            raise InvalidInput(
                f"{self.location!r} names neither a host nor a file that ends in .db; write milvus://host:19530?collection="
                "docs, or milvus:///path/to/file.db?collection=docs for Milvus Lite"
            )
        self._secret = unquote(parts.password or "")
        self._given: dict[str, Any] = {"uri": str(self.file)}
        if self.file is None:
            try:
                port = parts.port or 19530
            except ValueError:
                raise InvalidInput(f"{self.location!r}: the port is no number from 0 to 65535") from None
            scheme = "https" if given.get("secure", "").lower() in ("true", "1", "yes") else "http"
            host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
            self._given = {"uri": f"{scheme}://{host}:{port}", "db_name": parts.path.strip("/")}
            if parts.username:
                self._given |= {"user": unquote(parts.username), "password": self._secret}
        elif "collection" not in given:
            self.location += ("&" if "?" in self.location else "?") + urlencode({"collection": name})
        self._clients: dict[int, Any] = {}
        self._closed = False
        self._api: Any = require("pymilvus", "milvus")
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs every error that it raises as well

    def query(
        self, name: str, condition: str, fields: Sequence[str], limit: int, stamp: int | None = None
    ) -> list[Row]:
        """Rows that meet a condition: of what was written up to a stamp, at least; without one, of everything."""
        return self._query(name, condition, fields, limit, _consistency(stamp))

    def latest(self, name: str, condition: str, fields: Sequence[str]) -> list[Row]:
        """Rows as new as the address asks for."""
        return self._query(name, condition, fields, MOST, {"consistency_level": self.newest})

    def search(
        self, name: str, vectors: Any, condition: str, limit: int, stamp: int, effort: int | None
    ) -> list[list[Row]]:
        """The nearest rows to each of some vectors, with their ids."""
        given: dict[str, Any] = {
            "data": list(vectors),
            "anns_field": "vector",
            "filter": condition,
            "limit": limit,
            "output_fields": ["id"],
            "search_params": {"params": {"ef": max(effort, limit)}} if effort else {},
            **_consistency(stamp),
        }
        found = self.ask(lambda client, timeout: client.search(self.prefix + name, timeout=timeout, **given), name=name)
        return [list(hits) for hits in found]

    def insert(self, name: str, rows: Sequence[Row]) -> int:
        """Append rows and return a stamp: from then on they are there. Rows that are sent twice count once."""

        def send(client: Any, timeout: float) -> int:
            # The plain client does not tell the time at which rows were written.
            done = client._get_connection().insert_rows(self.prefix + name, list(rows), timeout=timeout)
            return int(done.timestamp)

        return self.ask(send, "write to")

    def delete(self, name: str, condition: str) -> None:
        """Take out the rows that a condition on their keys names."""
        self.ask(
            lambda client, timeout: client.delete(self.prefix + name, filter=condition, timeout=timeout), "write to"
        )

    def create(self, name: str, fields: Mapping[str, Mapping[str, Any]], index: Mapping[str, Any]) -> None:
        """Make a collection of Milvus, the first field being its key, and let it be searched."""

        def make(client: Any, timeout: float) -> None:
            whole = self.prefix + name
            if not client.has_collection(whole, timeout=timeout):  # or by a call before, whose answer was lost
                schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
                for number, (field, settings) in enumerate(fields.items()):
                    rest = {key: value for key, value in settings.items() if key != "type"}
                    schema.add_field(
                        field, getattr(self._api.DataType, settings["type"]), is_primary=not number, **rest
                    )
                client.create_collection(whole, schema=schema, num_shards=1, timeout=timeout)
            indexes = client.prepare_index_params()
            indexes.add_index("vector", **index)
            client.create_index(whole, indexes, sync=False, timeout=timeout)
            client.load_collection(whole, timeout=timeout)

        self.ask(make, "create")

    def drop(self, name: str) -> None:
        """Delete a collection of Milvus; one that is not there is passed over."""
        self.ask(lambda client, timeout: client.drop_collection(self.prefix + name, timeout=timeout), "write to")

    def names(self) -> list[str]:
        """The collections of Milvus that make up ours."""
        found = self.ask(lambda client, timeout: client.list_collections(timeout=timeout))
        return sorted(name.removeprefix(self.prefix) for name in found if name.startswith(self.prefix))

    def ask(self, question: Callable[[Any, float], T], action: str = "read", name: str = "") -> T:
        """What a question finds, given a client and a time limit; asked again while the server is not ready to answer.

        A collection of Milvus that it asks, of a `name`, is loaded if it is not: after a restart it may not be.
        """
        until, pause = time.monotonic() + PATIENCE, 0.05
        while True:
            try:
                return question(self._client(), PATIENCE)
            except self._api.MilvusException as error:
                if time.monotonic() + pause > until or not _LATER.search(str(error)):
                    self._explain(action, error)
                if name and _UNLOADED.search(str(error)):
                    self.ask(
                        lambda client, timeout: client.load_collection(self.prefix + name, timeout=timeout), action
                    )
                    continue
            except RagistryError:
                raise
            except Exception as error:  # of gRPC, or of the client's own checks
                self._explain(action, error)
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def _query(self, name: str, condition: str, fields: Sequence[str], limit: int, how: Row) -> list[Row]:
        def find(client: Any, timeout: float) -> list[Row]:
            return list(
                client.query(
                    self.prefix + name,
                    filter=condition,
                    output_fields=list(fields),
                    limit=limit,
                    timeout=timeout,
                    **how,
                )
            )

        return self.ask(find, name=name)

    def close(self) -> None:
        """Close the client of this process; anything asked afterwards is refused."""
        self._closed = True
        client = self._clients.pop(os.getpid(), None)
        if client is None:
            return
        with contextlib.suppress(Exception):
            client.close()
        if self.file is not None:
            with _lite:
                _open[str(self.file)] -= 1
                if not _open[str(self.file)]:
                    require("milvus_lite.server_manager", "milvus").server_manager_instance.release_server(
                        str(self.file)
                    )

    def _client(self) -> Any:
        if self._closed:
            raise StorageError(f"{self.location!r} was closed; open it again")
        known = self._clients.get(os.getpid())  # a connection cannot be shared with the process that forked
        return known if known is not None else self._clients.setdefault(os.getpid(), self._reached())

    def _reached(self) -> Any:
        if self.file is not None:
            _check_lite(self.file, self.location)
        try:
            with _lite if self.file is not None else contextlib.nullcontext():
                patience = _REACHING if self.file is None else PATIENCE  # which a busy machine needs to begin serving
                client = self._api.MilvusClient(**self._given, timeout=patience, dedicated=True)
                _open[str(self.file)] += 1
                return client
        except Exception as error:
            if self.file is not None:
                raise StorageError(
                    f"cannot open {self.location!r}: another process has it open, or it cannot be written; a file of "
                    "Milvus Lite serves one process at a time, so close the other one, or start a Milvus server"
                ) from None
            self._explain("reach", error, "check that the server runs, and the address, user and password")

    def _explain(self, action: str, error: Exception, otherwise: str = "") -> NoReturn:
        said = " ".join(str(getattr(error, "message", "") or error).split())[:400]
        if self._secret:
            said = said.replace(self._secret, "***")
        advice = next((advice for words, advice in _ADVICE if re.search(words, said, re.IGNORECASE)), otherwise)
        if not advice and _LATER.search(said):
            advice = "check that the server runs; what is committed is safe"
        raise StorageError(f"cannot {action} {self.location!r}: {f'{advice} ({said})' if advice else said}") from None


def batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Rows in portions that can be sent at once."""
    some: list[Row] = []
    size = 0
    for row in rows:
        weight = sum(4 * len(value) if hasattr(value, "__len__") else 8 for value in row.values())
        if some and (size + weight > _BATCH or len(some) >= 5000):
            yield some
            some, size = [], 0
        some.append(row)
        size += weight
    if some:
        yield some


def _consistency(stamp: int | None) -> dict[str, Any]:
    """Milvus Lite has no stamps; what it has acknowledged is seen by every reader."""
    return (
        {"consistency_level": "Customized", "guarantee_timestamp": stamp} if stamp else {"consistency_level": "Strong"}
    )


def _check_lite(file: Path, location: str) -> None:
    try:
        require("milvus_lite", "milvus")
    except MissingExtra:
        raise MissingExtra(
            f"{location!r} is a file of Milvus Lite, which is not installed: pip install milvus-lite, or give the address "
            "of a server"
        ) from None
    if not file.parent.is_dir():
        raise StorageError(f"{location!r}: there is no directory {str(file.parent)!r}; make it first")
