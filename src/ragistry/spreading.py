"""Workers that encode documents for a collection: processes of this machine, or actors of a Ray cluster.

They compute and keep nothing. The process that adds documents says which are new, shares their texts out, and alone writes:
so a run with workers can be interrupted, killed and repeated as any other, and needs no more than one of them to go on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import repeat
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from . import machine
from .encoders.spread import elsewhere
from .engines import is_address, store_at
from .errors import FingerprintMismatch, InvalidInput, RagistryError, ServiceError
from .protocols import Encoder, Index, Retriever
from .registry import create, require
from .types import Vectors

Workers: TypeAlias = int | str
"""How many processes; or "ray", for a cluster that is found or begun, or its address, "ray://host:port"."""


def check_workers(workers: Workers) -> Workers:
    """Refuse what is none of `Workers`.

    Example:
        >>> check_workers(4), check_workers("ray://head:10001")
        (4, 'ray://head:10001')
    """
    if isinstance(workers, str) and (workers == "ray" or workers.startswith("ray://")):
        return workers
    if isinstance(workers, int) and not isinstance(workers, bool) and workers >= 1:
        return workers
    raise InvalidInput(
        f'workers={workers!r}; give the number of processes, at least 1, or "ray", or the address of a Ray cluster, '
        "ray://host:port"
    )


class Pool(Protocol):
    """Workers: how many, and a way to have each encode texts, part by part, in order."""

    count: int

    def encode(self, fingerprint: str, parts: Sequence[Sequence[str]]) -> list[Vectors]: ...
    def close(self, *, now: bool) -> None: ...


@contextlib.contextmanager
def spread(workers: Workers, part: int, recipe: Mapping[str, Any], location: str | os.PathLike[str]) -> Iterator[int]:
    """Have documents encoded by workers meanwhile; yields for how many of them there are texts to be shared out.

    A worker encodes `part` documents in one call, as this process does where it works alone, so vectors are the same.
    Workers are started once there is more to encode than that.

    Args:
        workers: See `Workers`; 1 is this process alone.
        part: Documents that a worker encodes at a time.
        recipe: Of the collection's retriever.
        location: Of the collection, where workers look for an encoder that has learnt.

    Raises:
        InvalidInput: If `workers` is none of these; while encoding, if workers cannot make the retriever.
        RagistryError: While encoding, if a worker died.
        ServiceError: If there is no such cluster, or it failed.
        MissingExtra: If Ray is asked for and is not installed.
    """
    if check_workers(workers) == 1:
        yield 1
        return
    where = str(location) if is_address(location) else str(Path(location).absolute())
    pool: Pool = Actors(workers, recipe, where) if isinstance(workers, str) else Processes(workers, recipe, where)
    begun = False

    def encode(encoder: Encoder, texts: Sequence[str]) -> list[Vectors]:
        nonlocal begun
        if len(texts) <= part and not begun:
            return [encoder.encode(texts, "document")]
        begun = True
        parts = [texts[first : first + part] for first in range(0, len(texts), part)]
        return pool.encode(encoder.fingerprint(), parts)

    try:
        with elsewhere(encode):
            yield pool.count
    except BaseException:
        pool.close(now=True)
        raise
    pool.close(now=False)


class Worker:
    """What runs in a worker: the encoders of a retriever, each known by its fingerprint.

    Args:
        recipe: Of the retriever.
        location: Of the collection that keeps it.
    """

    def __init__(self, recipe: Mapping[str, Any], location: str) -> None:
        self._recipe, self._location = recipe, location
        self._encoders: dict[str, Encoder] = {}

    def encode(self, fingerprint: str, texts: Sequence[str]) -> Vectors:
        """The vectors of documents with these texts.

        Raises:
            InvalidInput: If the retriever cannot be made here.
            FingerprintMismatch: If none of its encoders has this fingerprint.
        """
        if fingerprint not in self._encoders:
            self._know(self._made())
        if fingerprint not in self._encoders:  # it has learnt; only then is it worth opening what may be large
            self._know(store_at(self._location).current().retriever)
        if fingerprint not in self._encoders:
            raise FingerprintMismatch(
                f"a worker has no encoder such as that of the process that adds (fingerprint {fingerprint[:12]}); give all "
                "machines the same model files and versions"
            )
        return self._encoders[fingerprint].encode(texts, "document")

    def _know(self, retriever: Retriever) -> None:
        self._encoders |= {encoder.fingerprint(): encoder for encoder in _encoders(retriever)}

    def _made(self) -> Retriever:
        try:
            return create(self._recipe)
        except RagistryError as error:
            raise InvalidInput(
                f"a worker cannot make the retriever {self._recipe['name']!r}: {error} What is registered in one process "
                "is not known to others: leave workers out, or register it in a module that they import"
            ) from None


def _encoders(retriever: object) -> Iterator[Encoder]:
    """The encoders of a retriever and of those in it."""
    for value in vars(retriever).values():
        for part in value.values() if isinstance(value, dict) else [value]:
            if isinstance(part, Encoder) and not isinstance(part, type):
                yield part
            elif isinstance(part, Retriever) and not isinstance(part, Index | type):
                yield from _encoders(part)


class Processes:
    """Processes of this machine, which share its cores. They end with this process, however it ends."""

    def __init__(self, count: int, recipe: Mapping[str, Any], location: str) -> None:
        self.count = count
        spawning = get_context("spawn")  # a fork of a process with threads, as torch has, may stand still
        self._theirs, self._ours = spawning.Pipe(duplex=False)
        threads = max(1, min(machine.cores() // count, machine.threads()))
        self._pool = ProcessPoolExecutor(count, spawning, _begin, (self._theirs, threads, recipe, location))

    def encode(self, fingerprint: str, parts: Sequence[Sequence[str]]) -> list[Vectors]:
        """The vectors of each part, in order.

        Raises:
            RagistryError: If a worker died, or what a worker raised.
        """
        try:
            return list(self._pool.map(_encode, repeat(fingerprint), parts))
        except BrokenProcessPool:
            raise RagistryError(
                f"one of {self.count} worker processes died, perhaps as memory ran out: what is committed is safe; repeat "
                'with fewer workers. (In a script of your own, add documents below `if __name__ == "__main__":`, as each '
                "worker imports the script.)"
            ) from None

    def close(self, *, now: bool) -> None:
        """End the processes, with what they are at or after it."""
        if now:
            self._ours.close()
        self._pool.shutdown(cancel_futures=True)
        self._ours.close()
        self._theirs.close()


_worker: Worker | None = None


def _begin(parent: Connection, threads: int, recipe: Mapping[str, Any], location: str) -> None:
    """Become a worker."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(threads)  # torch, which is not loaded yet, keeps to it
    _worker = Worker(recipe, location)


def _end_with(parent: Connection) -> None:
    wait([parent])  # nothing is ever sent: it closes
    os._exit(1)


def _encode(fingerprint: str, texts: Sequence[str]) -> Vectors:
    assert _worker is not None
    return _worker.encode(fingerprint, texts)


class Actors:
    """Actors of a Ray cluster, one for each core; all its machines need this package, the models, and what a recipe names.

    An actor that dies is started again, on another machine if its own is gone, and its texts are encoded again.
    """

    def __init__(self, address: str, recipe: Mapping[str, Any], location: str) -> None:
        self._ray = ray = require("ray", "ray")
        self._begun = address != "ray" or not ray.is_initialized()  # else it is somebody's, and stays
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster begun here tells nobody about itself
        try:
            if self._begun:
                ray.init(None if address == "ray" else address, log_to_driver=False, logging_level="error")
            self.count = int(ray.cluster_resources().get("CPU", 1))
        except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
            raise ServiceError(
                f"the Ray cluster {address!r} cannot be used: {error}; start it, or check the address"
            ) from None
        self._given = recipe, location
        self._actors: list[Any] = []

    def encode(self, fingerprint: str, parts: Sequence[Sequence[str]]) -> list[Vectors]:
        """The vectors of each part, in order.

        Raises:
            ServiceError: If the cluster failed.
            RagistryError: What a worker raised.
        """
        errors = self._ray.exceptions
        try:
            if not self._actors:
                kind = self._ray.remote(num_cpus=1, max_restarts=3, max_task_retries=3)(Worker)
                self._actors = [kind.remote(*self._given) for _ in range(self.count)]
            pool = self._ray.util.ActorPool(self._actors)
            return list(pool.map(lambda actor, part: actor.encode.remote(fingerprint, part), parts))
        except errors.RayTaskError as error:
            raise error.cause from None
        except (errors.RayError, ConnectionError) as error:
            raise ServiceError(
                f"the Ray cluster failed: {error}; what is committed is safe: repeat to continue"
            ) from None

    def close(self, *, now: bool) -> None:
        """End the actors."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self._begun:
            self._ray.shutdown()
