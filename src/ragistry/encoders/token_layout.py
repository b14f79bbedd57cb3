"""What the folder of a multi-vector model says of how it was meant to be used."""

from __future__ import annotations

import os
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ..errors import Corrupt, InvalidInput
from ..models import MINILM, find_model, read_json
from ..types import Floats
from .backbones import Backbone, Layout, read_transformer

PUNCTUATION = tuple(string.punctuation)
WIDTHS = ("hidden_size", "dim", "d_model", "n_embd")
"""What models' settings call the width of their token embeddings."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """Mask tokens at the end of a query up to `length` tokens, which count as words of the query do.

    `attended`: whether the query's own tokens see them in the model.

    Source: ColBERT, arXiv:2004.12832 (SIGIR 2020), section 3.2, "query augmentation".
    """

    length: int
    attended: bool = False

    def __post_init__(self) -> None:
        if self.length < 1:
            raise InvalidInput(f"queries are to be expanded to {self.length} tokens; a positive number is needed")


@dataclass(frozen=True, slots=True)
class Settings:
    """How the makers of a multi-vector model meant it to be used; `width` is that of the token embeddings, if known."""

    layout: Layout
    width: int | None = None
    projection: Floats | None = None
    query_length: int | None = None
    expansion: Expansion | None = None
    skipped: Sequence[str] = ()


class TokenBackbone(Backbone):
    """A backbone whose folder may be that of a multi-vector model."""

    def __init__(self, name: str | os.PathLike[str] = MINILM) -> None:
        super().__init__(name)
        self._settings: Settings | None = None

    def layout(self) -> Layout:
        """Length and prompts as the model's folder gives them."""
        return self.settings().layout

    def settings(self) -> Settings:
        """All that the model's folder gives."""
        with self._lock:
            if self._settings is None:
                root = find_model(self.name)
                modules = read_json(root / "modules.json", [])
                found = [(str(m.get("type", "")).rpartition(".")[2], root / str(m.get("path", ""))) for m in modules]
                if {kind for kind, _ in found} & {"Dense", "MultiVectorMask"}:
                    self._settings = _read_settings(root, found)
                else:
                    layout = super().layout()
                    self._settings = Settings(layout, _width(read_json(layout.folder / "config.json", {})))
            return self._settings


def _read_settings(root: Path, modules: Sequence[tuple[str, Path]]) -> Settings:
    """Of a folder laid out by sentence-transformers 6, or PyLate before its version 4."""
    paths = dict(modules)
    known = {"Transformer", "Dense", "MultiVectorMask", "Normalize"}
    folder, sentence, limit = read_transformer(root, paths, known, "a projection of each token")
    whole = read_json(root / "config_sentence_transformers.json", {})
    given = {**whole, **{key: value for key, value in sentence.items() if value is not None}}
    expansion = _expansion(given)
    length = int(given.get("document_length") or sentence.get("max_seq_length") or limit)
    asked = int(given.get("query_length") or sentence.get("max_seq_length") or limit)
    if expansion is not None and (given.get("query_expansion") or {}).get("strategy", "fixed") == "fixed":
        asked = expansion.length
    prompts = whole.get("prompts") or {}
    prefixes = {role: whole.get(f"{role}_prefix") or "" for role in ("query", "document")}
    return Settings(
        Layout(
            folder=folder,
            pooling="mean",
            max_length=min(length, limit),
            limit=limit,
            prompts={
                "query": prefixes["query"] + (prompts.get("query") or "").removeprefix(prefixes["query"]),
                "document": prefixes["document"]
                + (prompts.get("document") or prompts.get("passage") or "").removeprefix(prefixes["document"]),
            },
        ),
        width=_width(read_json(folder / "config.json", {})),
        projection=_projection([path for kind, path in modules if kind == "Dense"]),
        query_length=min(asked, limit),
        expansion=expansion,
        skipped=_skipped(root, paths, whole),
    )


def _expansion(given: Mapping[str, Any]) -> Expansion | None:
    """sentence-transformers names it; PyLate's models expand unless they say that they do not."""
    own = given.get("query_expansion")
    if own:
        if own.get("token") not in (None, "[MASK]", "<mask>"):
            raise InvalidInput(f"the model expands queries by {own['token']!r}; only mask tokens are supported")
        return Expansion(int(own["length"]), bool(own.get("attend")))
    if given.get("model_type") != "ColBERT" or "query_expansion" in given or given.get("do_query_expansion") is False:
        return None
    return Expansion(int(given.get("query_length") or 32), bool(given.get("attend_to_expansion_tokens")))


def _skipped(root: Path, paths: Mapping[str, Path], whole: Mapping[str, Any]) -> tuple[str, ...]:
    if "MultiVectorMask" not in paths:
        words = whole.get("skiplist_words")
        return tuple(PUNCTUATION if words is None and whole.get("model_type") == "ColBERT" else words or ())
    mask = read_json(paths["MultiVectorMask"] / "config.json", {})
    words = tuple(mask.get("skiplist_words") or ())
    if mask.get("keep_only_token_ids") or (words and mask.get("skiplist_tasks", ["document"]) != ["document"]):
        raise InvalidInput(
            f"the model in {str(root)!r} counts some tokens only, or skips tokens of queries; skipping tokens of documents "
            "alone is supported"
        )
    return words


def _projection(folders: Sequence[Path]) -> Floats | None:
    """Linear layers one after another as one matrix."""
    product: Floats | None = None
    for folder in folders:
        config = read_json(folder / "config.json", {})
        activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
        if config.get("bias", True) or config.get("use_residual") or activation != "Identity":
            raise InvalidInput(
                f"the projection in {str(folder)!r} has a bias, a residual or an activation ({activation}); plain linear "
                "ones are supported"
            )
        try:
            weight = load_file(folder / "model.safetensors")["linear.weight"].astype(np.float32)
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise Corrupt(
                f"the projection in {str(folder)!r} cannot be read ({error}); restore the model's folder"
            ) from None
        product = weight if product is None else weight @ product
    return product


def _width(config: Mapping[str, Any]) -> int | None:
    return next((int(config[name]) for name in WIDTHS if config.get(name)), None)
