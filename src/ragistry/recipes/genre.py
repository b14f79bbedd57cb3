"""Documents found by their names, which a language model writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..protocols import Retriever
from ..registry import Lesson, Recipe, require


class GENRERecipe(Recipe):
    """A language model that answers with names: it writes them token by token, and nothing that is no document's name.

    A document's names are its title, or its text where it has none, and those in a metadata field; the model needs no
    retraining when documents come and go. Until it is fitted a model grown from embeddings, as the default one, ranks
    badly; one that was taught names, such as `facebook/genre-kilt` those of Wikipedia (save its weights as safetensors
    first), does not need it. A mention may be marked in the query, as in `in [START_ENT] Paris [END_ENT] , Texas`. `fit`
    chooses how much the length of names counts.

    Source: GENRE, arXiv:2010.00904; mGENRE, arXiv:2103.12528, for several names of one document.
    """

    summary: ClassVar[str] = "documents found by their titles, which a language model writes token by token"
    name: Literal["genre"] = "genre"
    model: Annotated[
        str,
        Field(
            description="an encoder-decoder or causal language model, or an embedding model, of which an encoder-decoder is "
            "made: a folder, or a name on the hub"
        ),
    ] = "all-MiniLM-L6-v2"
    prompt: Annotated[str, Field(description="what the model reads, with {query} where the query belongs")] = "{query}"
    beams: Annotated[int, Field(gt=0, description="unfinished names followed for each query")] = 10
    length_penalty: Annotated[
        float, Field(ge=0, description="exponent of a name's length that divides its log-probability; 0: none")
    ] = 0.0
    few: Annotated[int, Field(ge=0, description="where so many names are left, or fewer, all are scored")] = 16
    query_tokens: Annotated[int, Field(gt=0, description="of a query that are read, those of the prompt included")] = (
        128
    )
    name_tokens: Annotated[int, Field(gt=0, description="of a name, at most; longer ones are cut")] = 32
    aliases: Annotated[
        str, Field(description="the metadata field with more names of a document: a text or a list of texts")
    ] = "aliases"
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], Field(description="auto: bf16 where the processor is faster with it")
    ] = "fp32"
    layers: Annotated[
        int | None,
        Field(gt=0, description="of the decoder that is made for an embedding model; null: as many as it has"),
    ] = 2
    encoder_layers: Annotated[
        Annotated[int, Field(gt=0)] | Literal["half"] | None,
        Field(description="of the encoder that is made of one, the first ones; null: all"),
    ] = "half"
    copies: Annotated[
        int, Field(ge=0, description="names that `fit` has repeated first, in forms of them; 0: none")
    ] = 20_000
    copy_rate: Annotated[float, Field(gt=0, description="the learning rate of that")] = 2e-3
    made: Annotated[int, Field(ge=0, description="pairs that `fit` makes of the documents' texts, at most")] = 4000
    links: Annotated[
        int,
        Field(
            ge=0, description="sentences of the documents that `fit` has marked where they name others, for `Linker`"
        ),
    ] = 0
    epochs: Annotated[int, Field(ge=0, description="of your pairs and all those")] = 4
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    encoder_rate: Annotated[
        float,
        Field(ge=0, description="share of it that the encoder learns with; 0: it stays as it is, which is faster"),
    ] = 0.2
    size: Annotated[int, Field(gt=0, description="pairs in a batch")] = 32
    smoothing: Annotated[float, Field(ge=0, lt=1, description="of labels")] = 0.1
    seed: int = 0

    def build(self) -> Retriever:
        """A retriever that holds names."""
        require("torch", "dense")
        require("transformers", "dense")
        from ..retrievers.generative import Generative
        from ..retrievers.namer import Namer
        from ..scorers.language_model import LanguageModel

        namer = Namer(
            LanguageModel(
                self.model,
                precision=self.precision,
                grow="seq2seq",
                layers=self.layers,
                encoder_layers=self.encoder_layers,
            ),
            prompt=self.prompt,
            query_tokens=self.query_tokens,
            name_tokens=self.name_tokens,
        )
        return Generative(
            namer, beams=self.beams, length_penalty=self.length_penalty, few=self.few, aliases=self.aliases
        )

    def variants(self, retriever: Any) -> Iterable[tuple[Recipe, Retriever]]:
        """Other length penalties over the same names: none, the root, and the length itself."""
        for penalty in (0.0, 0.5, 1.0):
            if penalty != self.length_penalty:
                yield self.model_copy(update={"length_penalty": penalty}), retriever.penalised(penalty)

    def learn(self, retriever: Any, judged: Mapping[str, Mapping[str, int]], ids: Sequence[str], lesson: Lesson) -> Any:
        """Both stages, from pairs and documents; without epochs and copies `fit` chooses the length penalty alone."""
        if not (self.copies or self.epochs):
            return None
        from ..training.naming import Naming, teach

        settings = Naming(
            copies=self.copies,
            copy_rate=self.copy_rate,
            made=self.made,
            links=self.links,
            epochs=self.epochs,
            rate=self.learning_rate,
            encoder=self.encoder_rate,
            size=self.size,
            smoothing=self.smoothing,
            seed=self.seed,
        )
        return teach(retriever, self, settings, judged, ids, lesson)
