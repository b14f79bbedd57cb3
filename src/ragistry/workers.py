"""Threads that share a processor's cores between batches of a model's work, not between the parts of one operation."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

MOST_WORKERS = 8
"""Beyond this the interpreter lock, not the processor, limits how many batches run side by side."""
_pools: dict[int, ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def workers(threads: int | None = None) -> ThreadPoolExecutor:
    """The process's workers for this many cores, each with its own share of them.

    Work side by side does not stall when another process is busy, as operations shared between cores do, many times over.

    Args:
        threads: Cores; as many as torch is set to use by default.
    """
    cores = threads or torch.get_num_threads()
    with _pools_lock:
        if cores not in _pools:
            _pools[cores] = _start_workers(cores)
        return _pools[cores]


def _start_workers(cores: int) -> ThreadPoolExecutor:
    workers = min(cores, MOST_WORKERS)
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, "ragistry-encode", torch.set_num_threads, (cores // workers,))
    # torch keeps a number for each thread and one for threads to come: start every worker, then set the latter back.
    together = threading.Barrier(workers)
    for future in [pool.submit(together.wait) for _ in range(workers)]:
        future.result()
    torch.set_num_threads(before)
    return pool


def _forget_pools() -> None:
    """A forked child has none of its parent's threads, so it starts its own."""
    global _pools_lock
    _pools.clear()
    _pools_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)
