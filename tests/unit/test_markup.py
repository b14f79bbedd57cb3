"""Texts with their mentions marked: what a model reads and writes, and what people do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ragistry.errors import InvalidInput
from ragistry.retrievers.markup import Markup, NamedSpan, borders, marked, parts, unmarked
from ragistry.retrievers.namer import Namer
from ragistry.scorers.language_model import LanguageModel

from ..tiny import tiny_language_model

ODD = "ab \\{}[]é\u0301ß中\U0001f642\u200d\x00\n\t\u00a0"
TEXTS = st.one_of(st.text(), st.text(alphabet=ODD))
quick = settings(deadline=None, max_examples=100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def wordpiece(folder: Path) -> Markup:
    return markup_of(LanguageModel(tiny_language_model(folder, "bart"), precision="fp32"))


@pytest.fixture(scope="module")
def spaced(folder: Path) -> Markup:
    return markup_of(LanguageModel(tiny_language_model(folder, "llama"), precision="fp32"))


@pytest.fixture(scope="module")
def spare() -> Markup:
    return markup_of(LanguageModel("all-MiniLM-L6-v2", grow="seq2seq", precision="fp32"))


def markup_of(model: LanguageModel) -> Markup:
    return Markup(Namer(model, query_tokens=40, name_tokens=8))


def written(markup: Markup, ids: list[int]) -> list[str]:
    """Tokens as their texts."""
    tokenizer = markup.namer.model._loaded()[1]
    return [str(tokenizer.id_to_token(token)).replace("Ġ", "_") for token in ids]


@st.composite
def linked(draw: st.DrawFn) -> tuple[str, list[NamedSpan]]:
    """A text with links that do not overlap."""
    text = draw(TEXTS)
    places = sorted(draw(st.sets(st.integers(0, len(text)), max_size=8)))
    pairs = list(zip(places[::2], places[1::2], strict=False))
    return text, [(start, end, draw(TEXTS)) for start, end in pairs]


@quick
@given(linked())
@example(("", []))
@example(("ab", [(0, 1, ""), (1, 2, "]")]))
@example(("\\{a}[b]\\", [(1, 4, "\\]")]))
def test_unmarked_is_the_inverse(given: tuple[str, list[NamedSpan]]) -> None:
    text, links = given
    assert unmarked(marked(text, links)) == (text, links)
    assert marked(text, links[::-1]) == marked(text, links)


@quick
@given(TEXTS)
def test_what_unmarked_takes_marked_gives(text: str) -> None:
    try:
        found = unmarked(text)
    except InvalidInput:
        return
    assert marked(*found) == text


def test_as_people_read_it() -> None:
    text = "a [b] {c} \\d"
    assert marked(text, [(2, 5, "x{y}")]) == r"a {\[b\]}[x\{y\}] \{c\} \\d"
    assert marked("", []) == ""


@pytest.mark.parametrize(
    "text", ["{a}", "{a}b[c]", "{}[c]", "a]", "\\", "\\a", "{a[b]", "{a}[b", "{a{b}[c]}[d]", "[a]"]
)
def test_what_is_no_markup_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="backslash"):
        unmarked("abc " + text)
    with pytest.raises(InvalidInput, match=f"character {text.index(min(text.lstrip('a'), key='{}[]'.find))}|character"):
        unmarked(text)


@pytest.mark.parametrize(
    ("links", "message"),
    [
        ([(0, 2, "x"), (1, 3, "y")], "overlaps"),
        ([(0, 0, "x")], "from 0 to 0"),
        ([(2, 1, "x")], "from 2 to 1"),
        ([(-1, 1, "x")], "from -1 to 1"),
        ([(1, 4, "x")], "3 characters"),
        ([(0, 1.5, "x")], "whole numbers"),
        ([(0, 1, None)], "NoneType"),
    ],
)
def test_links_that_cannot_be_marked_are_refused(links: list[NamedSpan], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        marked("abc", links)


def test_tokens_of_markup(wordpiece: Markup, spaced: Markup, spare: Markup) -> None:
    assert [written(wordpiece, part) for part in (wordpiece.opening, wordpiece.between, wordpiece.closing)] == [
        ["{"], ["}", "["], ["]"]
    ]  # fmt: skip
    assert [written(spaced, part) for part in (spaced.opening, spaced.between, spaced.closing)] == [
        ["_", "{"], ["_", "}", "_", "["], ["_", "]"]
    ]  # fmt: skip
    assert [written(spare, part) for part in (spare.opening, spare.between, spare.closing)] == [
        ["[unused2]"], ["[unused3]"], ["[unused4]"]
    ]  # fmt: skip


def test_source_and_target(wordpiece: Markup, spaced: Markup, spare: Markup) -> None:
    text, links = "a poem sat", [(2, 6, "the dog")]
    assert written(wordpiece, wordpiece.source(text)) == ["[CLS]", "a", "poem", "sat", "[SEP]"]
    assert written(wordpiece, wordpiece.target(text, links)) == "a { poem } [ the dog ] sat [SEP]".split()
    assert written(spaced, spaced.source(text)) == ["_", "a", "_poem", "_", "s", "a", "t", "</s>"]
    assert written(spaced, spaced.target(text, links)) == (
        "_ a _ { _poem _ } _ [ _ the _ d o g _ ] _ s a t </s>".split()
    )
    assert written(spare, spare.source(text)) == ["[CLS]", "a", "poem", "sat", "[SEP]"]
    assert written(spare, spare.target(text, links)) == (
        "a [unused2] poem [unused3] the dog [unused4] sat [SEP]".split()
    )
    assert written(wordpiece, wordpiece.target("", [])) == ["[SEP]"]


def test_names_are_written_as_a_trie_holds_them(wordpiece: Markup, spaced: Markup) -> None:
    for name in ("the cat", " the\n cat ", "", " "):
        assert wordpiece.names([name]) == wordpiece.namer.names([name])
    names = ["a poem", " poem \n", " "]
    assert [written(spaced, ids) for ids in spaced.names(names)] == [["_", "a", "_poem"], ["_poem"], []]
    assert len(spaced.names(["z" * 100])[0]) == 8


def test_mentions_are_widened_to_tokens_and_may_touch(wordpiece: Markup) -> None:
    assert written(wordpiece, wordpiece.target("cats", [(1, 2, "dog")])) == "{ cat } [ dog ] ##s [SEP]".split()
    assert written(wordpiece, wordpiece.target("cats", [(3, 4, "a"), (0, 3, "dog")])) == (
        "{ cat } [ dog ] { ##s } [ a ] [SEP]".split()
    )
    assert written(wordpiece, wordpiece.target("cat  sat", [(2, 5, "a")])) == "{ cat } [ a ] sat [SEP]".split()
    with pytest.raises(InvalidInput, match="shares the token 'cat'"):
        wordpiece.target("cats", [(0, 1, "dog"), (2, 3, "a")])
    with pytest.raises(InvalidInput, match="mention at 3 to 4 has no token"):
        wordpiece.target("cat sat", [(3, 4, "a")])
    with pytest.raises(InvalidInput, match="name ' ' has no token"):
        wordpiece.target("cat sat", [(0, 3, " ")])
    with pytest.raises(InvalidInput, match="from 5 to 9"):
        wordpiece.target("cat sat", [(5, 9, "a")])


def test_brackets_special_tokens_and_spaces_in_a_text(wordpiece: Markup, spaced: Markup, spare: Markup) -> None:
    text = "a{b} [SEP]\u00a0\uff5bc"
    ids, spans = wordpiece.read(text)
    assert written(wordpiece, ids) == ["a", "(", "b", ")", "(", "s", "##e", "##p", ")", "(", "c"]
    assert [text[start:end] for start, end in spans] == ["a", "{", "b", "}", "[", "S", "E", "P", "]", "\uff5b", "c"]
    assert written(spaced, spaced.read("</s>{\u00a0a")[0]) == ["_", "(", "/", "s", ")", "(", "_", "a"]
    assert written(spare, spare.read("{[MASK]} [SEP] [unused2]")[0])[:8] == [
        "{",
        "[MASK]",
        "}",
        "(",
        "sep",
        ")",
        "[",
        "unused",
    ]
    assert spare.namer.end not in spare.read("[SEP][SEP] [CLS]")[0]


@pytest.mark.parametrize("kind", ["wordpiece", "spaced", "spare"])
def test_places_are_those_of_the_text(kind: str, request: pytest.FixtureRequest) -> None:
    markup: Markup = request.getfixturevalue(kind)
    markups = {*markup.opening, *markup.between, *markup.closing} if kind == "spare" else set()

    @settings(deadline=None, max_examples=60)
    @given(st.one_of(st.text(), st.text(alphabet=ODD), st.text(alphabet="</s>[SEP] {}")))
    def check(text: str) -> None:
        ids, spans = markup.read(text)
        assert len(ids) == len(spans)
        assert all(0 <= start <= end <= len(text) for start, end in spans)
        assert spans == sorted(spans)
        assert not {markup.namer.end, *markup.namer.start, *markups} & set(ids)
        where = borders(text, spans)
        done = 0
        for (start, end), begins, ends in zip(*where, strict=True):
            assert text[start:end] == text[start:end].strip()
            if begins:
                assert done <= start < end
                assert not re.search(r"^\w\w$", text[start - 1 : start + 1], re.ASCII)
            if ends:
                assert not re.search(r"^\w\w$", text[end - 1 : end + 1], re.ASCII)
            done = max(done, end)

    check()


def test_borders_cut_no_word_and_no_character(wordpiece: Markup, spaced: Markup) -> None:
    def shown(markup: Markup, text: str) -> list[tuple[str, bool, bool]]:
        where = borders(text, markup.read(text)[1])
        return [(text[start:end], begins, ends) for (start, end), begins, ends in zip(*where, strict=True)]

    assert shown(wordpiece, "cats' (dog)") == [
        ("cat", True, False), ("s", False, True), ("'", True, True), ("(", True, True), ("dog", True, True),
        (")", True, True)
    ]  # fmt: skip
    assert [part[1:] for part in shown(spaced, "a\U0001f642b")] == [
        (False, False), (True, True), (True, False), (False, False), (False, False), (False, True), (True, True)
    ]  # fmt: skip
    assert borders("e\u0301t", [(0, 1), (1, 2), (2, 3)])[1:] == ([True, False, False], [False, False, True])
    assert borders("中文x", [(0, 1), (1, 2), (2, 3)])[1:] == ([True, True, True], [True, True, True])


@quick
@given(st.text(alphabet="ab. \n", max_size=80), st.integers(1, 9))
def test_parts_are_whole_and_end_well(text: str, size: int) -> None:
    spans = [match.span() for match in re.finditer(r"\w\w?|[^\w\s]", text)]
    runs = parts(text, spans, size)
    assert [place for first, last in runs for place in range(first, last)] == list(range(len(spans)))
    assert all(0 < last - first <= size for first, last in runs) or not spans
    for first, last in runs[:-1]:
        cuts = [i for i in range(first + 1, first + size + 1) if text[spans[i][0] - 1].isspace()]
        assert not cuts or last in cuts


def test_parts_end_with_sentences() -> None:
    text = "A cat sat. It has a mat! Dogs sat on and on, e.g. here"
    spans = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
    shown = [text[spans[first][0] : spans[last - 1][1]] for first, last in parts(text, spans, 7)]
    assert shown == ["A cat sat.", "It has a mat!", "Dogs sat on and on,", "e.g. here"]


@pytest.mark.parametrize("kind", ["wordpiece", "spaced"])
def test_what_a_model_cannot_read_or_write_is_refused(kind: str, request: pytest.FixtureRequest) -> None:
    markup: Markup = request.getfixturevalue(kind)
    for wrong in (None, b"cat", 5):
        with pytest.raises(InvalidInput, match="a str is needed"):
            markup.read(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="surrogate"):
        markup.read("a\ud800")
    most, room = (94, 95) if kind == "wordpiece" else (95, 47)  # a causal model reads and writes in one place
    assert len(markup.source(" poem" * most)) == 96
    with pytest.raises(InvalidInput, match="reads 96"):
        markup.source(" poem" * (most + 1))
    assert len(markup.target(" poem" * room, [])) == room + 1
    for text, links in ((" poem" * (room + 1), []), (" poem" * room, [(1, 5, "a")])):
        with pytest.raises(InvalidInput, match="reads 96"):
            markup.target(text, links)
