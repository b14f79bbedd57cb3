"""Encoders over functions and other libraries' objects: what they pass on, and what they refuse."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ragistry import Document
from ragistry.encoders import functions
from ragistry.encoders.functions import Function, register_encoder, registered
from ragistry.encoders.named import encoder as named
from ragistry.errors import InvalidInput
from ragistry.protocols import Encoder
from ragistry.testing import EncoderContract


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(functions, "_registered", {})
    yield


def letters(texts: list[str]) -> np.ndarray:
    return np.array([[1 + text.count(letter) for letter in "abcdefg"] for text in texts], np.float64)


class LangChainLike:
    def __init__(self) -> None:
        self.asked: list[Any] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked.append(texts)
        return letters(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        self.asked.append(text)
        return (letters([text])[0] + 1).tolist()


class LlamaIndexLike:
    def __init__(self) -> None:
        self.asked: list[Any] = []

    def get_text_embedding_batch(self, texts: list[str], show_progress: bool = False) -> list[list[float]]:
        self.asked.append(texts)
        return letters(texts).tolist()

    def get_query_embedding(self, query: str) -> list[float]:
        self.asked.append(query)
        return (letters([query])[0] + 1).tolist()

    def __call__(self, nodes: list[Any]) -> list[Any]:
        raise AssertionError("this is for nodes, not for texts")


class WithQueryBatches(LlamaIndexLike):
    def get_query_embedding_batch(self, queries: list[str]) -> list[list[float]]:
        self.asked.append(queries)
        return (letters(queries) + 1).tolist()


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


SOURCES = {"function": letters, "langchain": LangChainLike(), "llama": LlamaIndexLike(), "batches": WithQueryBatches()}


class TestContract(EncoderContract):
    @pytest.fixture(autouse=True, params=SOURCES)
    def settings(self, request: pytest.FixtureRequest) -> None:
        self.source: Any = SOURCES[request.param]

    def make(self) -> Encoder:
        return Function(self.source, "letters", batch=3)

    def make_other(self) -> Encoder:
        return Function(self.source, "other letters")


def test_a_function() -> None:
    asked = []

    def source(texts: list[str]) -> np.ndarray:
        asked.append(list(texts))
        texts.clear()  # the list is the source's own
        return letters(asked[-1])

    found = Function(source, "letters", batch=2).encode(["bad", Document("1", "cab", title="A"), ""], "query")
    np.testing.assert_allclose(found, unit(letters(["bad", "A\ncab", ""])), atol=1e-6)
    assert found.dtype == np.float32
    assert asked == [["bad", "A\ncab"], [""]]


def test_an_object_like_langchains() -> None:
    source = LangChainLike()
    encoder = Function(source, "letters", normalise=False)
    np.testing.assert_array_equal(encoder.encode(["bad", "cab"], "document"), letters(["bad", "cab"]))
    np.testing.assert_array_equal(encoder.encode(["bad", "cab"], "query"), letters(["bad", "cab"]) + 1)
    assert source.asked == [["bad", "cab"], "bad", "cab"]


@pytest.mark.parametrize(("kind", "asked"), [(LlamaIndexLike, ["bad", "cab"]), (WithQueryBatches, [["bad", "cab"]])])
def test_an_object_like_llama_indexes(kind: type[LlamaIndexLike], asked: list[Any]) -> None:
    source = kind()
    encoder = Function(source, "letters", normalise=False)
    np.testing.assert_array_equal(encoder.encode(["bad", "cab"], "document"), letters(["bad", "cab"]))
    np.testing.assert_array_equal(encoder.encode(["bad", "cab"], "query"), letters(["bad", "cab"]) + 1)
    assert source.asked == [["bad", "cab"], *asked]


def test_langchain() -> None:
    embeddings = pytest.importorskip("langchain_core.embeddings")
    source = embeddings.DeterministicFakeEmbedding(size=6)
    encoder = Function(source, "fake", normalise=False)
    np.testing.assert_allclose(encoder.encode(["a", "b"], "document"), source.embed_documents(["a", "b"]), rtol=1e-6)
    np.testing.assert_allclose(encoder.encode(["a"], "query"), [source.embed_query("a")], rtol=1e-6)


def test_llama_index() -> None:
    embeddings = pytest.importorskip("llama_index.core.embeddings")
    encoder = Function(embeddings.MockEmbedding(embed_dim=6), "mock", normalise=False)
    for role in ("query", "document"):
        np.testing.assert_allclose(encoder.encode(["a", "b"], role), np.full((2, 6), 0.5))


def test_a_result_is_a_copy() -> None:
    buffer = np.ones((1, 3), np.float32)
    found = Function(lambda texts: buffer, "buffer", normalise=False).encode(["a"], "query")
    buffer[:] = 7
    assert found.tolist() == [[1, 1, 1]]


def test_integers_and_zeros_are_numbers() -> None:
    found = Function(lambda texts: [(3, 4), (0, 0)], "pairs").encode(["a", "b"], "query")
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0]], atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1, 2], [3, 4]], "2 vectors for 3 texts"),
        ([[1, 2]] * 4, "4 vectors for 3 texts"),
        ([[1, 2], [3], [4, 5]], "item 1 has 1 dimensions where item 0 has 2"),
        ([[1, 2], [3, 4], [5, float("inf")]], "item 2 holds a number that is NaN, infinite"),
        (np.array([[1.0, 2], [np.nan, 4], [5, 6]]), "item 1 holds"),
        (np.full((3, 2), 1e300), "too large"),
        ([[1, 2], ["3", "4"], [5, 6]], "item 1 is list of <U1"),
        ([[1, 2], None, [5, 6]], "item 1 is NoneType"),
        ([[1, 2], [[3], [4]], [5, 6]], r"item 1 is list of int64 \[2, 1\]"),
        ([[1, 2], [2**70, 1], [5, 6]], "item 1 is list of object"),
        (np.ones(3), r"ndarray of float64 \[3\]"),
        (np.ones((3, 2), bool), "ndarray of bool"),
        (np.ones((3, 2), complex), "ndarray of complex128"),
        (np.ones((3, 0)), "no dimensions"),
        (None, "NoneType"),
        ((row for row in [[1], [2], [3]]), "generator"),
    ],
)  # fmt: skip
def test_what_are_no_vectors_is_refused(values: Any, message: str) -> None:
    encoder = Function(lambda texts: values, "strange", normalise=False)
    with pytest.raises(InvalidInput, match=f"'strange'.*documents 0 to 2.*{message}"):
        encoder.encode(["a", "b", "c"], "document")


def test_a_failing_conversion_is_explained() -> None:
    class Unreadable:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            raise RuntimeError("move it to the CPU")

    for values in (Unreadable(), [Unreadable(), Unreadable()]):
        with pytest.raises(InvalidInput, match=r"Unreadable.*move it to the CPU") as caught:
            Function(lambda texts, values=values: values, "strange").encode(["a", "b"], "query")  # type: ignore[misc]
        assert isinstance(caught.value.__cause__, RuntimeError)


def test_rows_are_counted_from_the_first_item() -> None:
    def source(texts: list[str]) -> list[list[float]]:
        return [[float(text), 1] for text in texts]

    with pytest.raises(InvalidInput, match=r"documents 2 to 3.*item 3 holds"):
        Function(source, "numbers", batch=2).encode(["1", "2", "3", "nan", "5"], "document")


def test_another_width_is_refused() -> None:
    encoder = Function(lambda texts: [[1.0] * len(texts)] * len(texts), "square", batch=2)
    with pytest.raises(InvalidInput, match=r"queries 2 to 2.*1 dimensions, and of 2 before"):
        encoder.encode(["a", "b", "c"], "query")


def test_a_failure_says_where() -> None:
    def source(texts: list[str]) -> np.ndarray:
        if "bad" in texts:
            raise KeyError("bad")
        return letters(texts)

    with pytest.raises(InvalidInput, match=r"'letters' failed on documents 2 to 3: KeyError: 'bad'") as caught:
        Function(source, "letters", batch=2).encode(["a", "b", "c", "bad", "e"], "document")
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("source", [3, "text", None, object(), LangChainLike, np.ones(3)])
def test_what_is_no_source_is_refused(source: Any) -> None:
    with pytest.raises(InvalidInput, match="'letters'"):
        Function(source, "letters")


@pytest.mark.parametrize("settings", [{"name": ""}, {"name": None}, {"name": "\ud800"}, {"batch": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Function(letters, **{"name": "letters"} | settings)


def test_the_fingerprint_is_of_name_and_settings() -> None:
    fingerprint = Function(letters, "letters").fingerprint()
    assert Function(LangChainLike(), "letters", batch=1).fingerprint() == fingerprint
    assert Function(letters, "letters", normalise=False).fingerprint() != fingerprint
    assert Function(letters, "other").fingerprint() != fingerprint


def test_a_registered_encoder_is_found_by_name() -> None:
    mine = register_encoder("mine", letters, batch=7)
    assert registered("mine") is mine is named("mine")
    assert registered("yours") is None
    assert mine.batch == 7


def test_a_name_is_given_once() -> None:
    source = LangChainLike()
    mine = register_encoder("mine", source.embed_documents)
    assert register_encoder("mine", source.embed_documents) is mine
    with pytest.raises(InvalidInput, match="'mine' is already taken by another encoder, of method"):
        register_encoder("mine", LangChainLike().embed_documents)
    with pytest.raises(InvalidInput, match="'mine' is already taken"):
        register_encoder("mine", letters)
    with pytest.raises(InvalidInput, match="normalise=True and batch=256"):
        register_encoder("mine", source.embed_documents, normalise=False)
    assert registered("mine") is mine


def test_what_cannot_be_used_is_not_registered() -> None:
    with pytest.raises(InvalidInput):
        register_encoder("mine", 3)  # type: ignore[arg-type]
    assert registered("mine") is None


def test_importing_is_light() -> None:
    heavy = "{'torch', 'transformers', 'httpx', 'tenacity', 'langchain_core', 'llama_index'}"
    code = f"import sys, ragistry.encoders.named; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
