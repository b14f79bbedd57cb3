"""How counts become scores: BM25 and its variants, query likelihood with two smoothings, and learned impacts.

The index keeps counts; a weighting only says how to combine them, so that changing it, or adding documents, needs nothing
to be rebuilt. All of them are one of three forms of a term's contribution to a document of length `l`, with `f` the term's
count in it and `a`, `c0`, `c1` constants of the term and of the collection:

    saturating   a * f / (f + c0 + c1 * l)
    logarithmic  log(1 + a * f / l^c0)
    linear       a * f

to which a constant per query term and an offset per document are added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Protocol

from ..errors import InvalidInput

SATURATING, LOGARITHMIC, LINEAR = range(3)


class Statistics(NamedTuple):
    """Of a collection: how many documents, and how many terms in all."""

    documents: int
    terms: float


class Weighting(Protocol):
    """See the module's first paragraph for what the numbers mean."""

    form: ClassVar[int]

    def constants(self, statistics: Statistics) -> tuple[float, float]:
        """`c0` and `c1`."""

    def term(self, statistics: Statistics, documents: int, occurrences: float) -> tuple[float, float]:
        """`a`, and what the term adds to every document, for a term in so many documents, so many times in all."""

    @property
    def prior(self) -> float:
        """The `mu` of the offset `log(mu / (mu + l))` per query term; 0 for none."""


Variant = Literal["robertson", "lucene", "atire", "bm25l", "bm25+"]


@dataclass(frozen=True)
class BM25:
    """Okapi BM25 and four variants.

    Args:
        k1: How soon repeated occurrences stop counting, >= 0.
        b: How much long documents are held against, 0 to 1.
        variant: "robertson" (negative idf raised to 0), "lucene", "atire", "bm25l" or "bm25+".
        delta: The lower bound of "bm25l" and "bm25+".

    Raises:
        InvalidInput: If a parameter is out of range.

    Example:
        >>> BM25(k1=1.2).constants(Statistics(documents=10, terms=50.0))
        (0.3, 0.18)

    Source: Robertson et al. (TREC-3, 1994); variants as surveyed by Kamphuis et al., "Which BM25 do you mean?" (ECIR 2020),
    table 1. As there, "lucene" and "robertson" leave out the factor k1 + 1, which changes no ranking.
    """

    form: ClassVar[int] = SATURATING
    k1: float = 1.2
    b: float = 0.75
    variant: Variant = "lucene"
    delta: float = 0.5

    def __post_init__(self) -> None:
        if not (0 <= self.k1 < math.inf and 0 <= self.b <= 1 and 0 <= self.delta < math.inf):
            raise InvalidInput(
                f"BM25 needs finite k1 >= 0, 0 <= b <= 1 and delta >= 0; given {self.k1}, {self.b}, {self.delta}"
            )

    @property
    def prior(self) -> float:
        return 0.0

    def constants(self, statistics: Statistics) -> tuple[float, float]:
        average = statistics.terms / statistics.documents if statistics.documents else 0.0
        k1 = self.k1 + self.delta if self.variant == "bm25l" else self.k1
        return k1 * (1 - self.b), k1 * self.b / average if average else 0.0

    def term(self, statistics: Statistics, documents: int, occurrences: float) -> tuple[float, float]:
        n, df = statistics.documents, documents
        if self.variant == "lucene":
            return math.log(1 + (n - df + 0.5) / (df + 0.5)), 0.0
        if self.variant == "robertson":
            return max(math.log((n - df + 0.5) / (df + 0.5)), 0.0), 0.0
        if self.variant == "atire":
            return math.log(n / df) * (self.k1 + 1), 0.0
        if self.variant == "bm25+":
            idf = math.log((n + 1) / df)
            return idf * (self.k1 + 1), idf * self.delta
        # BM25L scores (k1 + 1)(c + delta) / (k1 + c + delta) with c = f / (1 - b + b l / average); less its value at f = 0
        # that is the saturating form below.
        idf, bound = math.log((n + 1) / (df + 0.5)), self.k1 + self.delta
        if bound == 0:
            return idf, 0.0
        return idf * (self.k1 + 1) * self.k1 / bound, idf * (self.k1 + 1) * self.delta / bound


@dataclass(frozen=True)
class Dirichlet:
    """Query likelihood with Dirichlet smoothing: log((f + mu p) / (l + mu)) summed over query terms, less log p.

    Args:
        mu: The weight of the collection's model, in terms, > 0.

    Raises:
        InvalidInput: If `mu` is not positive and finite.

    Example:
        >>> Dirichlet(mu=1000).term(Statistics(10, 5000.0), 2, 5.0)
        (1.0, 0.0)

    Source: Zhai and Lafferty, "A study of smoothing methods for language models applied to information retrieval" (TOIS
    22(2), 2004), equation 6. The dropped log p is the same for every document. Query words
    that no document has are left out.
    """

    form: ClassVar[int] = LOGARITHMIC
    mu: float = 1000.0

    def __post_init__(self) -> None:
        if not 0 < self.mu < math.inf:
            raise InvalidInput(f"Dirichlet smoothing needs a finite mu > 0; given {self.mu}")

    @property
    def prior(self) -> float:
        return self.mu

    def constants(self, statistics: Statistics) -> tuple[float, float]:
        return 0.0, 0.0

    def term(self, statistics: Statistics, documents: int, occurrences: float) -> tuple[float, float]:
        return statistics.terms / (self.mu * occurrences), 0.0


@dataclass(frozen=True)
class JelinekMercer:
    """Query likelihood with Jelinek-Mercer smoothing: log((1 - w) f / l + w p) summed over query terms, less log(w p).

    Args:
        weight: The weight `w` of the collection's model, between 0 and 1.

    Raises:
        InvalidInput: If `weight` is not between 0 and 1.

    Example:
        >>> JelinekMercer(weight=0.5).term(Statistics(10, 500.0), 2, 5.0)
        (100.0, 0.0)

    Source: Zhai and Lafferty (2004), equation 5, where `w` is lambda. The dropped log(w p) is the same for every document.
    """

    form: ClassVar[int] = LOGARITHMIC
    weight: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.weight < 1:
            raise InvalidInput(f"Jelinek-Mercer smoothing needs 0 < weight < 1; given {self.weight}")

    @property
    def prior(self) -> float:
        return 0.0

    def constants(self, statistics: Statistics) -> tuple[float, float]:
        return 1.0, 0.0

    def term(self, statistics: Statistics, documents: int, occurrences: float) -> tuple[float, float]:
        return (1 - self.weight) / self.weight * statistics.terms / occurrences, 0.0


@dataclass(frozen=True)
class Impact:
    """The dot product of query and document weights, for encoders that learn both.

    Example:
        >>> Impact().term(Statistics(10, 500.0), 2, 5.0)
        (1.0, 0.0)
    """

    form: ClassVar[int] = LINEAR

    @property
    def prior(self) -> float:
        return 0.0

    def constants(self, statistics: Statistics) -> tuple[float, float]:
        return 0.0, 0.0

    def term(self, statistics: Statistics, documents: int, occurrences: float) -> tuple[float, float]:
        return 1.0, 0.0
