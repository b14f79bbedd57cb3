"""Transformer models as sources of token embeddings, and the stacks that use them as their makers meant."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from ..errors import Corrupt, InvalidInput, ModelNotFound
from ..models import MINILM, find_model, first_tokens, hash_model, load_tokenizer, loading, quiet, read_json
from ..types import Role
from .stack import Precision, Stack
from .steps import Features
from .steps.pooling import Normalise, Pooling, PoolingMode

DEFAULT_LENGTH = 512


def stack(
    name: str | os.PathLike[str] = MINILM,
    pooling: PoolingMode | None = None,
    prompts: Mapping[Role, str] | None = None,
    max_length: int | None = None,
    precision: Precision = "auto",
    threads: int | None = None,
) -> Stack:
    """The dense encoder of a model, with vectors of unit length.

    What is not given is read from the model's folder if it is laid out as sentence-transformers does (`modules.json` and
    the files it names), else the pooling is `mean`, there are no prompts and the length is the model's limit.

    Args:
        name: `all-MiniLM-L6-v2`, a folder, or a name on the Hugging Face hub (downloaded once).
        pooling: How token embeddings become one vector.
        prompts: Text put before each item, by role; a role left out keeps the model's own.
        max_length: Tokens of a text that are read, special tokens included.
        precision: See `Stack`.
        threads: See `Stack`.

    Raises:
        ModelNotFound: If the model is not installed, not a folder with a model, and not reachable on the hub.
        InvalidInput: If the model needs something that is not supported, such as a further layer after pooling.
        Corrupt: If a settings file of the model is damaged.

    Example:
        >>> stack("all-MiniLM-L6-v2").encode(["how many lines has a sonnet?"], "query").shape
        (1, 384)
    """
    backbone = Backbone(name)
    found = backbone.layout()
    return Stack(
        backbone,
        [Pooling(pooling or found.pooling), Normalise()],
        prompts={**found.prompts, **(prompts or {})},
        max_length=max_length or found.max_length,
        precision=precision,
        threads=threads,
    )


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model's makers meant it to be used; `folder` holds the transformer itself, `limit` is all it can read."""

    folder: Path
    pooling: PoolingMode
    max_length: int
    limit: int
    prompts: Mapping[Role, str]


class Backbone:
    """A transformer and its tokenizer, found by name and loaded when first needed.

    Args:
        name: `all-MiniLM-L6-v2`, a folder, or a name on the Hugging Face hub.

    Example:
        >>> Backbone("all-MiniLM-L6-v2").layout().max_length
        256
    """

    def __init__(self, name: str | os.PathLike[str] = MINILM) -> None:
        self.name = os.fspath(name)
        self._lock = threading.RLock()
        self._layout: Layout | None = None
        self._fingerprint = ""
        self._models: dict[torch.dtype, Any] = {}

    def layout(self) -> Layout:
        """Pooling, length and prompts as the model's folder gives them."""
        with self._lock:
            if self._layout is None:
                self._layout = _read_layout(find_model(self.name))
            return self._layout

    def fingerprint(self) -> str:
        """A hash of the files that decide what the model computes.

        Raises:
            Corrupt: If the model is the installed `all-MiniLM-L6-v2` and its weights are not the published ones.
        """
        with self._lock:
            if not self._fingerprint:
                self._fingerprint = hash_model(self.layout().folder)
            return self._fingerprint

    def load(self, dtype: torch.dtype, max_length: int | None = None) -> Loaded:
        """The model with weights of this type, and a tokenizer of its own that cuts at `max_length`.

        Raises:
            ModelNotFound: If there is no such model.
            Corrupt: If its files are damaged or weights are missing.
            InvalidInput: If transformers cannot use it, or `max_length` is not one that the model can read.
        """
        with self._lock:
            layout = self.layout()
            self.fingerprint()  # It reads the weights through, and so finds damage first.
            if dtype not in self._models:
                self._models[dtype] = self._read(dtype)
            model = self._models[dtype]
        tokenizer, padding = load_tokenizer(layout.folder)
        length = max_length or layout.max_length
        least = tokenizer.num_special_tokens_to_add(False) + 1
        if not least <= length <= layout.limit:
            raise InvalidInput(
                f"max_length={length} was given, but the model {self.name!r} reads {least} to {layout.limit} tokens"
            )
        tokenizer.enable_truncation(length, direction="right")
        tokenizer.no_padding()
        return Loaded(model, tokenizer, length, padding)

    def _read(self, dtype: torch.dtype) -> Any:
        return load_model(self.layout().folder, dtype)


class Loaded:
    """A model and its tokenizer, ready for many threads: neither is changed after this."""

    def __init__(self, model: Any, tokenizer: Tokenizer, max_length: int, padding: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.padding = padding

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of at most `max_length` tokens of each text, and at least one."""
        return first_tokens(self.tokenizer, texts, self.max_length, self.padding)

    def embed(self, tokens: Sequence[Sequence[int]]) -> Features:
        """The features of a batch: token ids, mask, and float32 token embeddings."""
        lengths = [len(ids) for ids in tokens]
        input_ids = np.full((len(tokens), max(lengths)), self.padding, dtype=np.int64)
        mask = np.zeros_like(input_ids)
        for row, ids in enumerate(tokens):
            input_ids[row, : len(ids)] = ids
            mask[row, : len(ids)] = 1
        features = {"input_ids": torch.from_numpy(input_ids), "attention_mask": torch.from_numpy(mask)}
        # Without padding no mask is needed, and attention without one is faster.
        padded = features["attention_mask"] if min(lengths) < max(lengths) else None
        output = self.model(input_ids=features["input_ids"], attention_mask=padded)
        return features | {"embedding": output.last_hidden_state.float()}


def _read_layout(root: Path) -> Layout:
    modules = read_json(root / "modules.json", [])
    paths = {str(m.get("type", "")).rpartition(".")[2]: root / str(m.get("path", "")) for m in modules}
    folder, sentence, limit = read_transformer(root, paths, {"Transformer", "Pooling", "Normalize"}, "pooling")
    given = read_json(root / "config_sentence_transformers.json", {}).get("prompts") or {}
    return Layout(
        folder=folder,
        pooling=_read_pooling(read_json(paths["Pooling"] / "config.json", {}), root) if "Pooling" in paths else "mean",
        max_length=min(int(sentence.get("max_seq_length") or limit), limit),
        limit=limit,
        prompts={"query": given.get("query") or "", "document": given.get("document") or given.get("passage") or ""},
    )


def read_transformer(
    root: Path, paths: Mapping[str, Path], known: Collection[str], after: str
) -> tuple[Path, Mapping[str, Any], int]:
    """Where a model's transformer lies, sentence-transformers' settings of it, and how many tokens it can read.

    Args:
        root: The model's folder.
        paths: Of its modules, by kind.
        known: The kinds that are supported.
        after: What they are, besides the transformer, in words.

    Raises:
        InvalidInput: If a module is of another kind, or texts are to be lower-cased outside the tokenizer.
        ModelNotFound: If the folder holds no model.
    """
    if unknown := sorted(set(paths) - set(known)):
        raise InvalidInput(
            f"the model in {str(root)!r} has modules that are not supported: {', '.join(unknown)}; use a model made of "
            f"a transformer and {after}"
        )
    folder = paths.get("Transformer", root)
    config = read_json(folder / "config.json", None)
    if config is None:
        raise ModelNotFound(
            f"{str(folder)!r} holds no model: it has no config.json; give a folder saved by transformers"
        )
    sentence = read_json(folder / "sentence_bert_config.json", {})
    if sentence.get("do_lower_case"):
        raise InvalidInput(f"the model in {str(root)!r} asks for lower-casing outside its tokenizer: not supported")
    limit = min(
        int(read_json(folder / "tokenizer_config.json", {}).get("model_max_length") or 10**9),
        int(config.get("max_position_embeddings") or 10**9),
    )
    return folder, sentence, limit if limit < 10**9 else DEFAULT_LENGTH


def _read_pooling(config: Mapping[str, Any], root: Path) -> PoolingMode:
    """The pooling mode of a sentence-transformers settings file, in its old form (one flag a mode) or its new one."""
    old = [
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, on in config.items()
        if key.startswith("pooling_mode_") and on
    ]
    new = config.get("pooling_mode", old or "mean")
    modes = [new] if isinstance(new, str) else list(new)
    ours: dict[str, PoolingMode] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
    if len(modes) != 1 or modes[0] not in ours or not config.get("include_prompt", True):
        raise InvalidInput(
            f"the model in {str(root)!r} pools by {', '.join(map(str, modes))}"
            f"{'' if config.get('include_prompt', True) else ' without the prompt'}; mean, cls and last are supported"
        )
    return ours[modes[0]]


def load_model(folder: Path, dtype: torch.dtype, causal: bool = False) -> Any:
    """The model in a folder, ready to use; if `causal`, with each place seeing only what comes before it."""
    from transformers import AutoConfig, AutoModel

    with loading(folder), quiet(), torch.random.fork_rng(devices=[]):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if causal:
            config.is_decoder = True
        model, found = AutoModel.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    # Some classes carry a pooling layer of their own, which is not used here and which files often lack.
    if missing := sorted(key for key in found["missing_keys"] if "pooler" not in key):
        raise Corrupt(
            f"the weights in {str(folder)!r} lack {len(missing)} tensors, {missing[0]!r} for one; restore them"
        )
    if model.config.is_encoder_decoder:
        raise InvalidInput(f"the model in {str(folder)!r} is an encoder-decoder; use an encoder or a decoder alone")
    model.config.use_cache = False
    return model.to(dtype).eval()
