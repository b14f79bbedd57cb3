"""A multi-vector encoder: a backbone followed by steps, with a vector for each token that counts."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer

from ..errors import InvalidInput
from ..models import MINILM
from ..types import Item, Kind, MultiVectors, Role
from .backbones import Backbone, Loaded
from .reducing import Reducer
from .stack import CHUNK, NO_PROMPTS, Precision, Stack
from .steps import Features, Step
from .steps.clusters import Clusters
from .steps.pooling import Normalise
from .steps.tokens import EachToken, random_projection
from .texts import prompted
from .token_aware import padded
from .token_layout import Expansion, TokenBackbone


class TokenStack(Stack):
    """An encoder that gives a text one vector for each token, of kind `multi`; else as `Stack`, whose settings it shares.

    Args:
        backbone: Where the token embeddings come from.
        steps: Applied in order; together they must give `vector`, [b, t, d], and `kept`, as `EachToken` does.
        prompts: Text put before each item, by role. A prompt that begins with a word which is one token of the model,
            such as ColBERT's `[unused0]`, is read as that token.
        max_length: Tokens of a document that are read, special tokens included; the model's own limit by default.
        query_length: Tokens of a query that are read; those of a document by default.
        expansion: Of queries; none by default.
        skipped: Tokens of documents that do not count, such as `PUNCTUATION`; the model reads them all the same.
        batch_tokens: Of `Stack`.
        precision: Of `Stack`.
        threads: Of `Stack`.

    Raises:
        InvalidInput: As `Stack`; from the first call that needs the model, if there is no mask token to expand queries by.

    Example:
        >>> encoder = token_stack("all-MiniLM-L6-v2")
        >>> found = encoder.encode(["sonnet", "brake disc"], "document")
        >>> [vectors.shape for vectors in found]  # each begins and ends with a special token
        [(4, 384), (4, 384)]
    """

    kind: Kind = "multi"

    def __init__(
        self,
        backbone: Backbone,
        steps: Sequence[Step],
        *,
        prompts: Mapping[Role, str] = NO_PROMPTS,
        max_length: int | None = None,
        query_length: int | None = None,
        expansion: Expansion | None = None,
        skipped: Sequence[str] = (),
        batch_tokens: int = 1024,
        precision: Precision = "auto",
        threads: int | None = None,
    ) -> None:
        super().__init__(
            backbone,
            steps,
            prompts=prompts,
            max_length=max_length,
            batch_tokens=batch_tokens,
            precision=precision,
            threads=threads,
        )
        if not any("kept" in step.gives for step in steps):
            raise InvalidInput("no step gives `kept`, so these make one vector of a text; begin with EachToken")
        if query_length is not None and query_length < 1:
            raise InvalidInput(f"query_length={query_length} was given; a positive number is needed")
        self.query_length = query_length
        self.expansion = expansion
        self.skipped = tuple(skipped)
        self._readers: Mapping[Role, Reader] = {}

    def encode(self, items: Sequence[Item], role: Role) -> MultiVectors:  # type: ignore[override]  # of another kind
        """The vectors of each item's tokens, in order. Raises what `Stack.encode` does."""
        texts = prompted(items, role, self.prompts)
        if not texts:
            return MultiVectors(self.encode([""], role).values[:0], np.zeros(1, np.int64))
        reader = self.reader(role)
        parts = [self._encode_chunk(reader, texts[i : i + CHUNK], role) for i in range(0, len(texts), CHUNK)]
        found = [vectors for part in parts for vectors in part]
        return MultiVectors(np.concatenate(found), np.cumsum([0, *map(len, found)], dtype=np.int64))

    def tokens(self, items: Sequence[Item], role: Role) -> list[list[int]]:
        """The token ids of each item as the model reads it, with its prompt and expansion."""
        return self.reader(role).tokenise(prompted(items, role, self.prompts))

    def reader(self, role: Role) -> Reader:
        """The model with what is particular to a role."""
        if role not in self._readers:
            found = self.loaded()
            with self._lock:
                if role not in self._readers:
                    self._readers = {**self._readers, role: self._reader(found, role)}
        return self._readers[role]

    def _reader(self, found: Loaded, role: Role) -> Reader:
        if role == "query":
            found = self.backbone.load(next(found.model.parameters()).dtype, self.query_length or self.max_length)
        _read_whole(found.tokenizer, self.prompts[role])
        if role == "query":
            return Reader(found, expansion=self.expansion)
        ids = [found.tokenizer.token_to_id(word) for word in self.skipped]
        return Reader(found, skipped=[id for id in ids if id is not None])

    def over(self, backbone: Backbone, steps: Sequence[Step]) -> TokenStack:
        """The same settings over another backbone, or with other steps."""
        return TokenStack(
            backbone,
            steps,
            prompts=self.prompts,
            max_length=self.max_length,
            query_length=self.query_length,
            expansion=self.expansion,
            skipped=self.skipped,
            batch_tokens=self.batch_tokens,
            precision=self.precision,
            threads=self.threads,
        )

    def fingerprint(self) -> str:
        """That of the stack, with what is particular to vectors of tokens."""
        expansion = None if self.expansion is None else asdict(self.expansion)
        own = json.dumps([self.query_length, expansion, self.skipped])
        return hashlib.sha256(f"multi 1 {super().fingerprint()} {own}".encode()).hexdigest()

    def _forward(self, loaded: Loaded, tokens: Sequence[Sequence[int]], role: Role) -> Any:
        """Of each text an array [t, d], as an array of objects, whose order `side_by_side` can restore."""
        with torch.inference_mode():
            features: Features = loaded.embed(tokens)
            for step in self.steps:
                features = step(features, role)
            found = np.empty(len(tokens), object)
            for row, (vectors, kept) in enumerate(zip(features["vector"], features["kept"], strict=True)):
                found[row] = vectors[kept].float().numpy()
            return found


class Reader(Loaded):
    """A model that reads texts of one role: which tokens there are, which the model sees, and which count.

    Args:
        found: The model and its tokenizer.
        expansion: See `Expansion`.
        skipped: Token ids that do not count.

    Raises:
        InvalidInput: If there is no mask token to expand by.
    """

    def __init__(self, found: Loaded, expansion: Expansion | None = None, skipped: Sequence[int] = ()) -> None:
        super().__init__(found.model, found.tokenizer, found.max_length, found.padding)
        self.expansion = expansion
        self.skipped = torch.tensor(sorted(skipped), dtype=torch.int64)
        names = ("[MASK]", "<mask>")
        self.filler = next((id for name in names if (id := found.tokenizer.token_to_id(name)) is not None), -1)
        if expansion is not None and self.filler < 0:
            raise InvalidInput(
                f"the model has none of the tokens {', '.join(names)}; leave out the expansion of queries"
            )

    def tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of at most `max_length` tokens of each text, expanded."""
        least = 0 if self.expansion is None else self.expansion.length
        return [ids + [self.filler] * (least - len(ids)) for ids in super().tokenise(texts)]

    def features(self, tokens: Sequence[Sequence[int]]) -> Features:
        """Token ids, the mask of those that the model sees, and `kept`, bool [b, t]: those that count."""
        features = padded(tokens)
        ids, mask = features["input_ids"], features["attention_mask"]
        kept = (mask > 0) & ~torch.isin(ids, self.skipped)
        if self.expansion is not None and not self.expansion.attended:
            mask = mask * (ids != self.filler)
        return features | {"attention_mask": mask, "kept": kept}

    def embed(self, tokens: Sequence[Sequence[int]]) -> Features:
        """The features, with float32 token embeddings."""
        features = self.features(tokens)
        mask = features["attention_mask"]
        output = self.model(input_ids=features["input_ids"], attention_mask=None if mask.all() else mask)
        return features | {"embedding": output.last_hidden_state.float()}


def token_stack(
    name: str | os.PathLike[str] = MINILM,
    *,
    dimension: int | None = None,
    reducers: Mapping[Role, Reducer] | None = None,
    prompts: Mapping[Role, str] | None = None,
    query_length: int | None = None,
    document_length: int | None = None,
    expansion: int | None = None,
    skipped: Sequence[str] | None = None,
    precision: Precision = "auto",
    threads: int | None = None,
    seed: int = 0,
) -> TokenStack:
    """The multi-vector encoder of a model, with vectors of unit length, which are then reduced if that is asked for.

    What is not given is read from the model's folder, if it holds a multi-vector model as sentence-transformers
    (`MultiVectorEncoder`) or PyLate save it: projection, prompts, lengths, expansion and skipped tokens. Any other model
    gives the embeddings of its tokens as they are, which is a good beginning.

    Args:
        name: `all-MiniLM-L6-v2`, a folder, or a name on the Hugging Face hub (downloaded once).
        dimension: Of the vectors; those of the model's own by default. A model without a projection gets a random one.
        reducers: By role: see `Clusters`.
        prompts: Text put before each item, by role; a role left out keeps the model's own.
        query_length: Tokens of a query that are read, special tokens included.
        document_length: Tokens of a document that are read.
        expansion: Tokens up to which queries are expanded; 0 for none.
        skipped: See `TokenStack`.
        precision: See `Stack`.
        threads: See `Stack`.
        seed: Of a random projection.

    Raises:
        ModelNotFound: If the model is not installed, not a folder with a model, and not reachable on the hub.
        InvalidInput: If the model needs something that is not supported, or its projection is to another dimension.
        Corrupt: If a settings file of the model, or its projection, is damaged.
    """
    backbone = TokenBackbone(name)
    own = backbone.settings()
    projection = own.projection
    if dimension is not None and projection is None:
        width = own.width or dimension
        projection = None if dimension == width else random_projection(dimension, width, seed)
    elif dimension is not None and projection is not None and len(projection) != dimension:
        raise InvalidInput(
            f"dimension={dimension} was given, but the model {str(name)!r} projects to {len(projection)}; leave it out"
        )
    steps: list[Step] = [EachToken(projection), Normalise()]
    return TokenStack(
        backbone,
        [*steps, Clusters(reducers)] if reducers else steps,
        prompts={**own.layout.prompts, **(prompts or {})},
        max_length=document_length or own.layout.max_length,
        query_length=query_length or own.query_length,
        expansion=own.expansion if expansion is None else Expansion(expansion) if expansion else None,
        skipped=own.skipped if skipped is None else skipped,
        precision=precision,
        threads=threads,
    )


def _read_whole(tokenizer: Tokenizer, prompt: str) -> None:
    """Let a tokenizer read the prompt's first word as the one token that it is, where it would take it apart."""
    for prefix in (prompt, *prompt.split(maxsplit=1)[:1]):
        token = tokenizer.token_to_id(prefix) if prefix else None
        if token is not None:
            if tokenizer.encode(prefix, add_special_tokens=False).ids != [token]:
                tokenizer.add_special_tokens([AddedToken(prefix, normalized=False, special=True)])
            return
