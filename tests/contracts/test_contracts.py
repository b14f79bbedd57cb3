"""The contracts notice what they are there for: each fault below fails the test that is named beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import pytest

from ragistry import Analyzer, Document, Ranking, create
from ragistry.encoders.terms import Terms
from ragistry.errors import InvalidInput
from ragistry.indexes.inverted import Inverted
from ragistry.indexes.weighting import Impact
from ragistry.protocols import Encoder, Index, Retriever
from ragistry.retrievers.searcher import Searcher
from ragistry.testing import EncoderContract, IndexContract, RetrieverContract, UpdatableContract
from ragistry.types import Among


class FiltersLate(Inverted):
    def search(self, queries: Any, k: int, *, among: Among = None) -> list[Ranking]:
        found = super().search(queries, k)
        kept = [[hit for hit in ranking if among is None or hit[0] in among] for ranking in found]
        return [Ranking.of([i for i, _ in hits], [score for _, score in hits]) for hits in kept]


class FindsOneMore(Inverted):
    def search(self, queries: Any, k: int, *, among: Among = None) -> list[Ranking]:
        return super().search(queries, k + 1, among=among)


class ForgetsToReplace(Inverted):
    def add(self, ids: Sequence[str], vectors: Any) -> None:
        new = [i for i, name in enumerate(ids) if name not in {n for s in self._segments for n in s.ids.all}]
        super().add([ids[i] for i in new], vectors[new])


class ForgetsToRemove(Inverted):
    def remove(self, ids: Iterable[str]) -> None:
        pass


class ForksItself(Inverted):
    def fork(self) -> Self:
        return self


class TakesAnything(Inverted):
    def add(self, ids: Sequence[str], vectors: Any) -> None:
        kept = list(dict.fromkeys(map(str, ids)))
        super().add(kept, vectors[: len(kept)])


class MixesUpQueries(Inverted):
    def search(self, queries: Any, k: int, *, among: Among = None) -> list[Ranking]:
        return super().search(queries, k, among=among)[::-1]


class SavesNothing(Inverted):
    def save(self, files: Any) -> dict[str, Any]:
        return {"segments": []}


class SavesNoise(Inverted):
    count = 0

    def save(self, files: Any) -> dict[str, Any]:
        SavesNoise.count += 1
        return {**super().save(files), "time": files.put(np.array([SavesNoise.count]))}


class GivesBackOthers(Inverted):
    def vectors(self, ids: Sequence[str]) -> Any:
        return super().vectors(sorted(ids))


@pytest.mark.parametrize(
    ("index", "test"),
    [
        (FiltersLate, "test_among"), (FindsOneMore, "test_k"), (ForgetsToReplace, "test_adding_again_replaces"),
        (ForgetsToRemove, "test_removing_is_absence"), (ForksItself, "test_fork"), (ForksItself, "test_threads"),
        (TakesAnything, "test_bad_ids_are_refused"), (MixesUpQueries, "test_one_ranking_per_query"),
        (SavesNothing, "test_saving"), (SavesNoise, "test_saving"), (GivesBackOthers, "test_keeps_vectors"),
    ],
)  # fmt: skip
def test_faulty_indexes_fail(index: type[Inverted], test: str) -> None:
    class Contract(IndexContract):
        def make(self) -> Index:
            return index(Impact())

    with pytest.raises(AssertionError):
        getattr(Contract(), test)()


class Scans:
    """A retriever without an index, with a fault by name."""

    def __init__(self, fault: str) -> None:
        self.fault, self.asked = fault, 0

    def search(self, queries: Sequence[str], k: int = 10, *, among: Among = None) -> list[Ranking]:
        if isinstance(queries, str) or not all(isinstance(query, str) for query in queries):
            raise InvalidInput("a list of text is needed")
        self.asked += 1
        found = []
        for number, query in enumerate(queries):
            if self.fault == "needs words" and not query.strip():
                raise ValueError(query)
            ids = [d.id for d in UpdatableContract().documents() if set(query.split()) & set(d.full_text.split())]
            ids = [i for i in ids if among is None or i in among or self.fault == "ignores among"]
            bonus = {"depends on position": number, "depends on history": self.asked}.get(self.fault, 0)
            found.append(Ranking.of(ids, [len(i) + bonus for i in ids], None if self.fault == "ignores k" else k))
        return found[:1] if self.fault == "answers once" else found


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("ignores k", "test_k"), ("ignores among", "test_among"), ("answers once", "test_one_ranking_per_query"),
        ("depends on position", "test_one_ranking_per_query"), ("needs words", "test_odd_queries"),
        ("depends on history", "test_asking_changes_nothing"),
    ],
)  # fmt: skip
def test_faulty_retrievers_fail(fault: str, test: str) -> None:
    class Contract(RetrieverContract):
        def __init__(self, fault: str) -> None:
            self.fault = fault

        def make(self) -> Retriever:
            return Scans(self.fault)

    getattr(Contract("none"), test)()
    with pytest.raises((AssertionError, ValueError)):
        getattr(Contract(fault), test)()


def test_a_retriever_that_takes_no_documents_is_no_updatable() -> None:
    class Contract(UpdatableContract):
        def make(self) -> Retriever:
            return Scans("none")

    with pytest.raises(AssertionError, match="RetrieverContract"):
        Contract().test_is_updatable()


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        (ForgetsToReplace, "test_adding_again_replaces"), (ForgetsToRemove, "test_removing_is_absence"),
        (ForksItself, "test_fork"), (SavesNothing, "test_saving"), (SavesNoise, "test_saving"),
        (TakesAnything, "test_bad_documents_are_refused"), (FiltersLate, "test_among"),
    ],
)  # fmt: skip
def test_faulty_updatables_fail(fault: type[Inverted], test: str) -> None:
    class Contract(UpdatableContract):
        def make(self) -> Retriever:
            made = Searcher(Terms(Analyzer()), fault(Impact()))
            made.recipe = create("bm25").recipe  # type: ignore[attr-defined]
            return made

    with pytest.raises(AssertionError):
        getattr(Contract(), test)()


class FaultyTerms(Terms):
    def __init__(self, fault: str) -> None:
        super().__init__(Analyzer())
        self.fault = fault

    def encode(self, items: Sequence[Any], role: Any) -> Any:
        rows = super().encode(items, role)
        if self.fault == "batch" and len(items) > 1:
            rows.data = rows.data / len(items)
        elif self.fault == "double":
            rows.data = rows.data.astype(np.float64)
        elif self.fault == "order":
            rows.data = rows.data * np.arange(1, len(rows.data) + 1, dtype=np.float32)
        elif self.fault == "text only":
            return super().encode([i.text if isinstance(i, Document) else i for i in items], role)
        elif self.fault == "dense":
            return np.zeros((len(items), 3), np.float32)
        return rows

    def fingerprint(self) -> str:
        return "always the same" if self.fault == "fingerprint" else super().fingerprint()


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("batch", "test_batches_are_invisible"), ("double", "test_shape_and_type"), ("order", "test_order_is_invisible"),
        ("text only", "test_document_is_its_full_text"), ("dense", "test_shape_and_type"),
        ("fingerprint", "test_fingerprint"),
    ],
)  # fmt: skip
def test_faulty_encoders_fail(fault: str, test: str) -> None:
    class Contract(EncoderContract):
        def __init__(self, fault: str) -> None:
            self.fault = fault

        def make(self) -> Encoder:
            return FaultyTerms(self.fault)

        def make_other(self) -> Encoder:
            other = FaultyTerms(self.fault)
            other.analyzer = Analyzer(stemmer=None)
            return other

    getattr(Contract("none"), test)()
    with pytest.raises(AssertionError):
        getattr(Contract(fault), test)()


@pytest.mark.parametrize("contract", [EncoderContract, IndexContract, RetrieverContract, UpdatableContract])
def test_what_is_left_undefined_is_named(contract: type[Any]) -> None:
    with pytest.raises(InvalidInput, match="define `make`"):
        contract().make()
