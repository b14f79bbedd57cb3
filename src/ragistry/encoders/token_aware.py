"""A dense encoder whose vectors keep the keywords of their texts, and maybe a query encoder trained further."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as read_tensors
from safetensors.numpy import save as write_tensors

from ..errors import Corrupt, FingerprintMismatch, InvalidInput
from ..protocols import Encoder
from ..storage import explained, write_file
from ..types import Floats, Item, Kind, Role
from .cached import Cached
from .onnx import Quick
from .stack import Stack
from .steps import Features
from .steps.token_bridge import TokenBridge
from .token_table import Arrays, checksum, marked
from .tuned import Tuned, around, masked_lm_head

FILE = "bridge.safetensors"
"""The name of a bridge's file in a folder."""
FORMAT = "ragistry token bridge 1"
CHUNK = 1024
"""Texts whose tokens are looked at at a time, which bounds memory."""


class TokenAware:
    """An encoder followed by a token bridge; its query side may be trained further, its documents are as they were.

    Vectors that were computed before are augmented without the model: only their texts' tokens are needed.

    Args:
        encoder: A stack over a transformer, maybe with a cache.
        bridge: What changes the vectors.
        tuned: Weights of the model that were trained further, by name.
        both: Whether documents are encoded with `tuned` as well; by default queries alone are.

    Raises:
        InvalidInput: If the encoder is no stack.

    Example:
        >>> from ragistry.encoders.backbones import stack
        >>> base = stack("all-MiniLM-L6-v2")
        >>> aware = TokenAware(base, new_bridge(base, form="sum", side="shared"))
        >>> bool((aware.encode(["sonnet"], "query") == base.encode(["sonnet"], "query")).all())  # untrained
        True
    """

    kind: Kind = "dense"

    def __init__(self, encoder: Encoder, bridge: TokenBridge, tuned: Arrays | None = None, both: bool = False) -> None:
        self.encoder = encoder
        self.bridge = bridge.eval()
        self.tuned = dict(tuned or {})
        self.both = both and bool(self.tuned)
        base = stack_of(encoder)
        backbone = Tuned(base.backbone, self.tuned) if self.tuned else base.backbone
        # With nothing tuned, all share the model and its tokenizer that the base has loaded, or will.
        self._queries = base.over(backbone, [*base.steps, bridge])
        self._documents = base.over(backbone, base.steps) if self.both else encoder

    def encode(self, items: Sequence[Item], role: Role) -> Floats:
        """One vector per item, in order: float32 [len(items), d]. Raises what the encoder does."""
        live = bool(self.tuned) or "embedding" in self.bridge.needs or isinstance(self.encoder, Stack)
        if role == "query" and live:
            return self._queries.encode(items, role)
        vectors = (self._documents if role == "document" else self.encoder).encode(items, role)
        return self.augmented(np.asarray(vectors, np.float32), items, role)

    def augmented(self, vectors: Floats, items: Sequence[Item], role: Role) -> Floats:
        """Vectors of these items, computed before, with what the bridge adds: float32 [n, d].

        Raises:
            InvalidInput: If the bridge reads token embeddings of this role, which vectors alone do not give.
        """
        if not self.changes(role) or not len(items):
            return vectors
        if role == "query" and "embedding" in self.bridge.needs:
            raise InvalidInput("this bridge reads the embeddings of a query's tokens; call `encode`")
        found, base = np.empty_like(vectors), stack_of(self.encoder)
        for first in range(0, len(items), CHUNK):
            some = slice(first, first + CHUNK)
            tokens = base.tokens(items[some], role)
            with torch.inference_mode():
                features = padded(tokens) | {"vector": torch.from_numpy(np.array(vectors[some], np.float32))}
                found[some] = self.bridge(features, role)["vector"].numpy()
        return found

    def changes(self, role: Role) -> bool:
        """Whether the bridge changes vectors of this role."""
        return self.bridge.side in (role, "both", "shared")

    def fingerprint(self) -> str:
        """Of what makes the vectors of documents: they alone meet in an index."""
        base = self._documents.fingerprint()
        if not self.changes("document"):
            return base
        return marked(base, *self.parts())

    def parts(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        """The bridge's settings and arrays, from which `bridge_of` makes it again."""
        return parts_of(self.bridge)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bridge, and what was tuned, to one safetensors file that names the encoder and its fingerprint.

        A folder that holds it as `bridge.safetensors` can be given as `model` to any recipe over embeddings.

        Raises:
            StorageError: If it cannot be written.
        """
        settings, arrays = parts_of(self.bridge)
        tensors = {f"bridge.{name}": value for name, value in arrays.items()}
        tensors |= {f"model.{name}": np.ascontiguousarray(value, np.float32) for name, value in self.tuned.items()}
        about = {"settings": json.dumps(settings, sort_keys=True), "both": str(int(self.both))}
        about |= {
            "format": FORMAT,
            "fingerprint": self.encoder.fingerprint(),
            "model": stack_of(self.encoder).backbone.name,
        }
        write_file(Path(path), write_tensors(tensors, about | {"checksum": checksum(about, tensors)}))

    @classmethod
    def load(cls, path: str | os.PathLike[str], encoder: Encoder) -> TokenAware:
        """Read a bridge and put it over the encoder it was made over.

        Args:
            path: A file made by `save`, or a folder that holds one as `bridge.safetensors`.
            encoder: What to put it over.

        Raises:
            StorageError: If there is no such file.
            Corrupt: If it is no bridge, or damaged.
            FingerprintMismatch: If it was made over another encoder.
        """
        file = file_of(path)
        about, tensors = _read(file)
        if about["fingerprint"] != encoder.fingerprint():
            raise FingerprintMismatch(
                f"{str(file)!r} was made over another encoder (fingerprint {about['fingerprint'][:12]}, this one is "
                f"{encoder.fingerprint()[:12]}); use the model and settings it was made over, or fit again"
            )
        parts: dict[str, dict[str, Floats]] = {"bridge": {}, "model": {}}
        for key, value in tensors.items():
            part, _, name = key.partition(".")
            parts[part][name] = value
        bridge = bridge_of(json.loads(about["settings"]), parts["bridge"], encoder)
        return cls(encoder, bridge, parts["model"], about["both"] == "1")


def file_of(path: str | os.PathLike[str]) -> Path:
    """The file itself, or the one in a folder."""
    return Path(path) / FILE if Path(path).is_dir() else Path(path)


def model_of(path: str | os.PathLike[str]) -> str:
    """The model that a stored bridge was made over, as it was named then. Raises as `TokenAware.load`."""
    return _read(file_of(path))[0].get("model", "")


def stack_of(encoder: Encoder) -> Stack:
    """The stack that an encoder is, keeps a cache for, or is quicker than.

    Raises:
        InvalidInput: If it is neither: a service shows no tokens.
    """
    found = encoder.encoder if isinstance(encoder, Cached) else encoder
    if isinstance(found, Quick):
        found = found.torch
    if not isinstance(found, Stack):
        raise InvalidInput(
            f"{type(found).__name__} shows no tokens, which token-aware augmentation needs; use a model that runs here, "
            "with the runtime 'auto' or 'torch'"
        )
    return found


def new_bridge(encoder: Encoder, **settings: Any) -> TokenBridge:
    """An untrained bridge for an encoder: see `TokenBridge` for `paradigm`, `form` and `side`."""
    base = stack_of(encoder)
    loaded = base.loaded()
    words = loaded.model.get_input_embeddings().weight
    with torch.inference_mode():  # here, and not by `encode`, whose workers may be those that ask
        features = loaded.embed([loaded.tokenise(["a"])[0]])
        for step in base.steps:
            features = step(features, "query")
    dimension = features["vector"].shape[1]
    head = masked_lm_head(base.backbone, loaded) if settings.get("paradigm") == "clr" else None
    return TokenBridge(
        dimension, len(words), ignored=around(loaded), hidden=loaded.model.config.hidden_size, head=head, **settings
    )


def parts_of(bridge: TokenBridge) -> tuple[dict[str, Any], dict[str, Floats]]:
    """A bridge's settings and arrays, from which `bridge_of` makes it again."""
    settings = {"paradigm": bridge.paradigm, "form": bridge.form, "side": bridge.side}
    return settings, {name: np.array(value.detach().numpy(), np.float32) for name, value in bridge.state_dict().items()}


def bridge_of(settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder) -> TokenBridge:
    """The bridge with these settings and arrays.

    Raises:
        Corrupt: If they do not fit the encoder.
    """
    bridge = new_bridge(encoder, **settings)
    if arrays.get("idf", np.empty(0)).shape == (bridge.vocabulary,) and arrays["length"] > 0:
        bridge.idf.copy_(torch.from_numpy(np.array(arrays["idf"])))
        bridge.narrow()
    try:
        bridge.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    except RuntimeError as error:
        raise Corrupt(f"the token bridge does not fit the model: {str(error).partition(chr(10))[2].strip()}") from None
    return bridge


def padded(tokens: Sequence[Sequence[int]]) -> Features:
    """Token ids and mask, int64 [b, t]."""
    longest = max(map(len, tokens))
    ids, mask = np.zeros((2, len(tokens), longest), np.int64)
    for row, found in enumerate(tokens):
        ids[row, : len(found)], mask[row, : len(found)] = found, 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def _read(file: Path) -> tuple[dict[str, str], dict[str, Floats]]:
    with explained("read", file):
        content = file.read_bytes()
    try:
        size = int.from_bytes(content[:8], "little")
        about: dict[str, str] = json.loads(content[8 : 8 + size]).get("__metadata__", {})
        tensors = read_tensors(content)
    except (SafetensorError, ValueError, AttributeError):
        about, tensors = {}, {}
    stored = about.pop("checksum", "")
    if about.get("format") != FORMAT or stored != checksum(about, tensors):
        raise Corrupt(f"{str(file)!r} is damaged, or no token bridge; restore it from a copy, or fit again")
    return about, tensors
