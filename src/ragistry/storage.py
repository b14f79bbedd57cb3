"""Objects on disk: write-once arrays named by their content, and one manifest that is renamed into place.

A directory holds `manifest.json` and `files/<sha256>.npy`. Arrays are written first; the manifest that names them is
written beside the old one, flushed and renamed. Whatever moment a process dies at, the directory holds the state that the
last complete manifest describes. Nothing is ever unpickled, and no class is looked up by a name found in a file other than
a registered recipe's.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import time
import weakref
from collections.abc import Collection, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import Corrupt, InvalidInput, StorageError
from .protocols import State, Updatable
from .registry import create

FORMAT = 1
MANIFEST = "manifest.json"
_ARRAY_FILE = re.compile(r"[0-9a-f]{64}\.npy|\.[0-9a-f]{64}\.npy\.[0-9]+\.part")


class Manifest(BaseModel):
    """What a directory holds. `generation` counts commits; `files` maps each array's name to its size in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int = FORMAT
    version: str
    generation: int
    documents: int
    recipe: dict[str, Any]
    fingerprint: str
    state: dict[str, Any]
    files: dict[str, int]


@contextlib.contextmanager
def explained(action: str, path: Path) -> Iterator[None]:
    """Turn an operating-system error into one that says what to do."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        advice = {
            errno.ENOSPC: "the disk is full; free some space and repeat, nothing committed was lost",
            errno.EDQUOT: "the disk quota is used up; free some space and repeat, nothing committed was lost",
            errno.EFBIG: "the file is larger than the file system or process limit allows; nothing committed was lost",
            errno.EACCES: "permission is denied; make the directory writable or use another one",
            errno.EPERM: "permission is denied; make the directory writable or use another one",
            errno.EROFS: "the file system is read-only; use a directory on one that can be written",
            errno.ENOENT: "it does not exist",
        }.get(error.errno or 0, str(error))
        raise StorageError(f"cannot {action} {str(path)!r}: {advice}") from error


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Write beside, flush to disk, rename: readers see the old content or the new, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with explained("write", path):
        try:
            with open(beside, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # The kernel's own stamp may stay the same for some milliseconds, in which two versions could look alike.
            now = time.time_ns()
            os.utime(beside, ns=(now, now))
            beside.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise


def sync_directory(path: Path) -> None:
    """Make renames inside a directory durable (a no-op where directories cannot be opened or flushed)."""
    with explained("write", path):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except PermissionError:
            return
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EBADF}:
                raise
        finally:
            os.close(descriptor)


class ArrayFiles:
    """Write-once `.npy` files named by the SHA-256 of their bytes.

    Writing the same array twice writes once, and a file's name is its checksum: the first `get` of each file reads it
    through and compares.

    Raises:
        Corrupt: From `get`, if a file is missing, cut short or changed.
        StorageError: From `put`, if the directory cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._sizes: dict[str, int] = {}  # of the files that are known to be sound
        self._names: dict[int, tuple[weakref.ref[npt.NDArray[Any]], str]] = {}  # of living arrays, by address

    def put(self, array: npt.NDArray[Any]) -> str:
        """Store an array and return its name. An array that came from `get`, or was put before, is not written again."""
        known = self._names.get(id(array))
        if known is not None and known[0]() is array:
            return known[1]
        if array.dtype.hasobject:
            raise InvalidInput("an array of Python objects cannot be stored; give it a numeric dtype")
        buffer = BytesIO()
        np.save(buffer, np.asarray(array, order="C"), allow_pickle=False)
        content = buffer.getbuffer()
        name = f"{hashlib.sha256(content).hexdigest()}.npy"
        path = self.directory / name
        if not (name in self._sizes and path.exists()):  # a file that was never read through may be damaged
            with explained("create", self.directory):
                self.directory.mkdir(parents=True, exist_ok=True)
            write_file(path, content)
        self._remember(name, array, len(content))
        return name

    def get(self, name: str) -> npt.NDArray[Any]:
        """The array stored under a name, read-only and memory-mapped."""
        path = self.directory / name
        advice = "restore the directory from a copy, or index the documents again"
        with explained("read", path):
            try:
                if name not in self._sizes:
                    with open(path, "rb") as file:
                        digest = hashlib.file_digest(file, "sha256").hexdigest()
                    if f"{digest}.npy" != name:
                        raise Corrupt(f"{str(path)!r} is damaged: its content does not match its checksum; {advice}")
                # A plain view: compiled code is slower to start on the subclass that np.load returns.
                array: npt.NDArray[Any] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
                size = path.stat().st_size
            except FileNotFoundError:
                raise Corrupt(f"{str(path)!r} is missing, though the manifest names it; {advice}") from None
            except (ValueError, EOFError) as error:
                raise Corrupt(f"{str(path)!r} is not an array file ({error}); {advice}") from None
        self._remember(name, array, size)
        return array

    def sizes(self, names: Iterable[str]) -> dict[str, int]:
        """Bytes of each file, by name."""
        return {name: self._sizes[name] for name in sorted(set(names))}

    def sweep(self, keep: Iterable[str]) -> list[str]:
        """Delete the array files that are not in `keep`, finished or not, and return their names; others are left alone."""
        kept = set(keep)
        deleted = []
        self.forget(kept)
        if self.directory.is_dir():
            for path in sorted(self.directory.iterdir()):
                if path.name not in kept and _ARRAY_FILE.fullmatch(path.name):
                    # A reader elsewhere may still map the file; POSIX keeps it alive, other systems refuse: try later.
                    with contextlib.suppress(OSError):
                        path.unlink()
                        deleted.append(path.name)
        return deleted

    def forget(self, keep: Collection[str]) -> None:
        """Remember nothing about files that are not in `keep`: they may be gone."""
        self._sizes = {name: size for name, size in self._sizes.items() if name in keep}
        self._names = {key: known for key, known in self._names.items() if known[1] in keep and known[0]() is not None}

    def _remember(self, name: str, array: npt.NDArray[Any], size: int) -> None:
        self._sizes[name] = size
        self._names[id(array)] = weakref.ref(array), name


def file_names(state: Any) -> set[str]:
    """The array files a state refers to."""
    if isinstance(state, dict):
        return set().union(*(file_names(value) for value in state.values()))
    if isinstance(state, list):
        return set().union(*(file_names(value) for value in state))
    return {state} if isinstance(state, str) and state.endswith(".npy") and len(state) == 68 else set()


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Commit: after this returns, the directory holds what the manifest says."""
    content = manifest.model_dump()
    content["checksum"] = _checksum(content)
    if manifest.files:
        sync_directory(directory / "files")
    text = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    write_file(directory / MANIFEST, text.encode())
    sync_directory(directory)


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_manifest(directory: Path) -> Manifest:
    """What a directory holds.

    Raises:
        StorageError: If there is no manifest: the directory is not a collection.
        Corrupt: If it is unreadable, or of a format this version does not know.
    """
    path = directory / MANIFEST
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise StorageError(
            f"{str(directory)!r} is not a Ragistry directory: it has no {MANIFEST}; create one with Collection.create "
            "or `ragistry index`"
        ) from None
    except NotADirectoryError:
        raise StorageError(f"{str(directory)!r} is a file, not a Ragistry directory") from None
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{str(path)!r} is damaged ({error}); restore it from a copy, or index again") from None
    except OSError as error:
        raise StorageError(f"{str(path)!r} cannot be read: {error}") from error
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise Corrupt(
            f"{str(path)!r} has format {found!r}, this version of Ragistry reads format {FORMAT}; index again, or use "
            "the version that wrote it"
        )
    if content.pop("checksum", None) != _checksum(content):
        raise Corrupt(f"{str(path)!r} is damaged: it fails its checksum; restore it from a copy, or index again")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise Corrupt(f"{str(path)!r} is damaged: {error.error_count()} fields do not fit; restore it") from None


def save(retriever: Updatable, directory: str | os.PathLike[str]) -> None:
    """Save a retriever made by `create`. Saving twice gives identical bytes.

    Raises:
        InvalidInput: If the retriever was not made by `create`.
        StorageError: If the directory cannot be written, or holds a collection.
    """
    path = Path(directory)
    recipe = recipe_of(retriever)
    if any(path.glob("*.sqlite")):
        raise StorageError(f"{str(path)!r} holds a collection, whose documents would be lost; choose another directory")
    files = ArrayFiles(path / "files")
    state = retriever.save(files)
    with explained("create", path):
        path.mkdir(parents=True, exist_ok=True)
    write_manifest(path, describe(recipe, state, files, generation=0, documents=0))
    files.sweep(file_names(state))


def load(directory: str | os.PathLike[str]) -> Updatable:
    """Load a retriever saved by `save`."""
    path = Path(directory)
    manifest = read_manifest(path)
    retriever = create(manifest.recipe)
    if not isinstance(retriever, Updatable):
        raise Corrupt(f"{str(path)!r} names the retriever {manifest.recipe.get('name')!r}, which cannot be loaded")
    retriever.load(manifest.state, ArrayFiles(path / "files"))
    return retriever


def describe(recipe: dict[str, Any], state: State, files: ArrayFiles, *, generation: int, documents: int) -> Manifest:
    """The manifest of a state whose arrays are already in `files`."""
    from . import __version__

    return Manifest(
        version=__version__,
        generation=generation,
        documents=documents,
        recipe=recipe,
        fingerprint=hashlib.sha256(json.dumps(_fingerprints(state), sort_keys=True).encode()).hexdigest(),
        state=state,
        files=files.sizes(file_names(state)),
    )


def recipe_of(retriever: Any) -> dict[str, Any]:
    """The recipe a retriever was made by, as JSON can hold it."""
    recipe = getattr(retriever, "recipe", None)
    if not isinstance(retriever, Updatable) or not isinstance(recipe, BaseModel):
        raise InvalidInput(
            f"{type(retriever).__name__} cannot be saved: only retrievers made by `create`, which take documents, can; "
            "register a recipe for it"
        )
    return recipe.model_dump(mode="json")


def _fingerprints(state: Any) -> list[str]:
    if isinstance(state, dict):
        own = [state["fingerprint"]] if isinstance(state.get("fingerprint"), str) else []
        return own + [found for key in sorted(state) for found in _fingerprints(state[key])]
    return []
