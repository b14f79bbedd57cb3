"""Tasks made from any documents, no labels needed.

They are the same for the same documents in any order and the same seed. If more queries are possible than asked for, a
hash of the seed and the document's id chooses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from heapq import nsmallest

import numpy as np

from ..errors import InvalidInput
from ..text import Analyzer, term_key
from ..types import Document, Ints
from . import sentences
from .occurrences import Occurrences
from .task import Task, agree, check_counts, corpus_of


def keyword(documents: Sequence[Document], *, terms: int = 5, queries: int = 1000, seed: int = 0) -> Task:
    """Find a document by the terms that set it apart: does a retriever see rare words?

    A query is the terms of highest tf-idf (their count in the document times log(documents / documents with the term)) in
    falling order, stop words left out, each as the document first writes it.

    Args:
        documents: What is searched. Those with fewer than `terms` distinct terms are not asked for.
        terms: Words of a query.
        queries: At most so many.
        seed: Chooses the documents asked for.

    Raises:
        InvalidInput: If there are fewer than two documents or two have one id, or none has as many terms.

    Example:
        >>> documents = [Document("1", "the old lighthouse of Alexandria"), Document("2", "the old bridge of Florence")]
        >>> keyword(documents, terms=2).queries
        {'1': 'Alexandria lighthouse', '2': 'bridge Florence'}

    Source: the task "keyword" of LexSemBridge (arXiv 2508.17858). How its terms were chosen is not published; tf-idf,
    their number and their order are ours.
    """
    documents = corpus_of(documents)
    check_counts(terms=terms, queries=queries)
    found = Occurrences([document.full_text for document in documents], Analyzer(stemmer=None, identifiers=False))
    rows = {documents[row].id: row for row in np.flatnonzero(found.distinct >= terms).tolist()}
    if not rows:
        raise InvalidInput(
            f"no document of {len(documents):,} has {terms} distinct terms, the most any has is {found.distinct.max()}; "
            "ask for fewer terms"
        )
    best = {id: _best_terms(documents[rows[id]].full_text, terms, found) for id in _chosen(rows, queries, seed)}
    unique = sum(len(found.holding(keys)) == 1 for _, keys in best.values())
    skipped = {f"fewer than {terms} distinct terms": len(documents) - len(rows)}
    about = f"Each query is the {terms} terms of highest tf-idf of a document, the only one that counts as relevant."
    return Task(
        "keyword" if terms == 5 else f"keyword-{terms}",
        documents,
        {id: query for id, (query, _) in best.items()},
        {id: {id: 1} for id in best},
        notes=_notes(
            about,
            len(documents),
            skipped,
            len(rows),
            len(best),
            unique,
            "have all their words in one document only",
            True,
        ),
        uniqueness=unique / len(best),
    )


def part_of_passage(documents: Sequence[Document], *, words: int = 32, queries: int = 1000, seed: int = 0) -> Task:
    """Find a document by a part of its text, word for word: does a retriever see more than the gist?

    Args:
        documents: What is searched. Those whose text is shorter than `words` are not asked for.
        words: Words of a query, told apart by white space. Where the part begins is drawn by a hash of `seed` and the id.
        queries: At most so many.
        seed: Chooses the documents asked for, and the parts.

    Raises:
        InvalidInput: If there are fewer than two documents or two have one id, or none has as many words.

    Example:
        >>> documents = [Document("1", "old lighthouses warn ships"), Document("2", "a bridge")]
        >>> part_of_passage(documents, words=3).queries
        {'1': 'old lighthouses warn'}

    Source: the task "part of passage" of LexSemBridge (arXiv 2508.17858). Whether its lengths count words and where its
    parts begin is not published; that is ours.
    """
    documents = corpus_of(documents)
    check_counts(words=words, queries=queries)
    lengths = [len(document.text.split()) for document in documents]
    rows = {document.id: row for row, document in enumerate(documents) if lengths[row] >= words}
    if not rows:
        raise InvalidInput(
            f"no document of {len(documents):,} has {words} words, the longest has {max(lengths)}; ask for fewer words"
        )
    parts = {}
    for id in _chosen(rows, queries, seed):
        text = documents[rows[id]].text
        found = list(re.finditer(r"\S+", text))
        start = _hash(f"start {seed}", id) % (len(found) - words + 1)
        parts[id] = text[found[start].start() : found[start + words - 1].end()]
    unique = _times_one(list(parts.values()), [document.full_text for document in documents])
    skipped = {f"fewer than {words} words": len(documents) - len(rows)}
    about = f"Each query is {words} words of a document in a row, the only one that counts as relevant."
    return Task(
        f"part-of-passage-{words}",
        documents,
        parts,
        {id: {id: 1} for id in parts},
        notes=_notes(about, len(documents), skipped, len(rows), len(parts), unique, "occur in one document only", True),
        uniqueness=unique / len(parts),
    )


def title(documents: Sequence[Document], *, queries: int = 1000, seed: int = 0) -> Task:
    """Find a text by its title: does a retriever know what a text is about?

    The documents searched have no titles, nor first lines that repeat them or, as headings of Markdown do, their parts. All
    that share a title, but for case and white space, are relevant to it.

    Args:
        documents: Those without a title or a text are searched but not asked for.
        queries: At most so many.
        seed: Chooses the titles asked for.

    Raises:
        InvalidInput: If there are fewer than two documents or two have one id, or none has a title and a text.

    Example:
        >>> documents = [Document("1", "It has fourteen lines.", title="Sonnet"), Document("2", "Seventeen syllables.")]
        >>> task = title(documents)
        >>> task.queries, task.documents[0].title
        ({'1': 'Sonnet'}, '')
    """
    documents = corpus_of(documents)
    check_counts(queries=queries)
    bare = [replace(document, title="", text=_without_heading(document)) for document in documents]
    groups: dict[str, list[int]] = {}
    for row, document in enumerate(documents):
        if document.title.strip() and bare[row].text.strip():
            groups.setdefault(_plain(document.title), []).append(row)
    untitled = sum(not document.title.strip() for document in documents)
    skipped = {"no title": untitled}
    skipped["a title but no text"] = len(documents) - untitled - sum(map(len, groups.values()))
    if not groups:
        raise InvalidInput(
            f"no document of {len(documents):,} has a title and a text ({untitled:,} have no title); give documents with "
            "titles, or use another task"
        )
    asked = {min(documents[row].id for row in rows): rows for rows in groups.values()}
    texts = {document.id: document.title.strip() for document in documents if document.id in asked}
    about = "Each query is a title; the documents searched have none, nor headings that repeat it."
    return _shared("title", about, bare, texts, asked, skipped, queries, seed, len(asked))


def first_sentence(documents: Sequence[Document], *, queries: int = 1000, seed: int = 0) -> Task:
    """Find the rest of a text by its first sentence: does a retriever know what belongs together?

    The sentence is taken out of every document that can be asked for. All that begin with it, but for case and white
    space, are relevant to it. A sentence ends at a stop before a capital, or at a blank line.

    Args:
        documents: Searched but not asked for are those whose first sentence has fewer than three words with a letter, is
            all that they have, comes again in the rest or the title, or stands in another document that is searched.
        queries: At most so many.
        seed: Chooses the sentences asked for.

    Raises:
        InvalidInput: If there are fewer than two documents or two have one id, or none can be asked for.

    Example:
        >>> documents = [Document("1", "A sonnet is a poem. It has fourteen lines."), Document("2", "Haiku.")]
        >>> task = first_sentence(documents)
        >>> task.queries, task.documents[0].text
        ({'1': 'A sonnet is a poem.'}, 'It has fourteen lines.')
    """
    documents = corpus_of(documents)
    check_counts(queries=queries)
    searched, groups, texts = list(documents), dict[str, list[int]](), dict[str, str]()
    short, alone, again, elsewhere = (
        "a first sentence of fewer than 3 words",
        "nothing but a first sentence",
        "a first sentence that comes again",
        "a first sentence that stands in another one",
    )
    skipped = {short: 0, alone: 0, again: 0, elsewhere: 0}
    for row, document in enumerate(documents):
        sentence, rest = sentences.first_sentence(document.text)
        plain = _plain(sentence)
        if not sentences.has_words(sentence):
            skipped[short] += 1
            continue
        groups.setdefault(plain, []).append(row)
        if not rest:
            skipped[alone] += 1
        elif plain in _plain(document.title) or plain in _plain(rest):
            skipped[again] += 1
        else:
            searched[row] = replace(document, text=rest)
            texts[document.id] = sentence
    groups = {
        min(ids): rows
        for rows in groups.values()
        if (ids := [documents[row].id for row in rows if documents[row].id in texts])
    }
    left = [document.full_text for document in searched]
    found = Occurrences(left, Analyzer(stemmer=None, stop_words=None, identifiers=False))
    asked: dict[str, list[int]] = {}
    for id in _chosen(groups, len(groups), seed):
        if len(asked) == queries:
            break
        if _holding(texts[id], left, found):
            skipped[elsewhere] += len(groups[id])
        else:
            asked[id] = groups[id]
    if not asked:
        why = "; ".join(f"{count:,} {agree(count, 'has')} {reason}" for reason, count in skipped.items() if count)
        raise InvalidInput(
            f"no document of {len(documents):,} can be asked for by its first sentence: {why}; use another task"
        )
    about = "Each query is a first sentence, which none of the documents searched holds."
    possible = len(groups) if len(asked) == queries else len(asked)
    return _shared("first-sentence", about, searched, texts, asked, skipped, queries, seed, possible)


def _shared(
    name: str,
    about: str,
    documents: Sequence[Document],
    texts: Mapping[str, str],
    asked: Mapping[str, Sequence[int]],
    skipped: Mapping[str, int],
    queries: int,
    seed: int,
    possible: int,
) -> Task:
    """A task whose queries, by the id of a document, are those of all the documents (rows) that share a text."""
    chosen = _chosen(asked, queries, seed)
    unique = sum(len(asked[id]) == 1 for id in chosen)
    notes = _notes(about, len(documents), skipped, possible, len(chosen), unique, "belong to one document only", False)
    qrels = {id: {documents[row].id: 1 for row in asked[id]} for id in chosen}
    return Task(name, documents, {id: texts[id] for id in chosen}, qrels, notes=notes, uniqueness=unique / len(chosen))


def _hash(seed: str, id: str) -> int:
    return int.from_bytes(blake2b(f"{seed}\0{id}".encode(), digest_size=8).digest())


def _chosen(ids: Iterable[str], queries: int, seed: int) -> list[str]:
    """At most so many ids; which ones does not depend on the order they come in."""
    return nsmallest(queries, ids, key=lambda id: (_hash(str(seed), id), id))


def _best_terms(text: str, count: int, found: Occurrences) -> tuple[str, Ints]:
    """The terms of highest tf-idf, as the text first writes them and as numbers."""
    tokens = found.analyzer.tokens(text)
    written = {token.term: text[token.start : token.end] for token in reversed(tokens)}
    times = Counter(token.term for token in tokens)
    keys = np.fromiter(map(term_key, times), np.int64, len(times))
    idf = np.log(len(found.distinct) / found.frequencies(keys))
    weights = dict(zip(times, (idf * list(times.values())).tolist(), strict=True))
    best = sorted(times, key=lambda term: (-weights[term], term))[:count]
    return " ".join(written[term] for term in best), np.fromiter(map(term_key, best), np.int64, count)


def _times_one(parts: Sequence[str], texts: Sequence[str]) -> int:
    """How many parts occur in one text only."""
    found = Occurrences(texts, Analyzer(stemmer=None, stop_words=None, identifiers=False))
    return sum(_holding(part, texts, found) == 1 for part in parts)


def _holding(part: str, texts: Sequence[str], found: Occurrences) -> int:
    """How many texts hold a part, but for case and white space."""
    # The first and last word may be parts of longer ones there; those between cannot.
    keys = found.keys(" ".join(part.split()[1:-1]))
    rows = found.holding(keys).tolist() if len(keys) else range(len(texts))
    plain = _plain(part)
    return sum(plain in _plain(texts[row]) for row in rows)


def _without_heading(document: Document) -> str:
    """The text without first lines that repeat the title, or a part of the trail of headings that it is."""
    names = {_plain(name) for name in (document.title, *document.title.split(" > "))} - {""}
    text = document.text
    while True:
        first, _, rest = text.lstrip().partition("\n")
        if _plain(first.strip("#=- \t")) not in names and not (
            rest and text != document.text and not first.strip("=-")
        ):
            return text
        text = rest


def _notes(
    about: str,
    total: int,
    skipped: Mapping[str, int],
    possible: int,
    asked: int,
    unique: int,
    what: str,
    capped: bool,
) -> tuple[str, ...]:
    notes = [about]
    for reason, count in skipped.items():
        if count:
            notes.append(
                f"{count:,} of {total:,} documents {agree(count, 'has')} {reason} and {agree(count, 'was')} not asked for."
            )
    if asked < possible:
        notes.append(f"{asked:,} of {possible:,} possible queries were asked, chosen by a hash.")
    if unique == asked:
        notes.append(f"All queries {what}.")
    else:
        share = f"{unique:,} of {asked:,} queries ({1000 * unique // asked / 10:g} %) {what}"
        rest = "the others fit several documents, of which one counts" if capped else "the others have several answers"
        notes.append(f"{share}; {rest}.")
    return tuple(notes)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
