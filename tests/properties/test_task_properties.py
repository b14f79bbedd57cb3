"""Tasks made from any documents, against what their definitions say."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ragistry import Document
from ragistry.errors import InvalidInput
from ragistry.evaluation.limit import PATTERNS, limit
from ragistry.evaluation.tasks import Task, first_sentence, keyword, make, part_of_passage, title
from ragistry.text import Analyzer

WORDS = ("red", "Red", "fox", "foxes", "the", "a", "-", "über", "東京都", "C++", "x.y", "Fox.", "é", "end.", "The")
SPECS = ("keyword:terms=2", "part-of-passage:words=3", "title", "first-sentence")

texts = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from((" ", "\n", "\t ", "  ", "\n\n"))), max_size=12).map(
    lambda words: "".join(word + space for word, space in words)
)
documents = st.lists(
    st.tuples(texts, st.sampled_from(("", " ", "Fox", "fox ", "The red"))), min_size=2, max_size=9
).map(lambda found: [Document(f"d{row}", text, title) for row, (text, title) in enumerate(found)])


def made(spec: str, corpus: list[Document], **settings: int) -> Task:
    try:
        return make(spec, corpus, **settings)
    except InvalidInput:
        assume(False)
        raise


@given(documents, st.integers(1, 4), st.integers(0, 3))
def test_keywords_are_words_of_their_document(corpus: list[Document], terms: int, seed: int) -> None:
    task = made(f"keyword:terms={terms}", corpus, seed=seed)
    found = {document.id: document.full_text for document in corpus}
    analyzer = Analyzer(stemmer=None, identifiers=False)
    held = {id: set(analyzer.terms(text)) for id, text in found.items()}
    once = 0
    for id, query in task.queries.items():
        words = query.split(" ")
        assert len(words) == terms
        assert all(word in found[id] for word in words)
        assert task.qrels[id] == {id: 1}
        keys = {max(analyzer.terms(word), key=len) for word in words}
        once += sum(keys <= terms for terms in held.values()) == 1
    assert task.uniqueness == once / len(task.queries)
    assert set(task.queries) == {id for id, words in held.items() if len(words) >= terms}


def plain(text: str) -> str:
    return " ".join(text.casefold().split())


@given(documents, st.integers(1, 6), st.integers(0, 3))
def test_parts_are_spans_of_their_document(corpus: list[Document], words: int, seed: int) -> None:
    task = made(f"part-of-passage:words={words}", corpus, seed=seed)
    found = {document.id: document for document in corpus}
    once = 0
    for id, query in task.queries.items():
        assert query in found[id].text
        whole, part = found[id].text.split(), query.split()
        assert len(part) == words
        assert any(whole[at : at + words] == part for at in range(len(whole)))
        once += sum(plain(query) in plain(document.full_text) for document in corpus) == 1
    assert task.uniqueness == once / len(task.queries)
    assert set(task.queries) == {document.id for document in corpus if len(document.text.split()) >= words}


@given(documents)
def test_titles_are_searched_for_without_them(corpus: list[Document]) -> None:
    task = made("title", corpus)
    found = {document.id: document for document in corpus}
    assert not any(document.title for document in task.documents)
    asked = sorted(id for relevant in task.qrels.values() for id in relevant)
    left = {document.id for document in task.documents if document.text.strip()}
    assert asked == sorted(document.id for document in corpus if document.title.strip() and document.id in left)
    for query, relevant in task.qrels.items():
        assert {found[id].title.strip().casefold() for id in relevant} == {task.queries[query].casefold()}


@given(documents)
def test_first_sentences_are_not_in_what_they_ask_for(corpus: list[Document]) -> None:
    task = made("first-sentence", corpus)
    left = {document.id: " ".join(document.full_text.split()).casefold() for document in task.documents}
    whole = {document.id: " ".join(document.text.split()) for document in corpus}
    for id, query in task.queries.items():
        assert id in task.qrels[id]
        assert whole[id].startswith(query)
        assert not any(query.casefold() in text for text in left.values())
        assert all(whole[other].casefold().startswith(query.casefold()) for other in task.qrels[id])


@given(documents, st.sampled_from(SPECS), st.integers(0, 3), st.integers(1, 9), st.randoms(use_true_random=False))
def test_order_does_not_matter(
    corpus: list[Document], spec: str, seed: int, queries: int, shuffler: random.Random
) -> None:
    task = made(spec, corpus, seed=seed, queries=queries)
    again = make(spec, shuffler.sample(corpus, len(corpus)), seed=seed, queries=queries)
    assert (task.queries, task.qrels, task.uniqueness) == (again.queries, again.qrels, again.uniqueness)
    assert list(task.queries) == list(again.queries)
    assert task.notes[:2] == again.notes[:2]
    every = make(spec, corpus, seed=seed, queries=99)
    assert len(task.queries) == min(queries, len(every.queries))
    assert task.queries.items() <= every.queries.items()
    assert set(task.queries) == set(task.qrels)


@pytest.mark.parametrize("maker", [keyword, part_of_passage, title, first_sentence])
def test_all_tasks_measure_the_same(maker: object) -> None:
    assert Task("x", [], {}, {}).measures == ("nDCG@10", "R@100")


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(PATTERNS)),
    st.integers(2, 60),
    st.integers(1, 4),
    st.integers(0, 30),
    st.integers(1, 12),
    st.integers(0, 5),
)
def test_limit_keeps_its_promises(
    pattern: str, queries: int, relevant: int, more: int, attributes: int, seed: int
) -> None:
    needed = PATTERNS[pattern](queries, relevant, random.Random(seed))[0]
    try:
        task = limit(
            pattern, queries=queries, relevant=relevant, documents=needed + more, attributes=attributes, seed=seed
        )
    except InvalidInput:
        assert needed + more < 2
        return
    likes = {
        document.id: document.text.rstrip(".").partition(" likes ")[2].replace(" and ", ", ").split(", ")
        for document in task.documents
    }
    asked = {id: text.removeprefix("Who likes ").removesuffix("?") for id, text in task.queries.items()}
    assert len(set(asked.values())) == len(task.queries) == len(task.qrels) == queries
    assert len(likes) == len(task.documents) == needed + more
    assert len({frozenset(found) for found in task.qrels.values()}) == queries
    for query, found in task.qrels.items():
        assert len(found) == relevant
        assert {id for id, liked in likes.items() if asked[query] in liked} == set(found)
    sizes = {len(liked) for liked in likes.values()}
    assert len(sizes) == 1
    assert min(sizes) >= attributes
    assert all(len(set(liked)) == len(liked) for liked in likes.values())
