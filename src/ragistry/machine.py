"""What this process may use of the machine."""

from __future__ import annotations

import os


def cores() -> int:
    """Processor cores that this process may run on, at least 1.

    Example:
        >>> cores() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int:
    """Of these cores, as many as OMP_NUM_THREADS leaves, to which torch keeps as well.

    Example:
        >>> 1 <= threads() <= cores()
        True
    """
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cores(), int(given)) if given.isdecimal() and int(given) else cores()
