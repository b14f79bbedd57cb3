"""Texts as weights of the word pieces of a model: those they hold and, once it was taught, those they could have held.

Nothing here loads torch before a model is to read a text: word pieces alone are counted without it.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from tokenizers import Tokenizer

from ..errors import InvalidInput
from ..models import find_model, hash_model, read_json
from ..registry import require
from ..types import Floats, Ints, Item, Kind, Role
from .functions import texts_of
from .token_table import LENGTH, SATURATION

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from .stack import Precision, Stack

Start: TypeAlias = Literal["words", "model"]
Queries: TypeAlias = Literal["model", "words"]
CHUNK = 256
"""Texts that are there as a dense array at a time."""


@dataclass(frozen=True)
class Expansion:
    """What was learnt from a corpus.

    Args:
        columns: The word pieces that a text can be given, int64 [C], rising; all, where the model brings its own head.
        idf: Of each word piece in the documents, float32 [V]; of none, where the model's weights are all there is.
        length: Mean number of word pieces in a document.
        weights: What was trained of the step that hears them, by name.
        tuned: What was trained of the model, by name.
        scale: On what the model adds; 0 adds nothing.
    """

    columns: Ints
    idf: Floats
    length: float
    weights: Mapping[str, Floats] = field(default_factory=dict)
    tuned: Mapping[str, Floats] = field(default_factory=dict)
    scale: float = 1.0


class Lexical:
    """A sparse encoder over the word pieces of a model.

    | start | documents | queries |
    |---|---|---|
    | `words` | how often each of its word pieces is there: BM25's counts | the same |
    | `words`, taught | counts saturated as by BM25, and scale times what the model hears | idf times the same, unsaturated |
    | `model` | what the model hears, by its own masked-LM head: SPLADE | the same |

    With `queries="words"` the model is asked about documents alone: a query is its own word pieces (times idf, once taught),
    which takes no model and no torch. Words are counted in all of a text; the model reads its beginning, as much as
    `max_length` allows. Weights are float32 and not rounded further: `Inverted` keeps them so, and with `Impact` its scores
    are inner products.

    Args:
        model: `all-MiniLM-L6-v2`, a folder, or a name on the Hugging Face hub; for `start="model"` one with a masked-LM
            head, as published SPLADE models have.
        start: See the table.
        queries: See above.
        expansion: What was learnt; none is untaught.
        terms: The most terms that a text keeps, those of most weight, by role; none keeps all. Counts are never cut.
        max_length: Tokens that the model reads of a text; its own limit by default.
        precision: See `Stack`.
        threads: See `Stack`.

    Raises:
        InvalidInput: If a value is not known or out of range.

    Example:
        >>> found = Lexical("all-MiniLM-L6-v2").encode(["a poem about a poem"], "document")
        >>> found.data.tolist()
        [2.0, 1.0, 2.0]

    Source: SPLADE, arXiv:2107.05720 (2021), and its successors; queries without a model: arXiv:2109.10086, section 3.3
    (SPLADE-doc), with idf as in Geng et al., arXiv:2411.04403. Deviation: words of the text itself keep the weight that BM25
    gives them, and the model adds to it, so that nothing has to be learnt before it is of use.
    """

    kind: Kind = "sparse"

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        start: Start = "words",
        queries: Queries = "model",
        expansion: Expansion | None = None,
        terms: Mapping[Role, int | None] | None = None,
        max_length: int | None = None,
        precision: Precision = "auto",
        threads: int | None = None,
    ) -> None:
        for what, given, known in (("start", start, Start), ("queries", queries, Queries)):
            if given not in get_args(known):
                raise InvalidInput(f"{what}={given!r:.100} is not known; use {' or '.join(get_args(known))}")
        most: dict[Role, int | None] = {"query": None, "document": None, **(terms or {})}
        if len(most) > 2 or any(number is not None and number < 1 for number in most.values()):
            raise InvalidInput(f"terms={terms!r:.100}; give a positive number, or None, for query and document")
        self.model = os.fspath(model)
        self.start, self.queries, self.expansion, self.terms = start, queries, expansion, most
        self.max_length, self.precision, self.threads = max_length, precision, threads
        self._lock = threading.RLock()
        self._stack: Stack | None = None
        self._tokenizer: Tokenizer | None = None

    def encode(self, items: Sequence[Item], role: Role) -> csr_array:
        """float32 CSR array [len(items), V] of weights above 0, columns sorted: the word pieces' ids.

        Raises:
            InvalidInput: If an item is not text that UTF-8 can hold, or the role is not known.
            ModelNotFound: If the model is nowhere to be found.
            MissingExtra: If the model is to read a text and torch is not installed.
        """
        words = self.words(items, role)
        return self.mixed(words, self.heard(items, role), role) if self.hears(role) else words

    def words(self, items: Sequence[Item], role: Role) -> csr_array:
        """What a text's own word pieces weigh, float32 CSR [n, V]: see the table. Raises as `encode`."""
        from scipy.sparse import csr_array

        texts = texts_of(items, role)
        if self.start == "model" and self.hears(role):
            return csr_array((len(texts), self.width), dtype=np.float32)
        counts = self._counted(self.tokens(texts))
        found = self.expansion
        if self.start == "model" or found is None:
            return counts
        if role == "query":
            counts.data *= found.idf[counts.indices]
        else:
            lengths = np.asarray(counts.sum(axis=1), np.float32)
            norms = SATURATION * (1 - LENGTH + LENGTH * lengths / np.float32(found.length))
            counts.data /= counts.data + np.repeat(norms, np.diff(counts.indptr))
        return counts

    def heard(self, items: Sequence[Item], role: Role) -> csr_array:
        """What the model hears in texts, float32 CSR [n, V], before it is scaled and cut. Raises as `encode`."""
        from scipy.sparse import csr_array, vstack

        texts, stack, columns = texts_of(items, role), self.stack(), self.columns
        parts = [csr_array((0, self.width), dtype=np.float32)]
        for first in range(0, len(texts), CHUNK):
            weights = stack.encode(texts[first : first + CHUNK], role)
            rows, places = np.nonzero(weights > 0)
            starts = np.searchsorted(rows, np.arange(len(weights) + 1))
            parts.append(csr_array((weights[rows, places], columns[places], starts), shape=(len(weights), self.width)))
        return csr_array(vstack(parts, format="csr", dtype=np.float32))

    def mixed(self, words: csr_array, heard: csr_array, role: Role, scale: float | None = None) -> csr_array:
        """Both added, what is heard times the scale, and cut to the most terms: float32 CSR [n, V]."""
        share = self.scale if scale is None else scale
        return pruned(words + heard * np.float32(share) if share else words, self.terms[role])

    def hears(self, role: Role) -> bool:
        """Whether the model reads texts of this role."""
        return (self.start == "model" or self.expansion is not None) and (role == "document" or self.queries == "model")

    @property
    def counting(self) -> bool:
        """Whether vectors are counts, to be weighed by the index: untaught."""
        return self.start == "words" and self.expansion is None

    @property
    def scale(self) -> float:
        """On what the model hears."""
        return 1.0 if self.expansion is None else self.expansion.scale

    @property
    def columns(self) -> Ints:
        """The word pieces that the model can hear."""
        return np.arange(self.width) if self.expansion is None else self.expansion.columns

    def taught(self, expansion: Expansion | None) -> Lexical:
        """The same with something learnt, or without; this one stays as it is."""
        return Lexical(
            self.model,
            start=self.start,
            queries=self.queries,
            expansion=expansion,
            terms=self.terms,
            max_length=self.max_length,
            precision=self.precision,
            threads=self.threads,
        )

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of all word pieces of each text, without those that a tokenizer puts around it."""
        found = self._cutting().encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    @cached_property
    def width(self) -> int:
        """How many word pieces there are, V."""
        config = read_json(self._folder / "config.json", {})
        return max(int(config.get("vocab_size") or 0), self._cutting().get_vocab_size())

    def fingerprint(self) -> str:
        """Of what makes the vectors of documents: they alone meet in an index."""
        return self._fingerprint

    def stack(self) -> Stack:
        """The model and the step that hears terms in what it gives.

        Raises:
            MissingExtra: If torch is not installed.
            InvalidInput: If the model has no masked-LM head and is to use its own.
        """
        with self._lock:
            if self._stack is None:
                require("torch", "dense")
                require("transformers", "dense")
                from .masked import hearing

                self._stack = hearing(self)
            return self._stack

    @cached_property
    def _folder(self) -> Path:
        """Where the tokenizer is: the model's folder, or one inside it."""
        root = find_model(self.model)
        for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
            if (folder / "tokenizer.json").is_file():
                return folder
        raise InvalidInput(f"the model in {str(root)!r} has no fast tokenizer (tokenizer.json); save one with it")

    @cached_property
    def _fingerprint(self) -> str:
        settings = [self.start, self.terms["document"], self.max_length if self.hears("document") else None]
        digest = hashlib.sha256(f"lexical 1 {json.dumps(settings)} {hash_model(self._folder)}".encode())
        if (found := self.expansion) is not None:
            digest.update(json.dumps([found.length, found.scale]).encode())
            arrays: dict[str, Any] = {"columns": found.columns, "idf": found.idf}
            arrays |= {f"weights.{name}": value for name, value in found.weights.items()}
            arrays |= {f"tuned.{name}": value for name, value in found.tuned.items()}
            for name, value in sorted(arrays.items()):
                digest.update(f"{name}{value.shape}".encode())
                digest.update(np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()

    def _cutting(self) -> Tokenizer:
        """A tokenizer of its own that cuts nothing off."""
        with self._lock:
            if self._tokenizer is None:
                path = self._folder / "tokenizer.json"
                try:
                    found = Tokenizer.from_file(str(path))
                except Exception as error:  # the package raises nothing narrower
                    raise InvalidInput(f"{str(path)!r} cannot be read ({error}); restore the model's folder") from None
                found.no_truncation()
                found.no_padding()
                self._tokenizer = found
            return self._tokenizer

    def _counted(self, tokens: Sequence[Sequence[int]]) -> csr_array:
        from scipy.sparse import csr_array

        rows = np.repeat(np.arange(len(tokens)), [len(ids) for ids in tokens])
        ids = np.array([*chain.from_iterable(tokens)], np.int64)
        return csr_array((np.ones(len(ids), np.float32), (rows, ids)), shape=(len(tokens), self.width))


def pruned(weights: csr_array, terms: int | None) -> csr_array:
    """The `terms` largest weights of each row, equal ones in the order of columns; all, if there is no such number.

    Example:
        >>> from scipy.sparse import csr_array
        >>> pruned(csr_array(np.array([[0, 2, 1, 2, 2], [0, 0, 0, 0, 3]], np.float32)), 2).toarray()
        array([[0., 2., 0., 2., 0.],
               [0., 0., 0., 0., 3.]], dtype=float32)
    """
    from scipy.sparse import csr_array

    lengths = np.diff(weights.indptr)
    if terms is None or not (lengths > terms).any():
        return weights
    rows = np.repeat(np.arange(weights.shape[0]), lengths)
    order = np.lexsort((weights.indices, -weights.data, rows))
    place = np.arange(len(order)) - weights.indptr[:-1][rows]
    kept = np.sort(order[place < terms])
    ends = np.concatenate([[0], np.cumsum(np.minimum(lengths, terms))])
    return csr_array((weights.data[kept], weights.indices[kept], ends), shape=weights.shape)
