"""A small collection, searched by words or by letters, and models of LlamaIndex that need no network.

LlamaIndex is imported in fixtures alone: a conftest cannot be skipped where it is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import Field

from ragistry import Collection, Document, create
from ragistry.encoders.functions import register_encoder

LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXTS = {
    "sonnet": ("The sonnet has fourteen lines.", {"title": "Sonnet", "year": 1609, "tags": ["verse", "love"]}),
    "haiku": ("The haiku has three lines and a season.", {"year": 1680, "tags": ["verse"]}),
    "novel": ("A novel is long and written in prose.", {"year": 1605}),
    "essay": ("An essay tries an idea out in prose.", {"year": 1580, "tags": []}),
    "ballad": ("A ballad tells a story in short stanzas.", {"tags": ["verse", "story"]}),
}


def letters(texts: list[str]) -> list[list[float]]:
    """How often each letter is in a text, and 1."""
    return [[*(float(text.lower().count(letter)) for letter in LETTERS), 1.0] for text in texts]


@pytest.fixture
def documents() -> list[Document]:
    found = []
    for id, (text, about) in TEXTS.items():
        metadata = dict(about)
        found.append(Document(id, text, title=str(metadata.pop("title", "")), metadata=metadata))
    return found


@pytest.fixture
def docs(tmp_path, documents) -> Iterator[Collection]:
    """Searched by words."""
    with Collection.create(tmp_path / "docs", create("bm25")) as collection:
        collection.add(documents)
        yield collection


@pytest.fixture
def dense(tmp_path, documents) -> Iterator[Collection]:
    """Searched by letters, in vectors of unit length."""
    register_encoder("llama-index-tests-letters", letters)
    with Collection.create(tmp_path / "dense", create("dense", model="llama-index-tests-letters")) as collection:
        collection.add(documents)
        yield collection


@pytest.fixture
def embedding() -> Any:
    """An embedding model of LlamaIndex: counts letters."""
    from llama_index.core.base.embeddings.base import BaseEmbedding

    class Letters(BaseEmbedding):
        @classmethod
        def class_name(cls) -> str:
            return "Letters"

        def _get_query_embedding(self, query: str) -> list[float]:
            return letters([query])[0]

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return letters([query])[0]

        def _get_text_embedding(self, text: str) -> list[float]:
            return letters([text])[0]

        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            return letters(texts)

    return Letters(model_name="letters")


@pytest.fixture
def scripted() -> Any:
    """A class of language models that call the tools they were told to, and then say what they read last."""
    from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata
    from llama_index.core.llms.function_calling import FunctionCallingLLM
    from llama_index.core.llms.llm import ToolSelection

    class Scripted(FunctionCallingLLM):
        script: list[dict[str, Any]]
        seen: list[list[ChatMessage]] = Field(default_factory=list)

        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata(is_function_calling_model=True)

        def _prepare_chat_with_tools(self, tools: Any, *, chat_history: Any = None, **settings: Any) -> dict[str, Any]:
            return {"messages": list(chat_history or ())}

        async def achat(self, messages: Any, **settings: Any) -> ChatResponse:
            self.seen.append(list(messages))
            done = len(self.seen)
            if done <= len(self.script):
                calls = [ToolSelection(tool_id=f"call-{done}", tool_name="search", tool_kwargs=self.script[done - 1])]
                return ChatResponse(message=ChatMessage("", role="assistant", additional_kwargs={"tool_calls": calls}))
            return ChatResponse(message=ChatMessage(f"I read: {messages[-1].content}", role="assistant"))

        def get_tool_calls_from_response(self, response: ChatResponse, **settings: Any) -> list[ToolSelection]:
            calls: list[ToolSelection] = response.message.additional_kwargs.get("tool_calls", [])
            return calls

        def chat(self, messages: Any, **settings: Any) -> Any:
            raise NotImplementedError

        def stream_chat(self, messages: Any, **settings: Any) -> Any:
            raise NotImplementedError

        async def astream_chat(self, messages: Any, **settings: Any) -> Any:
            raise NotImplementedError

        def complete(self, prompt: str, formatted: bool = False, **settings: Any) -> Any:
            raise NotImplementedError

        async def acomplete(self, prompt: str, formatted: bool = False, **settings: Any) -> Any:
            raise NotImplementedError

        def stream_complete(self, prompt: str, formatted: bool = False, **settings: Any) -> Any:
            raise NotImplementedError

        async def astream_complete(self, prompt: str, formatted: bool = False, **settings: Any) -> Any:
            raise NotImplementedError

    return Scripted
