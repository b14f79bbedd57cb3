"""An encoder as LangChain's embeddings."""

from __future__ import annotations

from typing import Any, cast

from langchain_core.embeddings import Embeddings

from ragistry import Collection
from ragistry.borrowed import Borrowed
from ragistry.errors import InvalidInput
from ragistry.protocols import Encoder
from ragistry.types import Floats, Role


class RagistryEmbeddings(Embeddings):
    """Any dense encoder, to fill and search any `VectorStore` with: also one that was taught.

    Args:
        encoder: Such as `ragistry.encoders.projected.Projected.load("adapter.safetensors", encoder)`.

    Raises:
        InvalidInput: If it is no encoder, or does not make one vector per text.

    Example:
        >>> from ragistry.encoders.functions import Function
        >>> length = Function(lambda texts: [[len(text), 1] for text in texts], "length", normalise=False)
        >>> RagistryEmbeddings(length).embed_documents(["four", "three"])
        [[4.0, 1.0], [5.0, 1.0]]
    """

    def __init__(self, encoder: Encoder) -> None:
        if not isinstance(encoder, Encoder) or encoder.kind != "dense":
            kind = f" that makes {encoder.kind} vectors" if isinstance(encoder, Encoder) else ""
            raise InvalidInput(f"{type(encoder).__name__}{kind} was given; a dense encoder is needed")
        self.encoder = encoder

    @classmethod
    def of(cls, collection: Collection | Borrowed) -> RagistryEmbeddings:
        """The encoder of a collection or a borrowed store, with what `fit` has taught it.

        What a collection remembers of single documents stays behind, as a text alone does not say which it is. An encoder
        that turns documents too is for a store that it fills itself.

        Raises:
            InvalidInput: If the collection has no dense encoder.

        Example:
            >>> import tempfile
            >>> from ragistry import create
            >>> from ragistry.encoders.functions import register_encoder
            >>> _ = register_encoder("length-of-text", lambda texts: [[len(text), 1] for text in texts], normalise=False)
            >>> docs = Collection.create(tempfile.mkdtemp() + "/docs", create("dense", model="length-of-text"))
            >>> RagistryEmbeddings.of(docs).embed_query("four")
            [4.0, 1.0]
        """
        retriever: Any = collection.retriever()
        adapter = getattr(retriever, "adapter", None)
        taught = adapter() if callable(adapter) else getattr(retriever, "aware", None)
        encoder = taught or getattr(retriever, "encoder", None)
        if encoder is None:
            raise InvalidInput(
                f"the retriever of the collection ({type(retriever).__name__}) has no encoder; give a collection with a "
                'dense one, such as create("dense")'
            )
        return cls(encoder)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector per document.

        Raises:
            InvalidInput: If one is not text that UTF-8 can hold.
        """
        return self._encoded(texts, "document")

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query.

        Raises:
            InvalidInput: If it is not text that UTF-8 can hold.
        """
        return self._encoded([text], "query")[0]

    def _encoded(self, texts: list[str], role: Role) -> list[list[float]]:
        # The async methods of `Embeddings` call these in a thread.
        vectors = cast(Floats, self.encoder.encode(texts, role)) if texts else None
        return [] if vectors is None else cast(list[list[float]], vectors.tolist())
