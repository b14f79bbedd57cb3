"""Tasks made from a corpus: what is asked, what is left out and counted, and what is refused."""

import pytest

from ragistry import Document, create
from ragistry.errors import InvalidInput, UnknownName
from ragistry.evaluation import evaluate
from ragistry.evaluation.sentences import first_sentence as split_sentence
from ragistry.evaluation.tasks import (
    NAMES,
    Task,
    first_sentence,
    keyword,
    labelled,
    make,
    part_of_passage,
    title,
)

POEMS = [
    Document("sonnet", "A sonnet has fourteen lines. Petrarch wrote many to Laura.", "Sonnet", {"year": 1327}),
    Document("haiku", "A haiku has seventeen syllables. Basho wrote about a frog.", "Haiku"),
    Document("ode", "An ode praises what it addresses. Keats praised an urn.", "ode"),
    Document("ode 2", "An  ode praises what it addresses. Pindar praised athletes.", " Ode "),
    Document("limerick", "Five lines.", "Limerick"),
    Document("untitled", "An elegy mourns."),
    Document("empty", "", "Empty"),
]


def test_keywords_are_the_rarest_words_as_they_are_written() -> None:
    task = keyword(POEMS, terms=3)
    assert task.name == "keyword-3"
    assert task.queries["haiku"] == "Haiku about Basho"
    assert task.queries["sonnet"] == "Sonnet fourteen Laura"
    assert task.qrels["ode"] == {"ode": 1}
    assert "empty" not in task.queries
    assert task.uniqueness == 1.0
    assert task.documents == POEMS
    assert task.notes == (
        "Each query is the 3 terms of highest tf-idf of a document, the only one that counts as relevant.",
        "2 of 7 documents have fewer than 3 distinct terms and were not asked for.",
        "All queries have all their words in one document only.",
    )


def test_counts_outweigh_a_little_rarity() -> None:
    documents = [Document("1", "frog frog frog newt"), Document("2", "frog toad"), Document("3", "olm axolotl")]
    assert keyword(documents, terms=2).queries["1"] == "frog newt"  # 3 log(3/2) > log 3


def test_twins_are_not_unique() -> None:
    documents = [Document("1", "red fox and hare"), Document("2", "RED Fox, hare"), Document("3", "grey wolf elk")]
    task = keyword(documents, terms=3)
    assert task.uniqueness == pytest.approx(1 / 3)
    assert task.notes[-1] == (
        "1 of 3 queries (33.3 %) have all their words in one document only; the others fit several documents, "
        "of which one counts."
    )
    assert part_of_passage(documents, words=3).uniqueness == 1.0  # word for word they differ


def test_parts_are_word_for_word() -> None:
    documents = [*POEMS, Document("long", "one\ttwo\n three four five six seven eight nine ten eleven twelve")]
    task = part_of_passage(documents, words=10)
    assert task.name == "part-of-passage-10"
    texts = {document.id: document.text for document in documents}
    assert all(query in texts[id] and len(query.split()) == 10 for id, query in task.queries.items())
    assert set(task.queries) == {"sonnet", "haiku", "ode", "long"}
    assert task.notes[1] == "4 of 8 documents have fewer than 10 words and were not asked for."
    starts = {part_of_passage(documents, words=3, seed=seed).queries["long"] for seed in range(100)}
    assert len(starts) == 10


def test_a_part_inside_longer_words_is_not_unique() -> None:
    documents = [Document("1", "cat sat on"), Document("2", "bobcat sat once"), Document("3", "the dog lay")]
    assert part_of_passage(documents, words=3).uniqueness == pytest.approx(2 / 3)
    assert part_of_passage(documents, words=2).uniqueness == pytest.approx(2 / 3)
    assert part_of_passage([Document("1", "- - -"), Document("2", "a - - - b")], words=3).uniqueness in (0.0, 0.5)


def test_titles_are_taken_out_and_shared() -> None:
    task = title(POEMS)
    assert all(document.title == "" for document in task.documents)
    assert [document.text for document in task.documents] == [document.text for document in POEMS]
    assert task.documents[0].metadata == {"year": 1327}
    assert set(task.queries) == {"sonnet", "haiku", "ode", "limerick"}
    assert task.qrels["ode"] == {"ode": 1, "ode 2": 1}
    assert task.uniqueness == 0.75
    assert task.notes == (
        "Each query is a title; the documents searched have none, nor headings that repeat it.",
        "1 of 7 documents has no title and was not asked for.",
        "1 of 7 documents has a title but no text and was not asked for.",
        "3 of 4 queries (75 %) belong to one document only; the others have several answers.",
    )


def test_first_sentences_are_taken_out_and_shared() -> None:
    documents = [
        *POEMS,
        Document("whole", "A haiku has seventeen syllables."),
        Document("refrain", "Ring a ring o' roses. They sang: ring a ring o' roses."),
        Document("refrain 2", "Come buy, come buy. Then: Come  buy, come buy. Again.", "Goblins"),
    ]
    task = first_sentence(documents)
    found = {document.id: document for document in task.documents}
    assert task.queries["sonnet"] == "A sonnet has fourteen lines."
    assert (found["sonnet"].text, found["sonnet"].title) == ("Petrarch wrote many to Laura.", "Sonnet")
    assert found["whole"].text == "A haiku has seventeen syllables."
    assert task.qrels["ode"] == {"ode": 1, "ode 2": 1}
    assert set(task.queries) == {"sonnet", "ode"}
    assert task.uniqueness == pytest.approx(1 / 2)
    assert task.notes[1:-1] == (
        "2 of 10 documents have a first sentence of fewer than 3 words and were not asked for.",
        "2 of 10 documents have nothing but a first sentence and were not asked for.",
        "2 of 10 documents have a first sentence that comes again and were not asked for.",
        "2 of 10 documents have a first sentence that stands in another one and were not asked for.",
    )


@pytest.mark.parametrize(
    ("title_", "text", "left"),
    [
        ("Sonnet", "# Sonnet\n\nIt has lines.", "\nIt has lines."),
        ("Sonnet", "Sonnet\n======\nIt has lines.", "It has lines."),
        ("Poems > Sonnet", "## sonnet\nIt has lines.", "It has lines."),
        ("Sonnet", "A sonnet has lines.\nSonnet", "A sonnet has lines.\nSonnet"),
        ("Sonnet", "---\nIt has lines.", "---\nIt has lines."),
        ("Sonnet", "It has lines.", "It has lines."),
    ],
)
def test_headings_that_repeat_a_title_are_taken_out(title_: str, text: str, left: str) -> None:
    task = title([Document("1", text, title_), Document("2", "Something else.", "Else")])
    assert task.documents[0].text == left
    assert task.queries["1"] == title_


def test_a_document_that_is_its_title_is_not_asked_for() -> None:
    task = title([Document("1", "# Sonnet\n", "Sonnet"), Document("2", "Something.", "Else")])
    assert set(task.queries) == {"2"}
    assert "1 of 2 documents has a title but no text and was not asked for." in task.notes


def test_case_and_line_breaks_make_no_passage_unique() -> None:
    task = make("part-of-passage-3", [Document("1", "old  Lighthouses\nwarn"), Document("2", "Old lighthouses warn")])
    assert task.uniqueness == 0.0


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("See e.g. Keats. He died.", ("See e.g. Keats.", "He died.")),
        ("No stop\n\nthen more", ("No stop", "then more")),
        ("About 3.5 lines. then lower", ("About 3.5 lines. then lower", "")),
        ("  Why?  Because.", ("Why?", "Because.")),
        ("One line\nwrapped! ", ("One line wrapped!", "")),
        ("", ("", "")),
    ],
)
def test_sentences_end_where_they_should(text: str, parts: tuple[str, str]) -> None:
    assert split_sentence(text) == parts


@pytest.mark.parametrize(("task", "given"), [("keyword:terms=2", {"terms": 2}), ("part-of-passage-3", {"words": 3})])
def test_more_queries_than_wanted_are_chosen_by_a_hash(task: str, given: dict[str, int]) -> None:
    documents = [Document(f"d{i}", f"word{i} thing{i} and{i} more{i}") for i in range(50)]
    few = make(task, documents, queries=10)
    assert len(few.queries) == 10
    assert set(few.queries) < set(make(task, documents, queries=11).queries)
    assert set(few.queries) != set(make(task, documents, queries=10, seed=1).queries)
    assert set(few.queries) != {f"d{i}" for i in range(10)}
    assert "10 of 50 possible queries were asked, chosen by a hash." in few.notes


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("keyword:terms=99", "no document of 7 has 99 distinct terms, the most any has is 8; ask for fewer terms"),
        ("part-of-passage", "no document of 7 has 32 words, the longest has 10; ask for fewer words"),
        ("keyword:terms=0", "terms=0; a whole number of 1 or more"),
        ("part-of-passage:words=-1", "words=-1; a whole number of 1 or more"),
        ("title:queries=0", "queries=0; a whole number of 1 or more"),
        ("keyword:terms=many", "has terms=many; a whole number is needed"),
        ("keyword-many", "has terms=many; a whole number is needed"),
        ("keyword:terms", "gives terms no value"),
        ("keyword-3:terms=4", "gives terms twice"),
    ],
)
def test_a_task_that_cannot_be_made_says_why(spec: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make(spec, POEMS)


def test_documents_that_cannot_be_asked_for() -> None:
    bare = [Document("1", "one"), Document("2", "two")]
    with pytest.raises(InvalidInput, match=r"no document of 2 has a title and a text \(2 have no title\); give"):
        title(bare)
    with pytest.raises(InvalidInput, match="2 have a first sentence of fewer than 3 words; use another task"):
        first_sentence(bare)
    with pytest.raises(InvalidInput, match="the most any has is 0"):
        keyword([Document("1", ""), Document("2", "")])
    with pytest.raises(InvalidInput, match="the task 'title' is made from documents, and none were given"):
        make("title", None)


@pytest.mark.parametrize("spec", [name for name in NAMES if name != "limit"])
@pytest.mark.parametrize("documents", [[], POEMS[:1]])
def test_nothing_is_to_be_found_among_fewer_than_two(spec: str, documents: list[Document]) -> None:
    with pytest.raises(InvalidInput, match=f"at least two documents, .* {len(documents)} was given"):
        make(spec, documents)
    with pytest.raises(InvalidInput, match="1 ids belong to several documents, such as 'sonnet'"):
        make(spec, [POEMS[0], POEMS[1], POEMS[0]])


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("keyword", "keyword"),
        ("keyword:terms=5", "keyword"),
        (" keyword : terms = 3 , ", "keyword-3"),
        ("keyword-3", "keyword-3"),
        ("part-of-passage:words=4", "part-of-passage-4"),
        ("title", "title"),
        ("first-sentence:seed=3", "first-sentence"),
        ("limit:queries=9", "limit-dense"),
        ("limit-cycle:queries=9,relevant=3", "limit-cycle:relevant=3"),
        ("limit:pattern=random,queries=9,documents=20,attributes=12", "limit-random:documents=20,attributes=12"),
    ],
)
def test_a_name_makes_the_same_task(spec: str, name: str) -> None:
    task = make(spec, POEMS, queries=9)
    assert task.name == name
    again = make(name, POEMS, queries=9, seed=3 if "seed" in spec else 0)
    assert (again.queries, again.qrels, again.documents) == (task.queries, task.qrels, task.documents)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(
        UnknownName, match="no task is called 'keywords'; there are keyword, part-of-passage, title, fi"
    ):
        make("keywords", POEMS)
    with pytest.raises(UnknownName, match="the task 'keyword' has no field 'words'; it has terms, queries, seed"):
        make("keyword:words=3", POEMS)
    with pytest.raises(UnknownName, match="the task 'title' has no field 'terms'; it has queries, seed"):
        make("title:terms=3", POEMS)
    with pytest.raises(UnknownName, match="no pattern is called 'star'; there are dense, random, cycle, disjoint"):
        make("limit-star")
    with pytest.raises(InvalidInput, match="7 is int; the name of a task is needed"):
        make(7, POEMS)  # type: ignore[arg-type]


def test_nothing_judged_is_dropped_in_silence() -> None:
    queries = {"a": "lines?", "b": "syllables?", "c": "frogs?", "d": "urns?"}
    qrels = {"a": {"sonnet": 1, "villanelle": 1}, "b": {"haiku": 0}, "c": {"sestina": 2, "villanelle": 0}, "d": {}}
    task = labelled("poems", POEMS, queries, qrels, measures=("R@5",))
    assert isinstance(task, Task)
    assert (task.name, task.measures, task.uniqueness) == ("poems", ("R@5",), None)
    assert task.queries == {"a": "lines?", "b": "syllables?", "c": "frogs?"}
    assert task.qrels == {"a": qrels["a"], "b": qrels["b"], "c": qrels["c"]}
    assert task.notes == (
        "1 of 4 queries has no judgements and was left out.",
        "3 of 5 judgements name 2 documents that are not in the corpus, such as 'villanelle'; they count as not found.",
        "1 of 3 queries has no relevant document and can only score 0.",
    )
    assert labelled("whole", POEMS, {"a": "?"}, {"a": {"sonnet": 1}}).notes == ()


@pytest.mark.parametrize(
    ("queries", "qrels", "message"),
    [
        ({"a": "?"}, {"a": {"sonnet": 1}, "z": {"ode": 1}}, "1 judged queries have no text: 'z'"),
        ({"a": "?"}, {}, "none of the 1 queries is judged"),
        ({}, {}, "none of the 0 queries is judged"),
        ({"a": "?"}, {"a": {}}, "none of the 1 queries is judged"),
        ({"a": "?"}, {"a": {"x": 1}}, "none of the 1 judgements is about one of the 7 documents: .* 'x', .* 'sonnet'"),
        ({"a": "?"}, {"a": {"sonnet": 0.5}}, "a whole number"),
    ],
)
def test_judgements_that_cannot_be_used(
    queries: dict[str, str], qrels: dict[str, dict[str, int]], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        labelled("poems", POEMS, queries, qrels)


def test_one_document_needs_no_retriever() -> None:
    with pytest.raises(InvalidInput, match="at least two documents"):
        labelled("one", POEMS[:1], {"a": "?"}, {"a": {"sonnet": 1}})


@pytest.mark.parametrize("spec", ["keyword-3", "part-of-passage-5"])
def test_bm25_finds_what_words_tell(spec: str) -> None:
    task = make(spec, POEMS)
    retriever = create("bm25")
    retriever.add(task.documents)
    found = evaluate(retriever, task.queries, task.qrels, task.measures)
    assert found.means["nDCG@10"] == 1.0
