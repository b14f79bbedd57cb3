"""An encoder whose vectors are turned by a small learnt map, in numpy: nothing else is needed to serve it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from ..errors import Corrupt, FingerprintMismatch, InvalidInput, StorageError
from ..protocols import Encoder
from ..registry import require
from ..storage import explained, write_file
from ..types import Floats, Item, Kind, Role

Form: TypeAlias = Literal["linear", "softmax"]
Arrays: TypeAlias = Mapping[str, Floats]
FILE = "adapter.safetensors"
"""The name of an adapter's file, on the hub or in a folder."""
FORMAT = "ragistry adapter 1"
_SHAPES = {
    ("keys", "values"): ("rd", "rd"),
    ("down", "up"): ("dr", "rd"),
    ("weight",): ("dd",),
}
"""The arrays of each kind of map, in which d is the dimension and r the rank."""


@dataclass(frozen=True)
class Projection:
    """Maps v -> |v| (v + r(v)) / |v + r(v)| by role; a role without one is left bit for bit as it is.

    Args:
        form: `softmax`: r(v) = softmax(v K') V; `linear`: r(v) = v A B with a rank, or v W.
        arrays: By role: `keys` and `values` [rank, d]; `down` [d, rank] and `up` [rank, d]; or `weight` [d, d]; float32.

    Raises:
        InvalidInput: If arrays are missing, of another shape than these, not finite, or of more than one dimension d.

    Example:
        >>> turn = Projection("linear", {"query": {"weight": np.array([[0, 1], [-1, 0]], np.float32)}})
        >>> turn(np.array([[2.0, 0.0]], np.float32), "query").round(3)
        array([[1.414, 1.414]], dtype=float32)
    """

    form: Form
    arrays: Mapping[Role, Arrays]

    def __post_init__(self) -> None:
        if not self.arrays or self.form not in get_args(Form) or set(self.arrays) - set(get_args(Role)):
            raise InvalidInput(
                f"an adapter of form {self.form!r} for {sorted(self.arrays)} cannot be used; the forms are "
                f"{', '.join(get_args(Form))}, the roles {', '.join(get_args(Role))}"
            )
        arrays = {
            role: {name: np.ascontiguousarray(value, np.float32) for name, value in found.items()}
            for role, found in self.arrays.items()
        }
        object.__setattr__(self, "arrays", arrays)
        dimensions = {_dimension(self.form, role, arrays) for role, arrays in self.arrays.items()}
        if len(dimensions) > 1:
            raise InvalidInput(f"an adapter has maps of dimension {sorted(dimensions)}; one for all roles is needed")

    @cached_property
    def dimension(self) -> int:
        """Of the vectors."""
        arrays = next(iter(self.arrays.values()))
        return int((arrays["down"].T if "down" in arrays else next(iter(arrays.values()))).shape[1])

    @cached_property
    def rank(self) -> int | None:
        """Of the residual; none for a full map."""
        arrays = next(iter(self.arrays.values()))
        return len(arrays["keys"]) if "keys" in arrays else len(arrays["up"]) if "up" in arrays else None

    def __call__(self, vectors: Floats, role: Role) -> Floats:
        """Turned vectors, float32 [n, d].

        Raises:
            InvalidInput: If the vectors have another dimension.
        """
        arrays = self.arrays.get(role)
        if arrays is None:
            return vectors
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise InvalidInput(
                f"the adapter was learnt on vectors of {self.dimension} dimensions, these are of shape {vectors.shape}; use "
                "the encoder it was learnt over"
            )
        if "weight" in arrays:
            turned = vectors + vectors @ arrays["weight"]
        elif "up" in arrays:
            turned = vectors + vectors @ arrays["down"] @ arrays["up"]
        else:
            logits = vectors @ arrays["keys"].T
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            turned = vectors + (weights / weights.sum(axis=1, keepdims=True)) @ arrays["values"]
        turned *= lengths(vectors) / np.maximum(lengths(turned), 1e-12)
        return turned

    def fingerprint(self) -> str:
        """A hash of every array."""
        digest = hashlib.sha256(self.form.encode())
        for role, arrays in sorted(self.arrays.items()):
            for name, value in sorted(arrays.items()):
                digest.update(f"{role}.{name}{value.shape}".encode())
                digest.update(np.ascontiguousarray(value, "<f4").tobytes())
        return digest.hexdigest()


class Projected:
    """An encoder followed by a projection. Serving it takes numpy, whatever the encoder is.

    Args:
        encoder: A dense encoder, by whatever means: a model here, a service elsewhere.
        projection: Learnt over vectors of this very encoder.

    Raises:
        InvalidInput: If the encoder is not dense.

    Example:
        >>> from ragistry.encoders.functions import Function
        >>> base = Function(lambda texts: [[1.0, 0.0] for _ in texts], "constant")
        >>> turn = Projection("linear", {"query": {"weight": np.array([[0, 1], [-1, 0]], np.float32)}})
        >>> Projected(base, turn).encode(["anything"], "query").round(3)
        array([[0.707, 0.707]], dtype=float32)
    """

    kind: Kind = "dense"

    def __init__(self, encoder: Encoder, projection: Projection) -> None:
        if encoder.kind != "dense":
            raise InvalidInput(f"the encoder is of kind {encoder.kind!r}; an adapter turns dense vectors")
        self.encoder = encoder
        self.projection = projection

    def encode(self, items: Sequence[Item], role: Role) -> Floats:
        """One vector per item, in order: float32 [len(items), d]."""
        return self.projection(np.asarray(self.encoder.encode(items, role), np.float32), role)

    def fingerprint(self) -> str:
        """Of the encoder, and of the projection where it changes documents: they alone meet in an index."""
        if "document" not in self.projection.arrays:
            return self.encoder.fingerprint()
        both = f"{self.encoder.fingerprint()}\n{self.projection.fingerprint()}"
        return hashlib.sha256(both.encode()).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the adapter, without the encoder, to one safetensors file that names the encoder's fingerprint.

        Raises:
            StorageError: If it cannot be written.
        """
        write_file(Path(path), packed(self.projection, self.encoder.fingerprint()))

    @classmethod
    def load(cls, path: str | os.PathLike[str], encoder: Encoder) -> Projected:
        """Read an adapter and put it over the encoder it was learnt over.

        Args:
            path: A file made by `save`, or a folder that holds one as `adapter.safetensors`.
            encoder: What to put it over.

        Raises:
            StorageError: If there is no such file.
            Corrupt: If it is no adapter, or damaged.
            FingerprintMismatch: If it was learnt over another encoder.
        """
        file = Path(path)
        file = file / FILE if file.is_dir() else file
        with explained("read", file):
            content = file.read_bytes()
        projection, made_over = unpacked(content, str(file))
        if made_over != encoder.fingerprint():
            raise FingerprintMismatch(
                f"{str(file)!r} was learnt over another encoder (fingerprint {made_over[:12]}, this one is "
                f"{encoder.fingerprint()[:12]}); use the model and settings it was learnt over, or fit again"
            )
        return cls(encoder, projection)

    def push_to_hub(self, repository: str, *, private: bool = True, token: str | None = None) -> str:
        """Upload the adapter with a short card to the Hugging Face hub and return its address.

        Args:
            repository: Such as `our-team/docs-adapter`; it is made if it does not exist.
            private: Whether a new repository is private.
            token: By default the one that `hf auth login` stored.

        Raises:
            StorageError: If the hub refuses it or cannot be reached.
        """
        hub = require("huggingface_hub", "dense")
        with TemporaryDirectory() as folder:
            self.save(Path(folder) / FILE)
            (Path(folder) / "README.md").write_text(_card(self.projection, self.encoder), encoding="utf-8")
            try:
                interface = hub.HfApi(token=token)
                interface.create_repo(repository, private=private, exist_ok=True)
                return str(interface.upload_folder(repo_id=repository, folder_path=folder))
            except Exception as error:  # the client raises a dozen unrelated types
                raise StorageError(f"cannot upload the adapter to {repository!r}: {_first_line(error)}") from error

    @classmethod
    def from_hub(cls, repository: str, encoder: Encoder, *, revision: str | None = None) -> Projected:
        """An adapter from the hub, or from a local folder laid out like a repository there.

        Raises:
            StorageError: If it cannot be had.
            Corrupt: If it is damaged.
            FingerprintMismatch: If it was learnt over another encoder.
        """
        if Path(repository).is_dir():
            return cls.load(repository, encoder)
        hub = require("huggingface_hub", "dense")
        try:
            path = hub.hf_hub_download(repository, FILE, revision=revision)
        except Exception as error:  # the client raises a dozen unrelated types
            raise StorageError(
                f"cannot get {FILE} of {repository!r} from the hub: {_first_line(error)}; check the name and the network, "
                "or give a local folder"
            ) from error
        return cls.load(path, encoder)


def packed(projection: Projection, fingerprint: str) -> bytes:
    """An adapter as the bytes of a safetensors file."""
    require("safetensors", "dense")
    from safetensors.numpy import save

    tensors = {
        f"{role}.{name}": np.ascontiguousarray(value, np.float32)
        for role, arrays in projection.arrays.items()
        for name, value in arrays.items()
    }
    about = {"format": FORMAT, "form": projection.form, "fingerprint": fingerprint}
    return save(tensors, {**about, "checksum": _checksum(projection, fingerprint)})


def unpacked(content: bytes, source: str) -> tuple[Projection, str]:
    """The adapter in a safetensors file, and the fingerprint of the encoder it was learnt over.

    Raises:
        Corrupt: If it is no adapter, or damaged.
    """
    require("safetensors", "dense")
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        about = _metadata(content)
        if about.get("format") != FORMAT:
            raise Corrupt(f"{source!r} is no adapter of this version: its format is {about.get('format')!r}")
        arrays: dict[Any, dict[str, Floats]] = {}
        for key, value in load(content).items():
            role, _, name = key.partition(".")
            arrays.setdefault(role, {})[name] = value
        form: Any = about.get("form")
        projection = Projection(form, arrays)
    except (SafetensorError, ValueError, InvalidInput) as error:
        raise Corrupt(f"{source!r} is damaged ({_first_line(error)}); restore it from a copy, or fit again") from None
    if about.get("checksum") != _checksum(projection, about.get("fingerprint", "")):
        raise Corrupt(f"{source!r} is damaged: it fails its checksum; restore it from a copy, or fit again")
    return projection, about.get("fingerprint", "")


def unit(vectors: Floats) -> Floats:
    """Vectors of length 1, float32 [n, d]; a zero vector stays zero."""
    found: Floats = (vectors / np.maximum(lengths(vectors), np.float32(1e-12))).astype(np.float32, copy=False)
    return found


def lengths(vectors: Floats) -> Floats:
    """float32 [n, 1]."""
    found: Floats = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    return found


def _checksum(projection: Projection, made_over: str) -> str:
    return hashlib.sha256(f"{projection.fingerprint()}\n{made_over}".encode()).hexdigest()


def _metadata(content: bytes) -> dict[str, str]:
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size]) if 0 < size < len(content) else {}
    found = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    return found if isinstance(found, dict) else {}


def _dimension(form: str, role: str, arrays: Arrays) -> int:
    kinds = [names for names in _SHAPES if set(names) == set(arrays) and (form == "softmax") == ("keys" in names)]
    if kinds:
        sizes: dict[str, int] = {}
        fits = all(
            arrays[name].ndim == 2
            and bool(arrays[name].size)
            and all(
                sizes.setdefault(letter, size) == size for letter, size in zip(shape, arrays[name].shape, strict=True)
            )
            and bool(np.isfinite(arrays[name]).all())
            for name, shape in zip(kinds[0], _SHAPES[kinds[0]], strict=True)
        )
        if fits:
            return sizes["d"]
    shapes = {name: value.shape for name, value in arrays.items()}
    raise InvalidInput(
        f"the adapter's map for {role} has arrays {shapes}, which do not fit the form {form!r} or are not finite; `keys` "
        "and `values` [rank, d], `down` [d, rank] and `up` [rank, d], or `weight` [d, d] are needed"
    )


def _card(projection: Projection, encoder: Encoder) -> str:
    rank = "full" if projection.rank is None else f"rank {projection.rank}"
    return (
        "---\nlibrary_name: ragistry\ntags: [retrieval, embeddings, adapter]\n---\n\n# Embedding adapter\n\n"
        f"A {projection.form} residual ({rank}) for {' and '.join(projection.arrays)} vectors of {projection.dimension} "
        f"dimensions.\n\nFingerprint of the encoder it was learnt over: `{encoder.fingerprint()}`.\n\n"
        "```python\nfrom ragistry.encoders.projected import Projected\n\n"
        'encoder = Projected.from_hub("this-repository", the_encoder_it_was_learnt_over)\n```\n'
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
