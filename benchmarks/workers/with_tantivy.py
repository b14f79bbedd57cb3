"""tantivy: English stop words and stemmer, its fixed k1 = 1.2 and b = 0.75; of documents only the numbers are stored."""

from __future__ import annotations

import os

import tantivy
from serve import serve
from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

HEAP = 512_000_000  # of the writer, for all its threads


class Tantivy:
    """An index in a folder."""

    def build(self, texts: str, folder: str) -> None:
        """Index a file of texts, one a line, and open it."""
        schema = tantivy.SchemaBuilder()
        schema.add_unsigned_field("number", stored=True)
        schema.add_text_field("text", tokenizer_name="english", index_option="freq")
        analyzer = TextAnalyzerBuilder(Tokenizer.simple()).filter(Filter.remove_long(40)).filter(Filter.lowercase())
        analyzer = analyzer.filter(Filter.stopword("english")).filter(Filter.stemmer("english"))
        self.index = tantivy.Index(schema.build(), path=folder)
        self.index.register_tokenizer("english", analyzer.build())
        writer = self.index.writer(heap_size=HEAP, num_threads=os.cpu_count() or 1)
        with open(texts, encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                document = tantivy.Document()
                document.add_unsigned("number", number)
                document.add_text("text", line)
                writer.add_document(document)
        writer.commit()
        writer.wait_merging_threads()
        self.index.reload()
        self.searcher = self.index.searcher()

    def search(self, query: str, k: int) -> list[int]:
        """The best documents' numbers."""
        asked, _ = self.index.parse_query_lenient(query, ["text"])
        hits = self.searcher.search(asked, k, count=False).hits
        return [self.searcher.doc(address)["number"][0] for _, address in hits]


if __name__ == "__main__":
    serve(Tantivy())
