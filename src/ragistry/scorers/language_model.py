"""Language models that read a text once and then say how likely others are to follow it."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..errors import InvalidInput, ModelNotFound
from ..models import find_model, first_tokens, hash_model, load_tokenizer, native_bf16, put_weights, special_tokens
from ..types import Floats
from ..workers import workers
from .growing import Growth, Layers, grown, speaks
from .likelihood import (
    LOGITS,
    batches,
    caching,
    filled,
    first_place,
    layers_of,
    limit_of,
    load_language_model,
    log_probabilities,
    start_of,
)

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
READ_TOKENS, FOLLOW_TOKENS = 1024, 4096
"""Tokens in a batch, padding included: of texts to read; and of texts read before with what follows, which alone is
computed. What comes out does not depend on either beyond rounding."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a model keeps of a text it has read, from which it goes on without reading it again.

    Args:
        states: Of a causal model, keys and values of its layers, [layers, 2, heads, n, width]; of an encoder-decoder, what
            its encoder gave, [n, d].
        last: Of a causal model, what the layers gave at the last token, [d]; of others, empty.
        length: Tokens that were read: more than n where only the last one's states are kept.
    """

    states: Tensor
    last: Tensor
    length: int

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        return self.states.nbytes + self.last.nbytes


class LanguageModel:
    """A causal or encoder-decoder transformer with its tokenizer, loaded when first needed.

    Texts are tokenised without the special tokens a tokenizer would put around them: who asks puts them where they belong.
    Any number of threads may use it at once.

    Args:
        name: A folder saved by transformers, or a name on the Hugging Face hub (downloaded once).
        precision: `fp32`, `bf16`, or `auto`: bf16 where the processor has instructions for it.
        threads: Processor cores to use; as many as torch is set to use by default.
        grow: What to make of a model that is none of language, by `ragistry.scorers.growing.grow`; by default it is refused.
        layers, encoder_layers: Of what is grown: see there.

    Raises:
        ModelNotFound: From the first use, if there is no such model.
        InvalidInput: From the first use, if it is neither causal nor an encoder-decoder, and is not to be grown.
        Corrupt: From the first use, if its files are damaged or weights are missing.

    Example:
        >>> from ragistry.scorers.language_model import LanguageModel
        >>> model = LanguageModel("a-folder")  # nothing is read yet
    """

    def __init__(
        self,
        name: str | os.PathLike[str],
        *,
        precision: Precision = "auto",
        threads: int | None = None,
        grow: Growth | None = None,
        layers: int | None = None,
        encoder_layers: Layers = None,
    ) -> None:
        self.name = os.fspath(name)
        self.precision = precision
        self.threads = threads
        self.grow, self.layers, self.encoder_layers = grow, layers, encoder_layers
        self.weights: Mapping[str, Floats] = {}
        self._lock = threading.RLock()
        self._model: Any = None
        self._tokenizer: Tokenizer | None = None

    @property
    def model(self) -> Any:
        """The transformers model."""
        return self._loaded()[0]

    @property
    def causal(self) -> bool:
        """Whether it reads from left to right; else it is an encoder-decoder."""
        return not self.model.config.is_encoder_decoder

    @property
    def limit(self) -> int:
        """Tokens that it can read."""
        return limit_of(self.model.config)

    @property
    def vocabulary(self) -> int:
        """Number of token ids it gives probabilities to."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def begin(self) -> int | None:
        """The token at the beginning of what it reads; none where it was trained without."""
        self._loaded()
        return self._begin

    @property
    def end(self) -> int | None:
        """The token that ends a text; none where there is none."""
        self._loaded()
        return self._end

    @property
    def around(self) -> tuple[list[int], list[int]]:
        """The special tokens that its tokenizer puts before a text, and after it."""
        tokenizer = self._loaded()[1]
        with self._lock:
            tokenizer.no_truncation()
            bare, whole = (tokenizer.encode("a", add_special_tokens=special).ids for special in (False, True))
        before = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        return whole[:before], whole[before + len(bare) :]

    def place(self, token: str) -> int | None:
        """The id of a token; none where there is no such token."""
        found: int | None = self._loaded()[1].token_to_id(token)
        return found

    def tuned(self, weights: Mapping[str, Floats]) -> Self:
        """The same model with other values for some of its weights, by their names in it; this one stays as it is.

        Raises:
            InvalidInput: From the first use, if it has no such weight, or of another shape.
        """
        twin = copy(self)
        twin.weights, twin._lock, twin._model, twin._tokenizer = weights, threading.RLock(), None, None
        return twin

    def fingerprint(self) -> str:
        """A hash of the files and weights that decide what it computes, and of the precision."""
        with self._lock:
            if not hasattr(self, "_hash"):
                self._hash = hash_model(self._folder())
        digest = hashlib.sha256(f"{self._hash} {self._dtype()}".encode())
        for name, value in sorted(self.weights.items()):
            digest.update(f"{name} {value.shape}".encode() + np.ascontiguousarray(value, "<f4").tobytes())
        return digest.hexdigest()

    def tokens(self, texts: Sequence[str], length: int) -> list[list[int]]:
        """The first tokens of each text, at most `length`, without special ones; none of an empty text."""
        tokenizer = self._loaded()[1]
        with self._lock:  # a tokenizer shared by threads with two lengths cuts wrongly
            tokenizer.enable_truncation(max(length, 1))
            found = first_tokens(_Bare(tokenizer), texts, max(length, 1), -1)  # type: ignore[arg-type]
        return [[] if length < 1 or ids == [-1] else ids for ids in found]

    def pieces(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The tokens of a whole text without special ones around it, and where the characters of each begin and end."""
        tokenizer = self._loaded()[1]
        with self._lock:
            tokenizer.no_truncation()
            found = tokenizer.encode(text, add_special_tokens=False)
        return found.ids, found.offsets

    def text(self, tokens: Sequence[int]) -> str:
        """What tokens stand for, without special ones."""
        return str(self._loaded()[1].decode(list(tokens), skip_special_tokens=True))

    @property
    def spaced(self) -> bool:
        """Whether a word inside a text has other tokens than at its beginning, the space before it being a part of it."""
        self._loaded()
        return bool(self._spaced)

    def read(self, prefixes: Sequence[Sequence[int]], *, stop: bool = False) -> list[Prefix]:
        """Read texts, each once.

        Args:
            prefixes: Token ids, at least one of each.
            stop: Keep only what the last token holds, so that what follows sees nothing else (causal models).

        Raises:
            InvalidInput: If a text is empty or too long, or `stop` is asked of an encoder-decoder.
        """
        self._check(prefixes, stop)
        found: list[Prefix | None] = [None] * len(prefixes)
        groups = list(batches([len(ids) for ids in prefixes], READ_TOKENS))
        pool = workers(self.threads)
        work = [pool.submit(self._read, [prefixes[i] for i in batch], stop) for batch in groups]
        for batch, future in zip(groups, work, strict=True):
            for i, prefix in zip(batch, future.result(), strict=True):
                found[i] = prefix
        return [prefix for prefix in found if prefix is not None]

    def log_likelihoods(self, prefixes: Sequence[Prefix], target: Sequence[int]) -> Floats:
        """How likely one text is to follow each of several: natural logarithms, token by token.

        Args:
            prefixes: Read before.
            target: Token ids.

        Returns:
            float32 [len(prefixes), len(target)].

        Raises:
            InvalidInput: If a prefix and the target are longer together than the model can read.
        """
        found = np.zeros((len(prefixes), len(target)), np.float32)
        if not len(target) or not len(prefixes):
            return found
        longest = max(prefix.length for prefix in prefixes) if self.causal else 0
        if longest + len(target) > self.limit:
            raise InvalidInput(
                f"{longest} tokens were read and {len(target)} are to follow, but the model {self.name!r} reads "
                f"{self.limit} in all; cut either"
            )
        groups = list(batches([prefix.states.shape[-2] + len(target) for prefix in prefixes], FOLLOW_TOKENS))
        pool = workers(self.threads)
        follow = self._follow_causal if self.causal else self._follow_decoder
        work = [pool.submit(follow, [prefixes[i] for i in batch], list(target)) for batch in groups]
        for batch, future in zip(groups, work, strict=True):
            found[batch] = future.result()
        return found

    def _check(self, prefixes: Sequence[Sequence[int]], stop: bool) -> None:
        if stop and not self.causal:
            raise InvalidInput(
                f"{self.name!r} is an encoder-decoder, whose decoder reads all that its encoder gives; use a causal model, "
                "or do not stop attention"
            )
        for number, ids in enumerate(prefixes):
            if not 0 < len(ids) <= self.limit:
                raise InvalidInput(
                    f"text {number} has {len(ids)} tokens; the model {self.name!r} reads 1 to {self.limit}"
                )

    def _read(self, prefixes: Sequence[Sequence[int]], stop: bool) -> list[Prefix]:
        from transformers import DynamicCache

        lengths = [len(ids) for ids in prefixes]
        ids, mask = filled(prefixes)
        model = self.model
        with torch.inference_mode():
            if not self.causal:
                given = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
                return [Prefix(given[i, :n].clone(), given.new_empty(0), n) for i, n in enumerate(lengths)]
            # On the right of a text there is padding, which nothing on its left can see.
            layers, cache = layers_of(model), DynamicCache()
            places = first_place(model.config) + torch.arange(ids.shape[1])[None].expand(len(ids), -1)
            hidden = layers(input_ids=ids, position_ids=places, **caching(layers, cache)).last_hidden_state
            parts = [part for layer in cache.layers for part in (layer.keys, layer.values)]
            found = []
            for i, n in enumerate(lengths):
                states = torch.stack([part[i, :, n - 1 if stop else 0 : n] for part in parts])
                found.append(Prefix(states.reshape(-1, 2, *states.shape[1:]), hidden[i, n - 1].clone(), n))
            return found

    def _follow_causal(self, prefixes: Sequence[Prefix], target: list[int]) -> Floats:
        from .side_by_side import side_by_side

        model = self.model
        with torch.inference_mode():
            hidden = torch.stack([prefix.last for prefix in prefixes]).to(model.dtype)[:, None]
            if len(target) > 1:
                kept = [prefix.states.shape[-2] for prefix in prefixes]
                cache = side_by_side([prefix.states for prefix in prefixes])
                steps = len(target) - 1
                mask = torch.arange(max(kept) + steps)[None] >= max(kept) - torch.tensor(kept)[:, None]
                read = first_place(model.config) + torch.tensor([prefix.length for prefix in prefixes])
                layers = layers_of(model)
                output = layers(
                    input_ids=torch.tensor([target[:-1]]).expand(len(prefixes), -1),
                    attention_mask=mask.long(),
                    position_ids=read[:, None] + torch.arange(steps),
                    **caching(layers, cache),
                )
                hidden = torch.cat([hidden, output.last_hidden_state], dim=1)
            rows = hidden.reshape(-1, hidden.shape[-1])
            tokens = torch.tensor(target).repeat(len(prefixes))
            return _array(log_probabilities(model, rows, tokens)).reshape(len(prefixes), -1)

    def _follow_decoder(self, prefixes: Sequence[Prefix], target: list[int]) -> Floats:
        from transformers.modeling_outputs import BaseModelOutput

        model = self.model
        longest = max(prefix.length for prefix in prefixes)
        with torch.inference_mode():
            given = torch.zeros(len(prefixes), longest, prefixes[0].states.shape[-1], dtype=model.dtype)
            mask = torch.zeros(len(prefixes), longest, dtype=torch.long)
            for row, prefix in enumerate(prefixes):
                given[row, : prefix.length], mask[row, : prefix.length] = prefix.states, 1
            found = []
            size = max(1, LOGITS // len(target))
            for first in range(0, len(prefixes), size):
                some = slice(first, first + size)
                logits = model(
                    encoder_outputs=BaseModelOutput(last_hidden_state=given[some]),
                    attention_mask=mask[some],
                    decoder_input_ids=torch.tensor([[start_of(model.config), *target[:-1]]]).expand(
                        len(mask[some]), -1
                    ),
                    use_cache=False,
                ).logits.float()
                wanted = torch.tensor(target).repeat(len(logits))  # one row a place: twice as fast as three dimensions
                lost = cross_entropy(logits.flatten(0, 1), wanted, reduction="none")
                found.append(_array(-lost.reshape(len(logits), -1)))
            return np.concatenate(found)

    def _dtype(self) -> torch.dtype:
        bf16 = self.precision == "bf16" or (self.precision == "auto" and native_bf16())
        return torch.bfloat16 if bf16 else torch.float32

    def _folder(self) -> Path:
        try:
            return find_model(self.name)
        except ModelNotFound as error:
            problem = re.split(r"; give a folder| Check the name", str(error))[0].rstrip(".")
            raise ModelNotFound(
                f"{problem}. Check the name and the network, or give the folder of a language model; "
                "`ragistry.scorers.growing.grow` makes a small one"
            ) from None

    def _read_model(self, folder: Path) -> Any:
        grow = self.grow if not speaks(folder) else None
        if grow is None:
            model = load_language_model(folder, self._dtype())
        else:
            model = grown(folder, grow, self.layers, self.encoder_layers).to(self._dtype())
        put_weights(model, self.weights, self.name)
        return model

    def _loaded(self) -> tuple[Any, Tokenizer]:
        if self._tokenizer is None:
            with self._lock:
                if self._tokenizer is None:
                    folder = self._folder()
                    self.fingerprint()  # it reads the weights through, and so finds damage first
                    self._model = self._read_model(folder)
                    tokenizer, _ = load_tokenizer(folder)
                    tokenizer.no_padding()
                    tokenizer.no_truncation()
                    one, other, both = (ids.ids for ids in _Bare(tokenizer).encode_batch(["a", "b", "a b"]))
                    self._spaced = [*one, *other] != both
                    self._begin, self._end = special_tokens(folder)
                    self._tokenizer = tokenizer
        return self._model, self._tokenizer


class _Bare:
    """A tokenizer that puts no special tokens around a text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def encode_batch(self, texts: list[str]) -> Any:
        return self.tokenizer.encode_batch(texts, add_special_tokens=False)


def _array(tensor: Tensor) -> Floats:
    return np.asarray(tensor.float().numpy(), np.float32)
