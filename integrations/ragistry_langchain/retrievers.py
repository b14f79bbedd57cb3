"""A collection as a LangChain retriever."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from langchain_core.callbacks.manager import (
    AsyncCallbackManager,
    AsyncCallbackManagerForRetrieverRun,
    CallbackManager,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list
from pydantic import ConfigDict, Field, field_validator

from ragistry import Collection
from ragistry.errors import InvalidInput
from ragistry.protocols import Searchable
from ragistry.tools import searched
from ragistry.types import Hit

from .documents import given, held


class RagistryRetriever(BaseRetriever):
    """Searches a collection, or a borrowed store; many queries of one `batch` are searched together.

    Args:
        collection: A `ragistry.Collection`, the path of one, or a `ragistry.borrowed.Borrowed`. A path is opened at once,
            and once; no model is loaded before the first search.
        k: How many documents at most.
        filter: A filter on metadata (see `ragistry.filters`; of a borrowed store, one in the store's own language).
        score_key: The key of the metadata under which documents get their scores; by default they get none, since what
            depends on the query makes one document look like two.

    `k` and `filter` may also be given with a call, `retriever.invoke("...", k=3)`, and named in `configurable_fields`. A
    filter given with a call narrows down the retriever's own, it cannot widen it; one given by `configurable_fields` takes
    its place.

    Raises:
        pydantic.ValidationError: If there is no such field, or a value does not fit.
        StorageError: If the path is not a collection.
        InvalidInput: From calls, if a query, `k` or a filter cannot be used.

    Example:
        >>> import tempfile
        >>> import ragistry
        >>> docs = Collection.create(tempfile.mkdtemp() + "/docs", ragistry.create("bm25"))
        >>> docs.add([ragistry.Document("1", "Fourteen lines."), ragistry.Document("2", "Three lines.")]).added
        2
        >>> retriever = RagistryRetriever(collection=docs.path, k=1)
        >>> [[document.id for document in found] for found in retriever.batch(["three", "fourteen"])]
        [['2'], ['1']]
        >>> [document.id for document in retriever.invoke("fourteen lines", k=2)]
        ['1', '2']
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    # An ordinary field: `configurable_fields` makes the object anew with each call, from its fields alone.
    collection: Any = Field(exclude=True, repr=False)
    k: int = Field(10, ge=1)
    filter: Any = None
    score_key: str | None = None

    @field_validator("collection", mode="before")
    @classmethod
    def _opened(cls, found: Any) -> Any:
        if isinstance(found, str | os.PathLike):
            return Collection.open(found)
        if isinstance(found, type) or not isinstance(found, Searchable):
            raise InvalidInput(f"{found!r:.100} cannot be searched; give a Collection or the path of one")
        return found

    def batch(  # type: ignore[override]  # names what it takes, so that a typing error is one
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        k: int | None = None,
        filter: Any = None,
    ) -> list[list[Document]]:
        """The documents for each of many queries, encoded and searched together, and traced one by one.

        Args:
            inputs: Queries.
            config: One for all, or one each.
            return_exceptions: Whether what goes wrong with a query is returned in its place.
            k: How many documents at most.
            filter: One that narrows down the retriever's own.
        """
        if not inputs:
            return []
        configs = get_config_list(config, len(inputs))
        runs = [
            CallbackManager.configure(**self._traced(one)).on_retriever_start(
                None, query, name=one.get("run_name") or self.get_name(), run_id=one.get("run_id")
            )
            for query, one in zip(inputs, configs, strict=True)
        ]
        found: list[list[Document] | Exception]
        try:
            found = [*self._search(inputs, k, filter)]
        except Exception as error:
            found = [error] * len(inputs)
            if return_exceptions and len(inputs) > 1:  # one query's fault is not the others'
                found = [self._tried(query, k, filter) for query in inputs]
        for run, one in zip(runs, found, strict=True):
            run.on_retriever_error(one) if isinstance(one, Exception) else run.on_retriever_end(one)
        return _results(found, return_exceptions)

    async def abatch(  # type: ignore[override]
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        k: int | None = None,
        filter: Any = None,
    ) -> list[list[Document]]:
        """`batch`, the event loop running on meanwhile."""
        if not inputs:
            return []
        configs = get_config_list(config, len(inputs))
        runs = [
            await AsyncCallbackManager.configure(**self._traced(one)).on_retriever_start(
                None, query, name=one.get("run_name") or self.get_name(), run_id=one.get("run_id")
            )
            for query, one in zip(inputs, configs, strict=True)
        ]
        found: list[list[Document] | Exception]
        try:
            found = [*await self._asearch(inputs, k, filter)]
        except Exception as error:
            found = [error] * len(inputs)
            if return_exceptions and len(inputs) > 1:
                found = [await self._atried(query, k, filter) for query in inputs]
        for run, one in zip(runs, found, strict=True):
            await (run.on_retriever_error(one) if isinstance(one, Exception) else run.on_retriever_end(one))
        return _results(found, return_exceptions)

    # What `invoke` and `ainvoke` call. Only as `k` and `filter` are named here does LangChain hand them on.

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None, filter: Any = None
    ) -> list[Document]:
        return self._search([query], k, filter)[0]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None, filter: Any = None
    ) -> list[Document]:
        return (await self._asearch([query], k, filter))[0]

    def _search(self, queries: Sequence[str], k: int | None, filter: Any) -> list[list[Document]]:
        found = self.collection.search_many(queries, self._count(k), where=held(self.collection, self.filter, filter))
        return self._documents(found)

    async def _asearch(self, queries: Sequence[str], k: int | None, filter: Any) -> list[list[Document]]:
        where = held(self.collection, self.filter, filter)
        return self._documents(await searched(self.collection, queries, self._count(k), where=where))

    def _tried(self, query: str, k: int | None, filter: Any) -> list[Document] | Exception:
        try:
            return self._search([query], k, filter)[0]
        except Exception as error:
            return error

    async def _atried(self, query: str, k: int | None, filter: Any) -> list[Document] | Exception:
        try:
            return (await self._asearch([query], k, filter))[0]
        except Exception as error:
            return error

    def _count(self, k: int | None) -> int:
        if k is not None and (not isinstance(k, int) or k < 1):
            raise InvalidInput(f"k={k!r:.100} was given; a whole number of at least 1 is needed")
        return self.k if k is None else k

    def _documents(self, found: list[list[Hit]]) -> list[list[Document]]:
        return [[given(hit, self.score_key) for hit in hits] for hits in found]

    # For tracing.

    def _traced(self, config: RunnableConfig) -> dict[str, Any]:
        """What `invoke` configures callbacks with."""
        return {
            "inheritable_callbacks": config.get("callbacks"),
            "inheritable_tags": config.get("tags"),
            "local_tags": self.tags,
            "inheritable_metadata": {**(config.get("metadata") or {}), **self._get_ls_params()},
            "local_metadata": self.metadata,
        }

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        found = super()._get_ls_params(**kwargs)
        found["ls_vector_store_provider"] = "ragistry"
        if name := self._recipe.get("name"):
            found["ls_retriever_name"] = name
        if model := self._recipe.get("model"):
            found["ls_embedding_model"] = str(model)
        return found

    @cached_property
    def _recipe(self) -> dict[str, Any]:
        """What a collection was made with; read once, since a changed collection is read anew, which may take long."""
        return self.collection.recipe if isinstance(self.collection, Collection) else {}

    # For worker processes, which open the collection themselves.

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        fields = {key: value for key, value in state["__dict__"].items() if key in type(self).model_fields}
        if isinstance(self.collection, Collection):
            fields["collection"] = self.collection.location
        return {**state, "__dict__": fields}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        fields = {**state["__dict__"], "collection": self._opened(state["__dict__"]["collection"])}
        super().__setstate__({**state, "__dict__": fields})


def _results(found: list[list[Document] | Exception], return_exceptions: bool) -> list[list[Document]]:
    """What a batch gives; the first thing that went wrong is raised, unless it is to be returned."""
    for one in found:
        if isinstance(one, Exception) and not return_exceptions:
            raise one
    return found  # type: ignore[return-value]  # LangChain's own type leaves exceptions out, too
