"""A comparison as one HTML page: table, plots, and the queries on which retrievers differ, with both result lists.

The page needs nothing but itself: it asks no server for anything, and its content security policy forbids it to. Sources
of the page lie in `page/`; the data stand in it as JSON.
"""

from __future__ import annotations

import json
import random
import re
from base64 import b64encode
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from html import escape
from importlib.resources import files
from itertools import combinations
from math import isfinite
from typing import Any, TypeAlias

import numpy as np

from ..errors import InvalidInput
from ..passages import Passage, analyzer_of, find, printable
from ..text import Analyzer
from ..types import Document, Ints, Ranking
from .leaderboard import Entry, Leaderboard

Documents: TypeAlias = Callable[[Collection[str]], Mapping[str, Document]]
"""Gives the documents that it has of those asked for, by id."""

HITS = 10
"""How many hits of each ranking the page shows."""

QUERIES = 2_000
"""How many queries of a task the page shows one by one, at most."""

LISTS, PAGE = 2_200_000, 4_600_000
"""Bytes that rankings may take, and rankings with passages, all tasks together."""

_RELEVANT = 20  # relevant documents of a query that are named, besides those among the hits
_QUERY, _NAME, _TITLE = 600, 100, 200  # characters shown of queries, names, and of ids and titles
_PASSAGE = 240  # characters; shorter than in a terminal, so that more queries have some
_STEPS = 10_000  # values of measures are kept as whole numbers of these


def report(
    leaderboards: Sequence[Leaderboard],
    documents: Documents | Sequence[Documents],
    *,
    title: str = "Comparison of retrievers",
    analyzers: Mapping[str, Analyzer] | None = None,
) -> str:
    """One HTML page that shows leaderboards, for a browser that need not be online.

    The table counts every query. Queries are shown one by one as far as the page stays small: the most different ones and
    others drawn at random, alternately. It says how many.

    Args:
        leaderboards: One for each task; with several, the page lets its reader choose.
        documents: Gives the documents that it has of those asked for, by id. Of others the page shows the id. One for
            each leaderboard, where the same ids have different texts.
        title: Of the page.
        analyzers: By retriever name, for marking the words that match. A retriever without one gets that of its settings.

    Raises:
        InvalidInput: If there is no leaderboard, or another number of `documents`.

    Example:
        >>> from ragistry import Document, Ranking
        >>> from ragistry.evaluation import evaluate
        >>> from ragistry.evaluation.leaderboard import leaderboard
        >>> queries, qrels, docs = {"q": "sonnet lines"}, {"q": {"d": 1}}, {"d": Document("d", "A sonnet has 14 lines.")}
        >>> found = evaluate(lambda texts, k: [Ranking.of(["d"], [1.0])], queries, qrels, ["P@1"], name="good")
        >>> page = report([leaderboard("poems", [found], queries, qrels)], lambda ids: {id: docs[id] for id in ids})
        >>> page[:15], "good is best, with P@1 1.000." in page
        ('<!doctype html>', True)
    """
    if not leaderboards:
        raise InvalidInput("no leaderboard was given; a report needs at least one")
    finds = [documents] * len(leaderboards) if callable(documents) else list(documents)
    if len(finds) != len(leaderboards):
        raise InvalidInput(
            f"{len(leaderboards)} leaderboards were given with {len(finds)} `documents`; give one for each"
        )
    table = _Table()
    boards = [_Board(*each, table, analyzers or {}) for each in zip(leaderboards, finds, strict=True)]
    # Those with the fewest queries come first, and what they leave is for the others.
    small_first = [boards[i] for i in sorted(range(len(boards)), key=lambda i: len(boards[i].ids))]
    room = LISTS
    for left, board in zip(range(len(boards), 0, -1), small_first, strict=True):
        room -= board.add_queries(room // left)
    room += PAGE - LISTS
    for left, board in zip(range(len(boards), 0, -1), small_first, strict=True):
        room -= board.add_passages(room // left)
    source = files("ragistry.evaluation") / "page"
    style, script = ((source / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    parts = {
        "policy": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        "title": escape(printable(title)),
        "style": style,
        "plain": "".join(map(_plain, leaderboards)),
        "data": _script(
            {"hits": HITS, "steps": _STEPS, "documents": table.rows, "boards": [board.to_json() for board in boards]}
        ),
        "script": script,
    }
    # In one pass, so that braces within the data stay as they are.
    return re.sub(r"\{\{(\w+)\}\}", lambda slot: parts[slot[1]], (source / "page.html").read_text(encoding="utf-8"))


class _Table:
    """Ids and titles by number: each document stands in the page once, however many rankings hold it."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.numbers: dict[tuple[str, str], int] = {}

    def number(self, id: str, title: str) -> int:
        if (id, title) not in self.numbers:
            self.numbers[id, title] = len(self.rows)
            shown = [_cut(id, _TITLE), _cut(title, _TITLE)]
            self.rows.append(shown if shown[1] and title != id else shown[:1])
        return self.numbers[id, title]

    def forget(self, kept: int) -> None:
        """Drop all but the first ones."""
        del self.rows[kept:]
        self.numbers = dict(list(self.numbers.items())[:kept])


class _Board:
    """What the page holds of one task."""

    def __init__(
        self, board: Leaderboard, documents: Documents, table: _Table, analyzers: Mapping[str, Analyzer]
    ) -> None:
        self.board, self.documents, self.table = board, documents, table
        self.ids = list(board.entries[0].evaluation.run)
        # Whole numbers [retrievers, measures, queries].
        self.values = np.rint(np.array([_values(e, board.measures, self.ids) for e in board.entries]) * _STEPS).astype(
            int
        )
        self.analyzers = _shared([analyzers.get(e.name) or analyzer_of(e.settings) for e in board.entries])
        self.shown: list[int] = []
        self.queries: list[dict[str, Any]] = []
        self.with_passages = 0

    def to_json(self) -> dict[str, Any]:
        board = self.board
        return {
            "task": _cut(board.task, _NAME),
            "documents": board.documents,
            "total": len(self.ids),
            "passages": self.with_passages,
            "uniqueness": board.uniqueness,
            "notes": [printable(note) for note in board.notes],
            "verdict": printable(board.verdict()),
            "measures": list(board.measures),
            "retrievers": [_retriever(entry, board.measures) for entry in board.entries],
            "pairs": self._pairs(),
            "queries": self.queries,
        }

    def add_queries(self, room: int) -> int:
        """Take queries while there is room, the first one in any case; how many bytes they need."""
        used = 0
        for at in _chosen(np.ptp(self.values[:, 0], axis=0)):
            before = len(self.table.rows)
            ids = self._named(self.ids[at])
            query = self._query(at, ids, self.documents(ids))
            size = _size(query) + _size(self.table.rows[before:])
            if self.queries and used + size > room:
                self.table.forget(before)
                break
            used += size
            self.shown.append(at)
            self.queries.append(query)
        return used

    def add_passages(self, room: int) -> int:
        """Add passages to queries, the first ones first, while there is room; how many bytes they need."""
        used = 0
        for at, query in zip(self.shown, self.queries, strict=True):
            ids = self._named(self.ids[at])
            found = self._passages(self.ids[at], ids, self.documents(ids))
            size = _size(found)
            if used + size > room:
                break
            used += size
            query["passages"] = found
            self.with_passages += 1
        return used

    def _named(self, query: str) -> dict[str, int]:
        """The first retriever that shows each document of a query, hits first, then relevant ones that none shows."""
        first: dict[str, int] = {}
        for number, entry in enumerate(self.board.entries):
            for id in _run(entry, query).ids[:HITS]:
                first.setdefault(id, number)
        others = [id for id in _relevant(self.board, query) if id not in first]
        return first | dict.fromkeys(others[:_RELEVANT], 0)

    def _number(self, id: str, known: Mapping[str, Document]) -> int:
        return self.table.number(id, known[id].title if id in known else "")

    def _query(self, at: int, ids: Mapping[str, int], known: Mapping[str, Document]) -> dict[str, Any]:
        query, numbers = self.ids[at], {id: self._number(id, known) for id in ids}
        relevant = _relevant(self.board, query)
        row: dict[str, Any] = {
            "id": _cut(query, _TITLE),
            "text": _cut(self.board.queries.get(query, query), _QUERY),
            "values": self.values[:, :, at].tolist(),
            "hits": [],
            "scores": [],
            "depth": [],
            "further": [],  # documents and ranks of relevant ones below the hits shown
            "relevant": [[numbers[id], level] for id, level in relevant.items() if id in numbers],
            "unnamed": sum(id not in numbers for id in relevant),
        }
        for entry in self.board.entries:
            run = _run(entry, query)
            row["hits"].append([numbers[id] for id in run.ids[:HITS]])
            row["scores"].append([float(f"{score:.4g}") for score in run.scores[:HITS].tolist()])
            row["depth"].append(len(run))
            below = ((id, rank) for rank, id in enumerate(run.ids, 1) if rank > HITS and id in relevant)
            row["further"].append([[numbers[id], rank] for id, rank in below if id in numbers])
        return row

    def _passages(self, query: str, ids: Mapping[str, int], known: Mapping[str, Document]) -> dict[str, Any]:
        """By document number: its passage, and its title if words of that match; of their parts every second is marked."""
        text = self.board.queries.get(query, query)
        terms = {id(analyzer): frozenset(analyzer.terms(text)) for analyzer in self.analyzers}
        found = {}
        for name, number in ids.items():
            if name in known:
                analyzer = self.analyzers[number]
                wanted = terms[id(analyzer)]
                shown = [_segments(find(known[name].text, wanted, analyzer, _PASSAGE))]
                title = _segments(find(known[name].title, wanted, analyzer, _TITLE))
                found[str(self._number(name, known))] = shown + ([title] if len(title) > 1 else [])
        return found

    def _pairs(self) -> list[list[list[int]]]:
        """For every two retrievers, by measure: on how many of all queries the first is ahead, level, and behind."""
        signs = (np.sign(self.values[a] - self.values[b]) for a, b in combinations(range(len(self.values)), 2))
        return [[[int((row == sign).sum()) for sign in (1, 0, -1)] for row in found] for found in signs]


def _chosen(spread: Ints) -> Iterator[int]:
    """Queries to show, the most different first; of too many, every second one is drawn at random."""
    different = np.argsort(-spread, kind="stable").tolist()
    if len(different) <= QUERIES:
        return iter(different)
    drawn = random.Random(0).sample(range(len(different)), QUERIES)
    mixed = [at for pair in zip(different, drawn, strict=False) for at in pair]
    return iter(list(dict.fromkeys(mixed))[:QUERIES])


def _retriever(entry: Entry, measures: Sequence[str]) -> dict[str, Any]:
    against = entry.against_best
    cost = {
        name: value if value is not None and isfinite(value) else None for name, value in asdict(entry.cost).items()
    }
    intervals = [entry.intervals.get(measure) for measure in measures]
    return {
        "name": _cut(entry.name, _NAME),
        "means": [round(entry.evaluation.means[measure], 6) for measure in measures],
        "intervals": [found and [round(bound, 6) for bound in found] for found in intervals],
        "against": against and {"difference": against.difference, "p": against.corrected, "behind": entry.behind},
        "cost": cost,
        "settings": {
            printable(str(name)): printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
            for name, value in entry.settings.items()
        },
    }


def _values(entry: Entry, measures: Sequence[str], ids: Sequence[str]) -> list[list[float]]:
    return [[entry.evaluation.per_query[measure][id] for id in ids] for measure in measures]


def _run(entry: Entry, query: str) -> Ranking:
    return entry.evaluation.run.get(query) or Ranking((), np.empty(0, np.float32))


def _relevant(board: Leaderboard, query: str) -> dict[str, int]:
    """Relevant documents and how relevant they are, the most relevant first."""
    found = {id: level for id, level in board.qrels.get(query, {}).items() if level > 0}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _shared(analyzers: Sequence[Analyzer]) -> list[Analyzer]:
    """The same object for all that work alike, so that each query is analysed once."""
    alike: dict[object, Analyzer] = {}
    return [alike.setdefault((a.stemmer, a.stop_words, a.identifiers), a) for a in analyzers]


def _segments(found: Passage) -> list[str]:
    """A passage as texts of which every second one is marked. Where marks overlap, as in identifiers, they are one."""
    parts, end = ["… " if found.before else ""], 0
    for start, stop in sorted(found.marks):
        if start < end or (start == end and len(parts) > 1):
            if stop > end:
                parts[-2] += found.text[end:stop]
        else:
            parts[-1] += found.text[end:start]
            parts += [found.text[start:stop], ""]
        end = max(end, stop)
    parts[-1] += found.text[end:] + (" …" if found.after else "")
    return parts


def _cut(text: str, length: int) -> str:
    shown = printable(text[: 2 * length].encode(errors="replace").decode())
    return shown if len(shown) <= length else shown[: length - 2] + " …"


def _plain(board: Leaderboard) -> str:
    """Verdict and means, for browsers that run no scripts."""
    head = "".join(f"<th>{escape(name)}</th>" for name in ("Retriever", *board.measures))
    rows = "".join(
        f"<tr><th>{escape(printable(entry.name))}</th>"
        + "".join(f"<td>{entry.evaluation.means[measure]:.3f}</td>" for measure in board.measures)
        + "</tr>"
        for entry in board.entries
    )
    said = escape(printable(board.verdict()))
    return f"<h2>{escape(printable(board.task))}</h2><p>{said}</p><table><tr>{head}</tr>{rows}</table>"


def _script(value: Any) -> str:
    """JSON that no text within can end, or turn into markup."""
    compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", compact)


def _size(value: Any) -> int:
    return len(_script(value).encode())


def _hash(source: str) -> str:
    return f"'sha256-{b64encode(sha256(source.encode()).digest()).decode()}'"
