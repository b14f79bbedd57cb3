"""Documents as a language model has read them, kept on disk."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors

from ..errors import InvalidInput
from ..storage import explained
from .language_model import Prefix

KeptPrecision: TypeAlias = Literal["fp16", "fp32"]
SUFFIX = ".safetensors"
MEGABYTE = 1_000_000


class Prefixes:
    """A folder of what a model kept of texts, one file for each, of bounded size.

    When it is full a tenth is deleted, the files written first. A file that cannot be read, or has another precision, counts
    as not there: what is kept here can always be computed again. Any number of threads and processes may share a folder.

    Args:
        path: Made when first written to.
        megabytes: The most it may take, in millions of bytes. One file larger than that is not kept.
        precision: `fp16` halves what is kept, and changes a log-probability by some ten-thousandths; `fp32` keeps it all.

    Raises:
        InvalidInput: If the size is not positive.
        StorageError: From `put`, if the folder cannot be written.

    Example:
        >>> import tempfile
        >>> kept = Prefixes(tempfile.mkdtemp(), megabytes=10)
        >>> kept.put("a", Prefix(torch.ones(2, 2, 1, 3, 4), torch.ones(4), 3))
        >>> kept.get("a").length, kept.get("b")
        (3, None)
    """

    def __init__(
        self, path: str | os.PathLike[str], *, megabytes: float = 1000.0, precision: KeptPrecision = "fp16"
    ) -> None:
        if not megabytes > 0:
            raise InvalidInput(f"megabytes={megabytes}; a positive number is needed")
        self.path = Path(path)
        self.limit = int(megabytes * MEGABYTE)
        self.precision: KeptPrecision = precision
        self._dtype = torch.float16 if precision == "fp16" else torch.float32
        self._lock = threading.Lock()
        self._used: int | None = None

    def get(self, key: str) -> Prefix | None:
        """What was kept under a key; none if there is nothing, or nothing that can be read."""
        try:
            tensors = read_tensors((self.path / f"{key}{SUFFIX}").read_bytes())
            found = Prefix(tensors["states"], tensors["last"], int(tensors["length"]))
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):
            return None
        return found if found.states.dtype == found.last.dtype == self._dtype else None

    def rounded(self, prefix: Prefix) -> Prefix:
        """What `get` gives after `put`, so that scores do not depend on what is kept already."""
        most = torch.finfo(self._dtype).max
        states, last = (part.float().clamp(-most, most).to(self._dtype) for part in (prefix.states, prefix.last))
        return Prefix(states, last, prefix.length)

    def put(self, key: str, prefix: Prefix) -> None:
        """Keep it, and delete the oldest of the others if it is too much."""
        prefix = self.rounded(prefix)
        states, last, length = prefix.states.contiguous(), prefix.last.contiguous(), torch.tensor(prefix.length)
        content = write_tensors({"states": states, "last": last, "length": length})
        if len(content) > self.limit:
            return
        beside = self.path / f".{key}.{os.getpid()}.{threading.get_ident()}.part"
        with explained("write", self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(content)
            beside.replace(self.path / f"{key}{SUFFIX}")
        self._make_room(len(content))

    def _make_room(self, added: int) -> None:
        with self._lock:
            if self._used is not None and self._used + added <= self.limit:
                self._used += added
                return
            # Counted anew: another process may have added or deleted some.
            found = []
            for file in self.path.glob(f"*{SUFFIX}"):
                with contextlib.suppress(FileNotFoundError):
                    found.append((file.stat().st_mtime_ns, file.name, file.stat().st_size, file))
            found.sort(key=lambda one: one[:2])
            used = sum(size for _, _, size, _ in found)
            enough = used if used <= self.limit else 0.9 * self.limit  # so that not every file has all others counted
            for _, _, size, file in found[:-1]:
                if used <= enough:
                    break
                file.unlink(missing_ok=True)
                used -= size
            self._used = used
