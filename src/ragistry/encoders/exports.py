"""Models that were exported for ONNX Runtime, kept in a cache directory: found again without torch, and trusted only while
the files they were made from are as they were.

    <cache>/onnx/<model's fingerprint>-<precision>-<checksum>/   model.onnx, model.onnx.data, tokenizer.json
    <cache>/onnx/cards/<hash of the model's name>.json           which of these a name means, and what it was made from

The cache is the directory in the environment variable RAGISTRY_CACHE, else `ragistry` in the user's cache directory
(XDG_CACHE_HOME, or `~/.cache`). It may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..errors import Corrupt
from ..storage import explained, write_file
from ..types import Role

Variant: TypeAlias = Literal["fp32", "int8"]
"""Of weights in an export. Vectors of `fp32` agree with torch's; those of `int8` are an encoder's of their own."""
Engine: TypeAlias = Literal["onnxruntime", "openvino"]
"""What runs an export."""
EXTRA: dict[Engine, str] = {"onnxruntime": "onnx", "openvino": "openvino"}
"""What installs it."""
LEAST_COSINE = 0.9999
"""Of a vector of torch and that of an fp32 export by any engine; an export with less is refused, an engine not used."""
FORMAT = 2
"""Of cards and of the operations in an export: others are made again."""
MODEL, TOKENIZER = "model.onnx", "tokenizer.json"
READ = frozenset({".json", ".txt", ".model", ".safetensors"})
"""Of a model's folder, the files that can decide what it computes."""


@dataclass(frozen=True, slots=True)
class Export:
    """An exported model, and what else is needed to use it as its makers meant.

    Attributes:
        variant: Of the weights.
        fingerprint: Of the model's files, as `Backbone.fingerprint` gives it.
        pooling: The model's own, if no other is asked for.
        prompts: The model's own.
        max_length: The model's own, in tokens.
        least: Tokens that `max_length` must leave room for.
        limit: Tokens that the model can read.
        padding: The token id to pad with.
        cosine: The least between a vector of torch and this one's, over the texts it was checked with.
        openvino: The same by OpenVINO; 0 if it was not installed then.
        folder: The directory of the files.
        files: Checksums (SHA-256) of those files by name.
        source: Size and time of change of the files that it was made from, by path.
        problem: Why there is no export of this model; then it has no files.
    """

    variant: Variant
    fingerprint: str
    pooling: str
    prompts: Mapping[Role, str]
    max_length: int
    least: int
    limit: int
    padding: int
    cosine: float = 0.0
    openvino: float = 0.0
    folder: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    source: Mapping[str, list[int]] = field(default_factory=dict)
    problem: str = ""

    @property
    def path(self) -> Path:
        """The directory of the files."""
        return Path(self.folder)

    def check(self) -> None:
        """Read the files through.

        Raises:
            Corrupt: If one is missing, or not what was written.
        """
        for name, checksum in self.files.items():
            path = self.path / name
            try:
                found = _checksum(path)
            except OSError as error:
                raise Corrupt(f"{str(path)!r} cannot be read ({error}); export the model again") from None
            if found != checksum:
                raise Corrupt(f"{str(path)!r} is damaged: it fails its checksum; export the model again")


def cache() -> Path:
    """The directory that exports are kept in. It may not exist yet."""
    given = os.environ.get("RAGISTRY_CACHE")
    base = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "ragistry"
    return base.expanduser().absolute() / "onnx"


def find(model: str, variant: Variant = "fp32") -> Export | None:
    """The export of a model, if there is one and the model's files are as they were when it was made.

    Args:
        model: As `stack` takes it: a name, or a folder.
        variant: Of the weights.

    Returns:
        The export, or one with a `problem` if the model was found not to be exportable; None if nothing is known.
    """
    path = _card(model, variant)
    try:
        found = _read(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        warnings.warn(f"{str(path)!r} cannot be used ({error}); the model is exported again", RuntimeWarning, 2)
        return None
    fresh = found.source and all(_stamp(Path(name)) == stamp for name, stamp in found.source.items())
    there = found.problem or (found.files and all((found.path / name).is_file() for name in found.files))
    return found if fresh and there else None


def same(fingerprint: str, variant: Variant) -> Export | None:
    """A sound export of a model with this fingerprint, by whatever name it was exported."""
    for found in _all():
        if (found.fingerprint, found.variant) == (fingerprint, variant) and found.files:
            with contextlib.suppress(Corrupt):
                found.check()
                return found
    return None


@contextmanager
def making() -> Iterator[Path]:
    """One process at a time exports a model; it writes into the directory given here, and calls `keep`.

    Raises:
        StorageError: If the cache cannot be written.
    """
    from filelock import FileLock  # not for those who only look an export up

    with explained("create", cache()):
        (cache() / "cards").mkdir(parents=True, exist_ok=True)
        with FileLock(cache() / "cards" / ".lock"):
            folder = tempfile.mkdtemp(prefix=".part-", dir=cache())
            try:
                yield Path(folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def keep(model: str, made: Export, written: Path | None = None) -> Export:
    """Put what was written in its place and write the card, after which `find` finds it. Called within `making`."""
    name = f"{made.fingerprint[:16]}-{made.variant}-"
    if written is not None:
        files = {path.name: _checksum(path) for path in sorted(written.iterdir())}
        made = replace(made, folder=str(cache() / f"{name}{_sealed(files)[:16]}"), files=files)
        with explained("write", made.path):
            written.chmod(0o755)
            shutil.rmtree(made.path, ignore_errors=True)  # the same, or damaged
            written.rename(made.path)
    content = {"format": FORMAT, **asdict(made), "folder": made.path.name}  # so that the cache can be moved
    write_file(_card(model, made.variant), json.dumps(content | {"checksum": _sealed(content)}, indent=1).encode())
    meant = {found.path for found in _all()}
    for path in cache().glob(f"{name}*"):
        if path not in meant:
            shutil.rmtree(path, ignore_errors=True)
    return made


def forget(model: str, damaged: Export) -> None:
    """Have a damaged export not found any more, unless another has taken its place."""
    found = find(model, damaged.variant)
    if found is not None and found.folder == damaged.folder:
        with explained("write", cache()):
            _card(model, damaged.variant).unlink(missing_ok=True)


def source_of(root: Path) -> dict[str, list[int]]:
    """Size and time of change of what a model's folder holds; of one from the hub, also of what says which version it is."""
    root = root.absolute()
    files = [path for pattern in ("*", "*/*") for path in root.glob(pattern) if path.suffix in READ]
    if root.parent.name == "snapshots":
        files += (root.parent.parent / "refs").glob("*")
    return {str(path): stamp for path in sorted(files) if (stamp := _stamp(path))} | {str(root): _stamp(root)}


def _all() -> Iterator[Export]:
    """What the cards that can be read say."""
    for path in sorted(cache().glob("cards/*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            yield _read(path)


def _read(path: Path) -> Export:
    content = json.loads(path.read_bytes())
    if content.pop("checksum") != _sealed(content) or content.pop("format") != FORMAT:
        raise ValueError("it fails its checksum, or is of another version")
    return Export(**content | {"folder": str(cache() / content["folder"])})


def _stamp(path: Path) -> list[int]:
    """Of a file its size and time; of a directory, the number of files that count, so that a new one is seen."""
    try:
        if path.is_dir():
            return [sum(entry.suffix in READ for entry in path.iterdir())]
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _card(model: str, variant: Variant) -> Path:
    path = Path(model).expanduser()
    name = str(path.absolute()) if path.is_dir() else model
    return cache() / "cards" / f"{hashlib.sha256(json.dumps([name, variant]).encode()).hexdigest()[:32]}.json"


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sealed(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
