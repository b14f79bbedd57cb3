"""A retriever without vectors: a language model answers queries with the names of documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ..errors import FingerprintMismatch, InvalidInput, UnknownName
from ..indexes.segments import Segment, Segmented
from ..protocols import NOTHING, Files, State
from ..types import Among, Document, Floats, Ints, Query, Ranking, check_text
from .asking import check_search
from .constrained import ConstrainedSearch, marginalise
from .namer import Namer
from .trie import Trie

EMPTY = Ranking((), np.empty(0, np.float32))


class Generative:
    """Finds documents whose names a language model finds most probable, given the query.

    A document's names are its title, or where it has none its text, cut at `name_tokens`; and the texts in the metadata
    field `aliases`. Its score is the logarithm of the sum of exp(score) over those of its names that were found, a name's
    that of `ConstrainedSearch`. Documents with the same name are all found. One without a name, because it is empty or
    holds nothing but control characters or special tokens, is kept and never found.

    As many names are looked for as there are beams, or `k` of them if that is more: where documents have several names, or
    share theirs, hits can be fewer or more. Up to `few` names are all scored, whatever the beams. Adding a document changes
    no other's score. The texts of names are not kept.

    Args:
        namer: A language model, and how queries and names are put to it.
        beams: Unfinished names followed for each query.
        length_penalty: Exponent of a name's length that divides its log-probability; 0 ranks by probability.
        few: Up to so many names are scored in full.
        batch: Queries at once.
        aliases: The metadata field with more names: a text, or a list of texts.

    Raises:
        InvalidInput: If a setting cannot be used. From the first use, if the model cannot.
        FingerprintMismatch: From `add` and `search`, if what was loaded was named by another tokenizer, or cut elsewhere.

    Example:
        >>> from ragistry.scorers.language_model import LanguageModel
        >>> retriever = Generative(Namer(LanguageModel("all-MiniLM-L6-v2", grow="seq2seq")))
        >>> retriever.add([Document("1", "Fourteen lines.", title="Sonnet"), Document("2", "Three lines.", title="Haiku")])
        >>> ranking = retriever.search(["how many lines has a sonnet?"])[0]
        >>> sorted(ranking.ids), len(retriever.names)
        (['1', '2'], 2)

    Source: GENRE, arXiv:2010.00904 (2021); several names for one document: mGENRE, arXiv:2103.12528 (2022). Deviations: as
    in `ConstrainedSearch`; the text stands for a missing title.
    """

    recipe: Any = None
    reads_metadata = True

    def __init__(
        self,
        namer: Namer,
        *,
        beams: int = 10,
        length_penalty: float = 0.0,
        few: int = 16,
        batch: int = 16,
        aliases: str = "aliases",
    ) -> None:
        self.namer, self.beams, self.length_penalty = namer, beams, length_penalty
        self.few, self.batch, self.aliases = few, batch, aliases
        self._searching(None, None)  # refuses settings that cannot be used
        self._held = _Held(Trie(0), _Numbered())
        self._files: Mapping[str, str] | None = None if self.weights else {}  # of the weights, where that is known

    @property
    def names(self) -> Trie:
        """The names, whose entities are numbers of documents: see `ids`. It is never changed; a new one takes its place."""
        return self._held.names

    @property
    def weights(self) -> Mapping[str, Floats]:
        """Those that `tuned` was given."""
        return self.namer.model.weights

    def search(self, queries: Sequence[Query], k: int = 10, *, among: Among = None) -> list[Ranking]:
        """One ranking per query, at most `k` long, of ids in `among`.

        Raises:
            InvalidInput: If `queries` is no sequence of texts, `k` no whole number, or `among` no collection.
        """
        check_search(queries, k, among)
        for query in queries:
            check_text(query, "a query")
        namer, held = self.namer, self._held  # replaced as a whole, never changed, so that threads need no lock
        names = held.names if among is None else held.names.among(held.documents.numbers(among))
        if k <= 0 or not queries or not len(names):
            return [EMPTY] * len(queries)
        self._check(held)
        asked = list(dict.fromkeys(queries))
        wanted = len(names) if len(names) <= self.few else max(k, self.beams)
        search = self._searching(namer.model.model, namer.start)
        found = dict[Query, Ranking]()
        for query, own in zip(asked, search.search(namer.prompts(asked), names, wanted), strict=True):
            numbers, scores = zip(*marginalise(own), strict=True) if own else ((), ())
            found[query] = Ranking.of(held.documents.at(numbers), np.array(scores, np.float32), k)
        return [found[query] for query in queries]

    def add(self, documents: Sequence[Document], *, same: Mapping[str, str] = NOTHING) -> None:
        """Insert; a document whose id is already there is replaced, its names with it.

        Args:
            documents: What to insert.
            same: Not needed here: names are quickly made, and those in the metadata may differ.

        Raises:
            InvalidInput: If something given is no `Document`, two have the same id, or aliases are no texts.
        """
        documents, texts, owners = list(documents), list[str](), list[int]()
        for place, document in enumerate(documents):
            if not isinstance(document, Document):
                raise InvalidInput(f"{document!r:.100} is {type(document).__name__}; give a list of Documents")
            own = [document.title if document.title.strip() else document.text, *self._aliases(document)]
            texts += own
            owners += [place] * len(own)
        if not owners:
            return
        held = self._held
        self._check(held)
        known, count = held.documents.fork(), owners[-1] + 1
        numbers = np.arange(held.next, held.next + count)
        known.add([document.id for document in documents], numbers)
        named = [(ids, owner) for ids, owner in zip(self.namer.names(texts), owners, strict=True) if ids]
        gone = held.documents.numbers([document.id for document in documents])
        names = held.names.fork() if len(held.names) else Trie(self.namer.end)
        if len(gone):
            names.remove(gone)
        names.add([ids for ids, _ in named], numbers[[owner for _, owner in named]])
        self._held = _Held(names, known, held.next + count, self.namer.fingerprint())

    def remove(self, ids: Iterable[str]) -> None:
        """Take ids out; ids that are not there are passed over.

        Raises:
            InvalidInput: If one text is given instead of several ids.
        """
        gone = ids if isinstance(ids, str) else list(ids)  # a text, which is refused, would pass as its letters
        held = self._held
        documents = held.documents.fork()
        documents.remove(gone)
        if len(documents) == len(held.documents):
            return
        names = held.names.fork()
        names.remove(held.documents.numbers(gone))
        self._held = replace(held, names=names, documents=documents, made_by=held.made_by if len(documents) else "")

    def ids(self, numbers: Sequence[int] | Ints) -> list[str]:
        """The ids of documents by their numbers in `names`, in the order asked.

        A document that is replaced has another number, and no number is given twice.

        Raises:
            UnknownName: If there is no document with such a number (any more).
        """
        return self._held.documents.at(numbers)

    def numbers(self, ids: Iterable[str]) -> Ints:
        """The numbers of documents, int64, rising; ids that are not there are passed over.

        Raises:
            InvalidInput: If one text is given instead of several ids.
        """
        if isinstance(ids, str):
            raise InvalidInput(f"ids are given as one text, {ids!r:.100}; give a list of ids")
        return self._held.documents.numbers(list(ids))

    def tuned(self, weights: Mapping[str, Floats]) -> Self:
        """The same names under a model with other values for some of its weights; this one stays as it is.

        Args:
            weights: By their names in the model.

        Raises:
            InvalidInput: From the first use, if the model has no such weight, or of another shape.
        """
        twin = self.fork()
        twin.namer, twin._files = self.namer.tuned(weights), None if weights else {}
        return twin

    def penalised(self, length_penalty: float) -> Self:
        """The same with another length penalty, for comparing several.

        Raises:
            InvalidInput: If it is negative or not finite.
        """
        twin = self.fork()
        twin.length_penalty = length_penalty
        twin._searching(None, None)
        return twin

    def fork(self) -> Self:
        """A copy that shares what is stored: changing one leaves the other as it was."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""
        held = self._held
        state: State = {
            "fingerprint": held.made_by,
            "names": held.names.save(files),
            "documents": held.documents.save(files),
            "next": held.next,
        }
        if self.weights:
            self._files = state["weights"] = {name: files.put(value) for name, value in sorted(self.weights.items())}
        return state

    def load(self, state: State, files: Files) -> None:
        """Become what was saved. The tokenizer is compared when it is first used, so that opening stays quick."""
        names, documents = Trie(0), _Numbered()
        names.load(state["names"], files)
        documents.load(state["documents"], files)
        held, kept = _Held(names, documents, state["next"], state["fingerprint"]), state.get("weights", {})
        weights = {name: files.get(file) for name, file in kept.items()}
        if kept != self._files:  # else what is there may have been read into a model
            self.namer, self._files = self.namer.tuned(weights), kept
        self._held = held

    def __len__(self) -> int:
        return len(self._held.documents)

    def _aliases(self, document: Document) -> Sequence[str]:
        found = document.metadata.get(self.aliases)
        several = () if found is None else [found] if isinstance(found, str) else found
        if not isinstance(several, list | tuple) or not all(isinstance(alias, str) for alias in several):
            raise InvalidInput(
                f"document {document.id!r}: the metadata field {self.aliases!r} is {found!r:.100}; names are a text or a "
                "list of texts, or give another field as `aliases`"
            )
        for alias in several:
            check_text(alias, f"document {document.id!r}: a text in the metadata field {self.aliases!r}")
        return several

    def _searching(self, model: Any, start: Sequence[int] | None) -> ConstrainedSearch:
        return ConstrainedSearch(
            model,
            beams=self.beams,
            length_penalty=self.length_penalty,
            few=self.few,
            batch=self.batch,
            start=start,
        )

    def _check(self, held: _Held) -> None:
        if held.made_by and (found := self.namer.fingerprint()) != held.made_by:
            raise FingerprintMismatch(
                f"the names were made by another tokenizer, or cut at another length (fingerprint {held.made_by[:12]}, this "
                f"one is {found[:12]}); use the model and name_tokens they were made with, or add the documents again"
            )


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Of a segment's documents, int64 [n], rising."""

    values: Ints

    def save(self, files: Files) -> State:
        return {"numbers": files.put(self.values)}


class _Numbered(Segmented[_Numbers]):
    """Documents by id with numbers that rise as they come."""

    def numbers(self, ids: Among) -> Ints:
        found = [segment.content.values[self._mask(segment, ids)] for segment in self._segments]
        return np.concatenate([np.zeros(0, np.int64), *found])

    def at(self, numbers: Sequence[int] | Ints) -> list[str]:
        wanted = np.asarray(numbers, np.int64)
        found = np.full(len(wanted), None, object)
        for segment in self._segments:
            values = segment.content.values
            rows = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
            here = np.flatnonzero((values[rows] == wanted) & segment.alive[rows])
            found[here] = segment.ids.at(rows[here].tolist())
        if lost := [number for number, id in zip(wanted.tolist(), found, strict=True) if id is None]:
            raise UnknownName(f"no document has the number {lost[0]}; take numbers from `names`, before it changes")
        return list(found)

    def _make(self, vectors: Any) -> _Numbers:
        return _Numbers(vectors)

    def _merge(self, segments: Sequence[Segment[_Numbers]]) -> _Numbers:
        return _Numbers(np.concatenate([segment.content.values[segment.alive] for segment in segments]))

    def _read(self, state: State, files: Files) -> _Numbers:
        return _Numbers(files.get(state["numbers"]))


@dataclass(frozen=True, slots=True)
class _Held:
    """What is held at one time. Nothing in it is changed."""

    names: Trie
    documents: _Numbered
    next: int = 0
    """The number of the next document."""
    made_by: str = ""
    """The fingerprint of who made the names; none where there is no document."""
