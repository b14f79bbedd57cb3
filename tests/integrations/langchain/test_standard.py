"""LangChain's own suites of tests for integrations, each in full."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_tests")

from langchain_core.retrievers import BaseRetriever
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    ToolsIntegrationTests,
)
from langchain_tests.integration_tests.indexer import AsyncDocumentIndexTestSuite, DocumentIndexerTestSuite
from langchain_tests.unit_tests import EmbeddingsUnitTests, ToolsUnitTests

from ragistry import Collection
from ragistry.encoders.functions import Function
from ragistry_langchain import RagistryEmbeddings, RagistryIndex, RagistryRetriever, search_tool

LENGTHS = Function(lambda texts: [[len(text), 1] for text in texts], "lengths")


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _over(self, docs: Collection) -> None:
        self.docs = docs

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return RagistryRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"collection": self.docs}

    @property
    def retriever_query_example(self) -> str:
        return "how many lines?"


class TestIndexAsRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _over(self, docs: Collection) -> None:
        self.docs = docs

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return RagistryIndex

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"collection": self.docs}

    @property
    def retriever_query_example(self) -> str:
        return "how many lines?"


class TestIndex(DocumentIndexerTestSuite):
    @pytest.fixture
    def index(self, empty: Collection) -> RagistryIndex:
        return RagistryIndex(collection=empty)


class TestIndexAsync(AsyncDocumentIndexTestSuite):
    @pytest.fixture
    async def index(self, empty: Collection) -> RagistryIndex:
        return RagistryIndex(collection=empty)


class TestEmbeddingsUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[RagistryEmbeddings]:
        return RagistryEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"encoder": LENGTHS}


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[RagistryEmbeddings]:
        return RagistryEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"encoder": LENGTHS}


class TestToolUnit(ToolsUnitTests):
    @pytest.fixture(autouse=True)
    def _over(self, docs: Collection) -> None:
        self.docs = docs

    @property
    def tool_constructor(self) -> BaseTool:
        return search_tool(self.docs)

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"query": "lines", "k": 2, "filters": [{"field": "lang", "op": "eq", "value": "en"}]}


class TestTool(ToolsIntegrationTests):
    @pytest.fixture(autouse=True)
    def _over(self, docs: Collection) -> None:
        self.docs = docs

    @property
    def tool_constructor(self) -> BaseTool:
        return search_tool(self.docs)

    @property
    def tool_invoke_params_example(self) -> dict[str, Any]:
        return {"query": "lines", "k": 2, "filters": [{"field": "lang", "op": "eq", "value": "en"}]}
