"""Encoders over something that lives in this process: a function, or an embeddings object of another library."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInput
from ..types import Document, Floats, Item, Kind, Role, check_text


class QueryAndDocuments(Protocol):
    """What LangChain calls `Embeddings`."""

    def embed_documents(self, texts: list[str], /) -> Any:
        """A vector per document."""

    def embed_query(self, text: str, /) -> Any:
        """The vector of a query."""


class QueryAndTexts(Protocol):
    """What LlamaIndex calls `BaseEmbedding`; with a `get_query_embedding_batch`, queries go in batches too."""

    def get_text_embedding_batch(self, texts: list[str], /) -> Any:
        """A vector per document."""

    def get_query_embedding(self, query: str, /) -> Any:
        """The vector of a query."""


Source: TypeAlias = Callable[[list[str]], Any] | QueryAndDocuments | QueryAndTexts
"""What a `Function` can be made of; `Any` is whatever numpy makes numbers [texts, dimensions] of."""


class Function:
    """A dense encoder over a function, or over an embeddings object of LangChain or LlamaIndex.

    The name is all that tells the model from others: if what is behind it changes, give it another name, since an index
    or a cache cannot notice that vectors of two models meet under one. (An index does notice another width.)

    Texts are passed on as they are, empty ones included. Threads that encode at once call the source at once.

    Args:
        source: A function from a list of texts to vectors [texts, dimensions]; or an object with `embed_documents` and
            `embed_query`; or one with `get_text_embedding_batch` and `get_query_embedding`.
        name: Identifies the model.
        normalise: Whether to make vectors of unit length, so that a dot product is a cosine. A zero vector stays zero.
        batch: The most texts in one call of the source.

    Raises:
        InvalidInput: If the source is none of these, the name is empty, or the batch is not positive.

    Example:
        >>> vowels = Function(lambda texts: [[text.count(vowel) for vowel in "aeiou"] for text in texts], "vowels")
        >>> vowels.encode(["a sonnet", "a cat"], "document").shape
        (2, 5)
    """

    kind: Kind = "dense"

    def __init__(self, source: Source, name: str, *, normalise: bool = True, batch: int = 256) -> None:
        if not isinstance(name, str) or not name:
            raise InvalidInput(f"the name {name!r} was given; a text that identifies the model is needed")
        check_text(name, "the name of an encoder")
        if batch < 1:
            raise InvalidInput(f"batch={batch} was given; a positive number is needed")
        self.source = source
        self.name = name
        self.normalise = normalise
        self.batch = batch
        self._calls = _calls(source, name)
        self._width: int | None = None

    def encode(self, items: Sequence[Item], role: Role) -> Floats:
        """One vector per item, in order.

        Args:
            items: Texts, or documents (whose title and text are read). They may be empty.
            role: Whether these are queries, which some sources encode in another way.

        Returns:
            float32 [len(items), dimensions].

        Raises:
            InvalidInput: If an item is not text that UTF-8 can hold, the role is not known, the source raises an error,
                or what it gives is not one vector of finite numbers per text, all of one width.
        """
        texts = texts_of(items, role)
        if not texts:
            return self._call(["text"], role, 0)[:0]
        return np.concatenate(
            [self._call(texts[i : i + self.batch], role, i) for i in range(0, len(texts), self.batch)]
        )

    def fingerprint(self) -> str:
        """A hash of the name and of what is done to the vectors; the source itself cannot be hashed."""
        settings = {"name": self.name, "normalise": self.normalise}
        return hashlib.sha256(json.dumps(["function", 1, settings], sort_keys=True).encode()).hexdigest()

    def _call(self, texts: list[str], role: Role, first: int) -> Floats:
        where = f"{'queries' if role == 'query' else 'documents'} {first} to {first + len(texts) - 1}"
        try:
            values = self._calls[role](list(texts))
        except Exception as error:
            problem = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise InvalidInput(f"the encoder {self.name!r} failed on {where}: {problem}") from error
        try:
            vectors = vectors_of(values, len(texts), normalise=self.normalise, first=first)
        except ValueError as error:
            raise InvalidInput(f"the encoder {self.name!r} cannot be used: for {where}, {error}") from error.__cause__
        self._width = self._width or vectors.shape[1]
        if vectors.shape[1] != self._width:
            raise InvalidInput(
                f"the encoder {self.name!r} cannot be used: for {where}, it gave vectors of {vectors.shape[1]} dimensions, "
                f"and of {self._width} before; every call must give as many"
            )
        return vectors


_registered: dict[str, Function] = {}
_registering = threading.Lock()


def register_encoder(name: str, source: Source, *, normalise: bool = True, batch: int = 256) -> Function:
    """Give an encoder of your own a name that recipes can use, in this process.

    A collection made with it can be opened in another process after the same call there.

    Args:
        name: What recipes say as `model`, and all that tells the model from others: see `Function`.
        source: See `Function`.
        normalise: See `Function`.
        batch: See `Function`.

    Returns:
        The encoder; the same one if it is registered already.

    Raises:
        InvalidInput: If the name belongs to another source, or to this one with other settings; or as for `Function`.

    Example:
        >>> def lengths(texts: list[str]) -> list[list[int]]:
        ...     return [[len(text), 1] for text in texts]
        >>> register_encoder("lengths", lengths).encode(["sonnet"], "query").shape
        (1, 2)
    """
    made = Function(source, name, normalise=normalise, batch=batch)
    with _registering:
        there = _registered.setdefault(name, made)
    if not _same(there.source, source):
        raise InvalidInput(
            f"the name {name!r} is already taken by another encoder, of {_type(there.source)}; choose another name, as "
            "the name is all that tells their vectors apart"
        )
    if (there.normalise, there.batch) != (normalise, batch):
        raise InvalidInput(
            f"the encoder {name!r} is already registered with normalise={there.normalise} and batch={there.batch}; "
            "register it with the same settings, or under another name"
        )
    return there


def registered(name: str) -> Function | None:
    """The encoder that `register_encoder` knows by this name, if any."""
    return _registered.get(name)


def texts_of(items: Sequence[Item], role: Role) -> list[str]:
    """The texts of items.

    Raises:
        InvalidInput: If an item is not text that UTF-8 can hold, one text was given for a list, or the role is unknown.
    """
    if role not in get_args(Role):
        raise InvalidInput(f"the role {role!r} is not known; use {' or '.join(get_args(Role))}")
    if isinstance(items, str | Document):
        raise InvalidInput(f"one {type(items).__name__} was given; a list of items is needed: put it in brackets")
    texts = []
    for number, item in enumerate(items):
        text = item.full_text if isinstance(item, Document) else item
        if not isinstance(text, str):
            raise InvalidInput(f"item {number} is {type(text).__name__}; a str or a Document is needed")
        if text is item:
            check_text(text, f"item {number}")
        texts.append(text)
    return texts


def vectors_of(values: Any, count: int, *, normalise: bool, first: int = 0) -> Floats:
    """What foreign code gave as vectors, checked: float32 [count, dimensions], a copy.

    Args:
        values: What it gave.
        count: How many vectors are needed.
        normalise: Whether to make them of unit length.
        first: The number of the first, to name others by.

    Raises:
        ValueError: If there are not as many, they differ in width, or hold what is not a finite number; the message says
            which is the first to blame.

    Example:
        >>> vectors_of([[3, 4]], 1, normalise=True)
        array([[0.6, 0.8]], dtype=float32)
        >>> vectors_of([[1, 2], [3]], 2, normalise=True)
        Traceback (most recent call last):
        ValueError: item 1 has 1 dimensions where item 0 has 2
    """
    try:
        rows = np.asarray(values)
    except Exception as error:  # a foreign type's conversion may raise anything
        raise ValueError(_flaw(values, first) or f"it gave {_type(values)}, which is no array: {error}") from error
    if rows.dtype.kind not in "fiu" or rows.ndim != 2:
        given = f"{_type(values)} of {rows.dtype} {list(rows.shape)}"
        raise ValueError(_flaw(values, first) or f"it gave {given}; numbers [texts, dimensions] are needed")
    if len(rows) != count:
        raise ValueError(f"it gave {len(rows)} vectors for {count} texts; one each is needed, in their order")
    if not rows.shape[1]:
        raise ValueError("it gave vectors of no dimensions")
    with np.errstate(over="ignore"):
        exact = rows.astype(np.float64)
        vectors = (_unit(exact) if normalise and np.isfinite(exact).all() else exact).astype(np.float32)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"the vector of item {first + finite.argmin()} holds a number that is NaN, infinite or too large"
        )
    return vectors


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rows of unit length, unless they are zero; no square overflows."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), dtype=np.float64)


def _flaw(values: Any, first: int) -> str | None:
    """What is wrong with the first bad row of a list."""
    width = 0
    for number, row in enumerate(values if isinstance(values, list | tuple) else (), first):
        try:
            array = np.asarray(row)
        except Exception as error:
            return f"the vector of item {number} is {_type(row)}, which is no array: {error}"
        if array.dtype.kind not in "fiu" or array.ndim != 1:
            return (
                f"the vector of item {number} is {_type(row)} of {array.dtype} {list(array.shape)}; numbers are needed"
            )
        width = width or len(array)
        if len(array) != width:
            return f"item {number} has {len(array)} dimensions where item {first} has {width}"
    return None


def _calls(source: Any, name: str) -> dict[Role, Callable[[list[str]], Any]]:
    """How to have documents and queries encoded."""
    if isinstance(source, type):
        raise InvalidInput(f"the class {source.__name__} was given for the encoder {name!r}; make an object of it")
    if _has(source, "embed_documents", "embed_query"):
        return {"document": source.embed_documents, "query": _one_by_one(source.embed_query)}
    if _has(source, "get_text_embedding_batch", "get_query_embedding"):
        together = _has(source, "get_query_embedding_batch")
        queries = source.get_query_embedding_batch if together else _one_by_one(source.get_query_embedding)
        return {"document": source.get_text_embedding_batch, "query": queries}
    if callable(source):
        return {"document": source, "query": source}
    raise InvalidInput(
        f"{_type(source)} was given for the encoder {name!r}; a function from a list of texts to vectors is needed, or an "
        "object with embed_documents and embed_query, or with get_text_embedding_batch and get_query_embedding"
    )


def _has(source: Any, *methods: str) -> bool:
    return all(callable(getattr(source, method, None)) for method in methods)


def _one_by_one(call: Callable[[str], Any]) -> Callable[[list[str]], Any]:
    return lambda texts: [call(text) for text in texts]


def _same(one: object, other: object) -> bool:
    """Whether two sources are one object; of a method, Python makes a new one each time it is named."""
    if isinstance(one, MethodType) and isinstance(other, MethodType):
        return one.__self__ is other.__self__ and one.__func__ is other.__func__
    return one is other


def _type(value: object) -> str:
    return type(value).__qualname__
