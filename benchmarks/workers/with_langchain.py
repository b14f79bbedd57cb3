"""LangChain's EnsembleRetriever over BM25Retriever (rank_bm25) and a FAISS vector store, with our encoder for queries.

BM25Retriever splits at spaces, as by default. It has no way to be saved but pickle; FAISS is saved as LangChain does it, and
has one thread, as two wait for each other on a busy machine.
"""

from __future__ import annotations

import pickle
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from langchain_classic.retrievers import EnsembleRetriever
from langchain_community.retrievers import BM25Retriever
from langchain_community.vectorstores import FAISS
from langchain_community.vectorstores.utils import DistanceStrategy
from serve import serve

from ragistry.encoders.named import encoder
from ragistry_langchain import RagistryEmbeddings

K = 10


class Timed(RagistryEmbeddings):
    """Embeddings that know what queries took."""

    seconds = 0.0

    def embed_query(self, text: str) -> list[float]:
        """A query's vector."""
        began = time.perf_counter()
        try:
            return super().embed_query(text)
        finally:
            self.seconds += time.perf_counter() - began


class Ensemble:
    """The retriever, built or loaded."""

    def __init__(self) -> None:
        faiss.omp_set_num_threads(1)
        self.embeddings = Timed(encoder("all-MiniLM-L6-v2"))

    def build(self, texts: str, folder: str, vectors: str, count: int) -> None:
        """Fill it with the first texts of a file, one a line, and rows of an array [texts, dimensions], and save it."""
        with open(texts, encoding="utf-8") as lines:
            some = [line.rstrip("\n") for line, _ in zip(lines, range(count))]  # noqa: B905 - the file may be longer
        numbers = [{"number": number} for number in range(len(some))]
        words = BM25Retriever.from_texts(some, metadatas=numbers, k=K)
        store = FAISS.from_embeddings(
            zip(some, np.load(vectors, mmap_mode="r")[: len(some)], strict=True),
            self.embeddings,
            metadatas=numbers,
            distance_strategy=DistanceStrategy.MAX_INNER_PRODUCT,
        )
        with open(Path(folder, "bm25.pickle"), "wb") as file:
            pickle.dump(words, file)
        store.save_local(folder)

    def open(self, folder: str) -> None:
        """Load it."""
        with open(Path(folder, "bm25.pickle"), "rb") as file:
            words = pickle.load(file)  # noqa: S301 - written by ourselves a moment ago
        store = FAISS.load_local(
            folder,
            self.embeddings,
            allow_dangerous_deserialization=True,
            distance_strategy=DistanceStrategy.MAX_INNER_PRODUCT,
        )
        self.retriever = EnsembleRetriever(
            retrievers=[words, store.as_retriever(search_kwargs={"k": K})], weights=[0.5, 0.5], id_key="number"
        )

    def search(self, query: str, k: int) -> dict[str, Any]:
        """The best documents' numbers, and the seconds of it that encoding took."""
        before = self.embeddings.seconds
        found = self.retriever.invoke(query)[:k]
        return {"ids": [one.metadata["number"] for one in found], "encoding": self.embeddings.seconds - before}


if __name__ == "__main__":
    serve(Ensemble())
