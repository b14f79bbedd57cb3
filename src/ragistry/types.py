"""The values that pass between concepts: documents, hits, rankings and vectors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import InvalidInput

if TYPE_CHECKING:
    from scipy.sparse import csr_array  # takes longer to load than a query to answer

Kind: TypeAlias = Literal["dense", "sparse", "multi"]
"""What an encoder makes and an index holds: one vector, term weights, or one vector per token."""

Role: TypeAlias = Literal["query", "document"]
Query: TypeAlias = str
"""A query is its text."""

Among: TypeAlias = Collection[str] | None
"""The ids a search may return; `None` allows all of them, an empty collection none."""

Floats: TypeAlias = npt.NDArray[np.float32]
Ints: TypeAlias = npt.NDArray[np.int64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Mask: TypeAlias = Bools


@dataclass(frozen=True, slots=True)
class Document:
    """A text with an id.

    Args:
        id: Any non-empty text; spaces, slashes and emoji are fine.
        text: What is searched. It may be empty.
        title: Searched together with the text.
        metadata: Values that JSON can hold, for filters and display.

    Raises:
        InvalidInput: If the id is empty, or if the id, title or text is not text that UTF-8 can hold.

    Example:
        >>> Document("1", "A sonnet has fourteen lines.", title="Sonnet").full_text
        'Sonnet\\nA sonnet has fourteen lines.'
    """

    id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("id", self.id), ("text", self.text), ("title", self.title)):
            if not isinstance(value, str):
                raise InvalidInput(
                    f"document {self.id!r}: `{name}` is {type(value).__name__}, a str is needed; convert it first"
                )
            check_text(value, f"document {self.id!r}: `{name}`")
        if not self.id:
            raise InvalidInput("a document has an empty id; give every document an id that is unique in its collection")
        if not isinstance(self.metadata, Mapping):
            raise InvalidInput(
                f"document {self.id!r}: `metadata` is {type(self.metadata).__name__}, a mapping of names to values "
                "is needed"
            )

    @property
    def full_text(self) -> str:
        """Title and text as one string: what encoders and indexes see."""
        return f"{self.title}\n{self.text}" if self.title else self.text


Item: TypeAlias = Query | Document


def check_text(value: str, what: str) -> None:
    """Refuse text holding lone surrogates, which neither UTF-8 nor the corpus can store."""
    if value.isascii():
        return
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{what} holds a lone surrogate at character {error.start}, which UTF-8 cannot store; decode the source "
            'with errors="replace"'
        ) from None


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer of `Collection.search`: a document and its score (higher is better)."""

    id: str
    score: float
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Pair(NamedTuple):
    """A query and a document that answers it: what `fit` learns from."""

    query: str
    document_id: str


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Ids best first, with finite, non-increasing scores; equal scores are in the order of their ids.

    Args:
        ids: Document ids, no duplicates.
        scores: float32 [len(ids)].

    Raises:
        InvalidInput: If any of that does not hold. NaN is refused.

    Example:
        >>> Ranking.of(["b", "a", "c"], [1.0, 1.0, 3.0], k=2).ids
        ('c', 'a')
    """

    ids: tuple[str, ...]
    scores: Floats

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", tuple(self.ids))
        scores = np.asarray(self.scores, dtype=np.float32).view()
        scores.flags.writeable = False
        object.__setattr__(self, "scores", scores)
        if scores.shape != (len(self.ids),):
            raise InvalidInput(
                f"a ranking has {len(self.ids)} ids but scores of shape {scores.shape}; one each is needed"
            )
        if not np.isfinite(scores).all():
            raise InvalidInput("a ranking has a score that is NaN or infinite; scores must be finite")
        if len(set(self.ids)) != len(self.ids):
            raise InvalidInput("a ranking has an id twice; ids must be unique")
        falls = scores[:-1] > scores[1:]
        if not falls.all():
            for i in np.flatnonzero(~falls).tolist():
                if scores[i] < scores[i + 1] or self.ids[i] > self.ids[i + 1]:
                    raise InvalidInput(
                        "a ranking is not sorted: scores must not increase and equal scores must be in the order of "
                        "their ids; `Ranking.of` sorts"
                    )

    @classmethod
    def of(cls, ids: Sequence[str], scores: npt.ArrayLike, k: int | None = None) -> Ranking:
        """Sort ids by score (then id) and keep the best `k`."""
        values = np.asarray(scores, dtype=np.float32)
        if values.shape != (len(ids),):
            raise InvalidInput(f"{len(ids)} ids were given with scores of shape {values.shape}; one each is needed")
        if np.isnan(values).any():
            raise InvalidInput("a score is NaN; scores must be finite")
        order = sorted(range(len(ids)), key=lambda i: (-values[i], ids[i]))[:k]
        return cls(tuple(ids[i] for i in order), values[order])

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return iter(zip(self.ids, self.scores.tolist(), strict=True))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranking) and self.ids == other.ids and bool(np.array_equal(self.scores, other.scores))

    __hash__ = None  # type: ignore[assignment]

    def head(self, k: int) -> Ranking:
        """The best `k`."""
        return self if k >= len(self.ids) else Ranking(self.ids[:k], self.scores[:k])


@dataclass(frozen=True, slots=True, eq=False)
class MultiVectors:
    """Several vectors per item: item i owns rows `offsets[i]:offsets[i + 1]`.

    Args:
        values: float32 [rows, dimensions].
        offsets: int64 [items + 1], from 0 to rows, never decreasing.

    Raises:
        InvalidInput: If shapes or offsets do not fit.
    """

    values: Floats
    offsets: Ints

    def __post_init__(self) -> None:
        offsets = self.offsets
        if self.values.ndim != 2 or offsets.ndim != 1 or not len(offsets):
            raise InvalidInput(
                f"multi-vectors need values [rows, dimensions] and offsets [items + 1]; given {self.values.shape} and "
                f"{offsets.shape}"
            )
        if offsets[0] != 0 or offsets[-1] != len(self.values) or (np.diff(offsets) < 0).any():
            raise InvalidInput(f"offsets must run from 0 to {len(self.values)} without decreasing")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, item: int) -> Floats:
        return self.values[self.offsets[item] : self.offsets[item + 1]]


class Counts(NamedTuple):
    """The arrays of a CSR array [rows, columns] of term counts, for those who need nothing else of it."""

    data: Floats
    indices: Ints
    indptr: Ints
    shape: tuple[int, int]


Vectors: TypeAlias = "Floats | csr_array | MultiVectors"
"""float32 [n, dimensions] for `dense`, a CSR array [n, columns] for `sparse`, `MultiVectors` for `multi`."""
