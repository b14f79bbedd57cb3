"""Text to terms: scripts, identifiers, offsets, and numbers that agree with the terms."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry import Analyzer
from ragistry.encoders.terms import Terms
from ragistry.errors import InvalidInput
from ragistry.text import ENGLISH_STOP_WORDS, term_key

RAW = Analyzer(stemmer=None, stop_words=None)
WORDS = Analyzer(stemmer=None, stop_words=None, identifiers=False)

pieces = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(codec=None, categories=("L", "N", "M", "P", "S", "Z", "C")), max_size=10),  # surrogates too
    st.text("aB1_.:-/ 東京가\u1100\u1161\u0301\0\u200d🦜", max_size=30),
    st.sampled_from(
        [
            "\0",
            "\ud800",
            "🦜",
            "x" * 300,
            "東" * 300,
            "a\u0301" * 200,
            "aB" * 200,
            "a.b" * 50,
            "os.path.join",
            "getUserName",
        ]
    ),
)
texts = st.lists(pieces, max_size=6).map("".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Cats SAT", ["the", "cats", "sat"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("ＦＵＬＬ width １２", ["full", "width", "12"]),
        ("ΟΔΟΣ οδος", ["οδοσ", "οδοσ"]),
        ("ﬁne oﬀice", ["fine", "office"]),
        ("don't it’s", ["don", "t", "it", "s"]),
        ("", []),
        (" \t\n…!?", []),
        ("x² 3½", ["x2", "31⁄2"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("שָׁלוֹם עולם", [normalize("NFKC", "שָׁלוֹם"), "עולם"]),
        ("Ünïcödé naïve", ["ünïcödé", "naïve"]),
        ("🦜 parrot🦜bird", ["parrot", "bird"]),
        ("3.14 v1.2", ["3", "14", "v1", "2"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert WORDS.terms(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("東京都", ["東", "京", "東京", "都", "京都"]),
        ("ひらがな", ["ひ", "ら", "ひら", "が", "らが", "な", "がな"]),
        ("カタ", ["カ", "タ", "カタ"]),
        ("한국", ["한", "국", "한국"]),
        ("ไทย", ["ไ", "ท", "ไท", "ย", "ทย"]),
        ("กำ", ["ก", "ำ", "กำ"]),
        ("abc東京def", ["abc", "東", "京", "東京", "def"]),
        ("東 京", ["東", "京"]),
        ("ﾊﾞｶﾞ", ["バ", "ガ", "バガ"]),
    ],
)
def test_scripts_without_spaces(text: str, expected: list[str]) -> None:
    assert RAW.terms(text) == [normalize("NFKC", term) for term in expected]


@pytest.mark.parametrize(
    "text",
    [
        "한국어 검색",
        "ハンバーガー",
        "がぎぐ",
        "café Müller",
        "caféBar HTTPÉcole ÉÉcole",
        "Åse ǅez",
        "ไทยน้ำ",
        "ệ ậ",
        "Ἀθῆναι",
        "वि॒श्व",
    ],
)
def test_composed_and_decomposed_text_are_the_same(text: str) -> None:
    assert RAW.terms(normalize("NFC", text)) == RAW.terms(normalize("NFD", text)) != []
    assert Analyzer().terms(normalize("NFC", text)) == Analyzer().terms(normalize("NFD", text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("os.path.join", ["os", "path", "join", "os.path.join"]),
        ("getUserName", ["get", "user", "name", "getusername"]),
        ("ERR-4042", ["err", "4042", "err-4042"]),
        ("std::vector", ["std", "vector", "std::vector"]),
        ("HTTPServer2", ["http", "server2", "httpserver2"]),
        ("snake_case_name", ["snake", "case", "name", "snake_case_name"]),
        ("__init__", ["init"]),
        ("a/b\\c", ["a", "b", "c", "a/b\\c"]),
        ("user@example.org", ["user", "example", "org", "user@example.org"]),
        ("C++ and c#", ["c", "c++", "and", "c", "c#"]),
        ("a++b, C+ and #x", ["a", "b", "c", "and", "x"]),
        ("end. Next", ["end", "next"]),
        ("x...y", ["x", "y"]),
        ("a:::b", ["a", "b"]),
        ("iPhone", ["i", "phone", "iphone"]),
        ("ABC", ["abc"]),
        ("pkg.getUser", ["pkg", "get", "user", "getuser", "pkg.getuser"]),
        ("caféBar", ["café", "bar", "cafébar"]),
        ("v1.2.3", ["v1", "2", "3", "v1.2.3"]),
        ("-flag --long-flag", ["flag", "long", "flag", "long-flag"]),
    ],
)
def test_identifiers_whole_and_by_part(text: str, expected: list[str]) -> None:
    assert RAW.terms(text) == expected


def test_long_identifiers_are_only_taken_apart() -> None:
    assert RAW.terms("a." * 31 + "a")[-1] == "a." * 31 + "a"
    assert RAW.terms("a." * 32 + "a") == ["a"] * 33


def test_huge_tokens_are_cut() -> None:
    assert RAW.terms("x" * 100_000) == ["x" * 255]
    assert len(RAW.tokens("東" + "\u0301" * 1000)[0].term) <= 255


def test_whole_identifiers_are_not_stemmed() -> None:
    assert Analyzer().terms("running.tests") == ["run", "test", "running.tests"]


@pytest.mark.parametrize(
    ("stemmer", "text", "expected"),
    [
        ("english", "parsers parsing parsed", ["parser", "pars", "pars"]),
        ("german", "Häuser Hauses", ["haus", "haus"]),
        ("french", "chevaux cheval", ["cheval", "cheval"]),
        (None, "parsers", ["parsers"]),
    ],
)
def test_stemmers(stemmer: str | None, text: str, expected: list[str]) -> None:
    assert Analyzer(stemmer, stop_words=None).terms(text) == expected


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"klingon.*english"):
        Analyzer("klingon")
    with pytest.raises(InvalidInput, match=r"german.*words themselves"):
        Analyzer(stop_words="german")


@pytest.mark.parametrize(
    "wrong", [{"stop_words": 3}, {"stop_words": ["the", 3]}, {"identifiers": "yes"}, {"stemmer": 3}]
)
def test_settings_of_another_type_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        Analyzer(**wrong)


@pytest.mark.parametrize("text", [None, 3, b"cat", ["cat"]])
def test_what_is_no_text_is_refused(text: Any) -> None:
    with pytest.raises(InvalidInput, match="one text is needed"):
        Analyzer().terms(text)


def test_the_order_of_stop_words_is_invisible() -> None:
    one, other = Terms(Analyzer(stop_words=["a", "b"])), Terms(Analyzer(stop_words=["b", "a", "b"]))
    assert one.fingerprint() == other.fingerprint()


def test_stop_words() -> None:
    assert Analyzer().terms("The cat and THE dog") == ["cat", "dog"]
    assert Analyzer().terms(" ".join(ENGLISH_STOP_WORDS)) == []
    assert Analyzer(stop_words=["Straße", "cat"]).terms("cats cat STRASSE the") == ["cat", "the"]
    assert Analyzer(stop_words=iter(["cat"])).terms("cat dog") == ["dog"]
    assert Analyzer(stop_words=[]).terms("the") == ["the"]


@given(texts)
def test_offsets_point_at_what_became_the_term(text: str) -> None:
    for analyzer in (RAW, WORDS, Analyzer()):
        tokens = analyzer.tokens(text)
        assert [token.term for token in tokens] == analyzer.terms(text)
        last = 0
        for token in tokens:
            assert 0 <= token.start < token.end <= len(text)
            assert token.end >= last
            last = token.end
            assert token.term
            if analyzer is not RAW and analyzer is not WORDS:
                continue
            raw = text[token.start : token.end]
            assert token.term == normalize("NFKC", normalize("NFKC", raw).casefold())


@settings(max_examples=200)
@given(st.lists(texts, max_size=5))
def test_keys_are_the_numbers_of_the_terms(some: list[str]) -> None:
    for analyzer in (Analyzer(), RAW, WORDS):
        keys, offsets = analyzer.keys(some)
        assert keys.dtype == offsets.dtype == np.int64
        assert len(offsets) == len(some) + 1
        found = [keys[a:b].tolist() for a, b in itertools.pairwise(offsets.tolist())]
        assert found == [[term_key(term) for term in analyzer.terms(text)] for text in some]


@given(texts, texts)
def test_a_text_has_the_same_terms_beside_any_other(one: str, other: str) -> None:
    assert RAW.terms(f"{one}\n{other}") == RAW.terms(one) + RAW.terms(other)


@given(st.text("abcxyz äöüßéñ ωςж ﬁ", max_size=20))
def test_case_is_invisible_to_words(text: str) -> None:
    assert WORDS.terms(text.upper()) == WORDS.terms(text.lower()) == WORDS.terms(text)


def test_many_texts_are_read_in_batches() -> None:
    some = ["word " * 300_000, "", "cat dog", "x" * 2_500_000, "last one"]
    keys, offsets = RAW.keys(some)
    assert np.diff(offsets).tolist() == [300_000, 0, 2, 1, 2]
    assert keys[-1] == term_key("one")
    assert [len(part) for part in RAW.keys([])] == [0, 1]


def test_a_small_memory_of_tokens_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragistry.text._REMEMBERED", 1000)
    analyzer = Analyzer()
    some = [" ".join(f"word{i}" for i in range(start, start + 40_000)) for start in (0, 40_000, 0, 20_000)]
    keys, offsets = analyzer.keys(some)
    again, _ = Analyzer().keys(some)
    assert np.array_equal(keys, again)
    assert np.array_equal(keys[: offsets[1]], keys[offsets[2] : offsets[3]])
    assert len(set(keys.tolist())) == 80_000


def test_term_keys() -> None:
    assert term_key("") == 0
    assert 0 < term_key("cat") < 2**63
    assert term_key("cat") == term_key("cat") != term_key("Cat")
    assert term_key("\ud800") > 0


def test_threads_share_an_analyzer() -> None:
    analyzer = Analyzer()
    batches = [[f"term{i * j} running {'東京' * i} get{j}User" for i in range(200)] for j in range(8)]
    expected = [Analyzer().keys(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for found, wanted in zip(pool.map(analyzer.keys, batches), expected, strict=True):
                assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
        alone = [Analyzer().terms(batch[3]) for batch in batches]
        assert list(pool.map(lambda batch: analyzer.terms(batch[3]), batches)) == alone


@pytest.mark.parametrize(("cores", "apart"), [(2, 1), (3, 10), (7, 40), (16, 1)])
def test_texts_counted_side_by_side_count_the_same(monkeypatch: pytest.MonkeyPatch, cores: int, apart: int) -> None:
    texts = [f"note {i % 7} on {'os.path.join ' * (i % 5)}{chr(0x4E00 + i)}" for i in range(101)] + [""]
    alone = Terms(Analyzer()).counts(texts)
    monkeypatch.setattr("ragistry.encoders.terms.cores", lambda: cores)
    monkeypatch.setattr("ragistry.encoders.terms.APART", apart)
    together = Terms(Analyzer()).counts(texts)
    assert together.shape == alone.shape
    for name in ("data", "indices", "indptr"):
        one, other = getattr(together, name), getattr(alone, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
