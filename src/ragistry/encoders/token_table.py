"""A token bridge served without torch: statistical weights of a text's tokens, and their rows of a matrix."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import Corrupt, InvalidInput
from ..protocols import Encoder
from ..types import Floats, Ints, Item, Kind, Role
from .cached import Cached
from .projected import lengths

SATURATION, LENGTH = 1.2, 0.75
"""Of counts in documents: k1 and b of BM25."""
Arrays: TypeAlias = Mapping[str, Floats]


class TokenTable:
    """An encoder whose vectors are changed as `TokenBridge` of the paradigm `slr` does it, by arrays alone.

    Only the rows of a text's own tokens are read, so the matrix may stay on disk.

    Args:
        encoder: Of the vectors; one that shows its tokens: a `Stack`, an `Onnx` or a `Quick`, maybe with a cache.
        settings: `form` and `side` of the bridge.
        arrays: Its weights and buffers, by their names there.

    Raises:
        InvalidInput: If the paradigm is another: the weights of its queries need a model.
        Corrupt: If arrays are missing, or their shapes do not go together.

    Example:
        >>> class Words:
        ...     kind = "dense"
        ...     def encode(self, items, role):
        ...         return np.eye(len(items), 2, dtype=np.float32)
        ...     def tokens(self, items, role):
        ...         return [[len(word) for word in text.split()] for text in items]
        >>> arrays = {"idf": np.ones(9), "length": np.ones(()), "scale": np.ones(()), "maps.query": np.ones((9, 2))}
        >>> table = TokenTable(Words(), {"paradigm": "slr", "form": "sum", "side": "query"}, arrays)
        >>> table.encode(["to be"], "query").round(3)  # (1, 0) and the row of "to", which is that of "be", a unit length
        array([[0.894, 0.447]], dtype=float32)
    """

    kind: Kind = "dense"
    both = False

    def __init__(self, encoder: Encoder, settings: Mapping[str, Any], arrays: Arrays) -> None:
        if settings["paradigm"] != "slr":
            raise InvalidInput(f"the paradigm {settings['paradigm']!r} needs a model to weigh tokens; use `TokenAware`")
        self.encoder = encoder
        self.settings, self.arrays = dict(settings), dict(arrays)
        self.tuned: Arrays = {}
        side = self.settings["side"]
        names = {
            "shared": {"query": "query", "document": "query"},
            "both": {role: role for role in ("query", "document")},
        }
        self._maps: Mapping[str, str] = names.get(side, {side: side})
        try:
            self._idf, self._length = arrays["idf"], float(arrays["length"])
            self._scale = np.float32(arrays["scale"])
            for name in self._maps.values():
                if arrays[f"maps.{name}"].shape[0] != len(self._idf):
                    raise Corrupt(
                        f"the token bridge's matrix has {arrays[f'maps.{name}'].shape[0]} rows for {len(self._idf)} tokens"
                    )
        except KeyError as error:
            raise Corrupt(f"the token bridge lacks {error}; fit again") from None

    def encode(self, items: Sequence[Item], role: Role) -> Floats:
        """One vector per item, in order: float32 [len(items), d]. Raises what the encoder does."""
        return self.augmented(np.asarray(self.encoder.encode(items, role), np.float32), items, role)

    def augmented(self, vectors: Floats, items: Sequence[Item], role: Role) -> Floats:
        """Vectors of these items, computed before, with what the bridge adds: float32 [n, d]."""
        if not self.changes(role) or not len(items):
            return vectors
        name = self._maps[role]
        table = self.arrays[f"maps.{name}"]
        found = np.empty((len(items), table.shape[1]), np.float32)
        for row, ids in enumerate(tokens_of(self.encoder, items, role)):
            tokens, weights = self._weights(np.asarray(ids, np.int64), role)
            found[row] = weights @ table[tokens]
        if self.settings["form"] == "sum":
            turned = vectors + lengths(vectors) * found
        else:
            logits = found + self.arrays[f"bias.{name}"]
            turned = vectors * np.exp(logits - logits.max(axis=1, keepdims=True))
        same = turned * (lengths(vectors) / np.maximum(lengths(turned), np.float32(1e-12)))
        return same.astype(np.float32, copy=False)

    def changes(self, role: Role) -> bool:
        """Whether vectors of this role are changed."""
        return role in self._maps

    def fingerprint(self) -> str:
        """Of what makes the vectors of documents: they alone meet in an index."""
        base = self.encoder.fingerprint()
        return base if not self.changes("document") else marked(base, self.settings, self.arrays)

    def parts(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        """Settings and arrays, from which it is made again."""
        return self.settings, self.arrays

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as `TokenAware.save` does, which needs torch."""
        from .token_aware import TokenAware, bridge_of

        TokenAware(self.encoder, bridge_of(self.settings, self.arrays, self.encoder)).save(path)

    def _weights(self, ids: Ints, role: Role) -> tuple[Ints, Floats]:
        """The tokens of a text, each once, and their weights, which together have length `scale`."""
        if len(ids) and int(ids.max()) >= len(self._idf):
            raise InvalidInput(
                f"token id {int(ids.max())} was given to a bridge over {len(self._idf)} tokens; make it for this tokenizer"
            )
        kept = ids[self._idf[ids] > 0]
        tokens, counts = np.unique(kept, return_counts=True)
        weights = self._idf[tokens].astype(np.float32)
        if self._length > 0:
            if role == "document":
                norm = 1 - LENGTH + LENGTH * len(kept) / self._length
                weights = weights * (counts * (SATURATION + 1) / (counts + SATURATION * norm)).astype(np.float32)
            weights = weights / np.maximum(np.sqrt((weights * weights).sum()), np.float32(1e-6))
        return tokens, weights * self._scale


def tokens_of(encoder: Encoder, items: Sequence[Item], role: Role) -> list[list[int]]:
    """The token ids of items as an encoder's model reads them.

    Raises:
        InvalidInput: If it shows none: a service does not.
    """
    found: Any = encoder.encoder if isinstance(encoder, Cached) else encoder
    if not hasattr(found, "tokens"):
        raise InvalidInput(
            f"{type(found).__name__} shows no tokens, which token-aware augmentation needs; use a model that runs here"
        )
    tokens: list[list[int]] = found.tokens(items, role)
    return tokens


def marked(base: str, settings: Mapping[str, Any], arrays: Arrays) -> str:
    """The fingerprint of an encoder with a bridge over its documents."""
    return hashlib.sha256(f"{base}\n{checksum(settings, arrays)}".encode()).hexdigest()


def checksum(about: Mapping[str, Any], arrays: Arrays) -> str:
    """Of settings and named arrays."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, value in sorted(arrays.items()):
        digest.update(f"{name}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value, "<f4").tobytes())
    return digest.hexdigest()
