"""Retrieval in DSPy's two styles: a module that predicts passages, and what `dspy.configure(rm=...)` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dspy

from ragistry import Hit
from ragistry.errors import InvalidInput
from ragistry.protocols import Searchable
from ragistry.tools import joined, searched


class RagistryRetriever(dspy.Module):  # type: ignore[misc]  # dspy has no types
    """A module that finds passages: `search(query)` gives a prediction of `passages`, `ids` and `scores`, best first.

    A passage is the text of a document, after its title and " | " if it has one. Saved programs hold nothing of it: it is
    given its collection by the program that makes it, and copies of a program share that.

    Args:
        collection: A `ragistry.Collection`, or whatever else has its `search_many`.
        k: How many passages at most.
        where: A filter that every search is held to, in the language of `Collection.search`.

    Raises:
        InvalidInput: If the collection has no `search_many`. From a call, if the query, `k` or a filter cannot be used.

    Example:
        >>> import tempfile
        >>> import ragistry
        >>> docs = ragistry.Collection.create(tempfile.mkdtemp() + "/docs", ragistry.create("bm25"))
        >>> docs.add(ragistry.Document("1", "It has fourteen lines.", title="Sonnet")).added
        1
        >>> search = RagistryRetriever(docs)
        >>> search("how many lines has a sonnet?").passages
        ['Sonnet | It has fourteen lines.']
    """

    def __init__(self, collection: Searchable, k: int = 5, *, where: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.shared = _Shared(collection)
        self.k, self.where = k, where

    def forward(self, query: str, k: int | None = None, where: Mapping[str, Any] | None = None) -> dspy.Prediction:
        """Search: what calling the module does.

        Args:
            query: What is asked.
            k: How many passages at most; by default what the module was made with.
            where: A filter besides that of the module.
        """
        held, count = _both(self.where, where), self.k if k is None else k
        return _predicted(self.shared.collection.search_many([query], count, where=held)[0])

    async def aforward(
        self, query: str, k: int | None = None, where: Mapping[str, Any] | None = None
    ) -> dspy.Prediction:
        """The same, the event loop running on meanwhile: what `acall` does."""
        held, count = _both(self.where, where), self.k if k is None else k
        return _predicted((await searched(self.shared.collection, [query], count, where=held))[0])


def as_dspy_rm(collection: Searchable, *, where: Mapping[str, Any] | None = None) -> Callable[..., list[dspy.Example]]:
    """A retrieval model for `dspy.configure(rm=...)`, of which `dspy.Retrieve` asks for as many passages as it needs.

    Args:
        collection: A `ragistry.Collection`, or whatever else has its `search_many`.
        where: A filter that every search is held to, in the language of `Collection.search`.

    Returns:
        A function of `query` and `k` (3 by default) that gives passages with `long_text`, `id` and `score`.

    Raises:
        InvalidInput: If the collection has no `search_many`.

    Example:
        >>> import tempfile
        >>> import ragistry
        >>> docs = ragistry.Collection.create(tempfile.mkdtemp() + "/docs", ragistry.create("bm25"))
        >>> docs.add(ragistry.Document("1", "It has fourteen lines.")).added
        1
        >>> with dspy.context(rm=as_dspy_rm(docs)):
        ...     dspy.Retrieve(k=1)("how many lines?").passages
        ['It has fourteen lines.']
    """
    held = _Shared(collection).collection

    def rm(query: str, k: int = 3) -> list[dspy.Example]:
        """The best `k` passages."""
        hits = held.search_many([query], k, where=where)[0]
        return [dspy.Example(long_text=_passage(hit), id=hit.id, score=hit.score) for hit in hits]

    return rm


class _Shared:
    """Holds a collection that copies of a program share: DSPy's optimisers copy programs, files stay open once."""

    def __init__(self, collection: Searchable) -> None:
        if not isinstance(collection, Searchable):
            raise InvalidInput(f"{type(collection).__name__} has no method `search_many`; give a Collection")
        self.collection = collection

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


def _both(own: Mapping[str, Any] | None, asked: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return joined(own, asked) if own and asked else own or asked  # one alone may be in another store's language


def _passage(hit: Hit) -> str:
    return f"{hit.title} | {hit.text}" if hit.title else hit.text


def _predicted(hits: list[Hit]) -> dspy.Prediction:
    return dspy.Prediction(
        passages=[_passage(hit) for hit in hits], ids=[hit.id for hit in hits], scores=[hit.score for hit in hits]
    )
