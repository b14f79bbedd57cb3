"""Data sets in the layout of TREC: SGML documents, topics and judgements, and their mistakes."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry.errors import InvalidInput, RagistryError, StorageError, UnknownName
from ragistry.evaluation import load
from ragistry.types import Document, Pair

from ..laid import lay

NEWS = """<?xml version="1.0"?>
<DOC>
<DOCNO> FT911-3 </DOCNO>
<PROFILE>_AN-BEOA7AAIFT</PROFILE>
<DATE>910514
</DATE>
<HEADLINE>
FT  14 MAY 91 / International Company News:
Contigas &amp; Co
</HEADLINE>
<TEXT>
CONTIGAS, the German gas group   is up 40%.
<P>
</P>
Profits &lt; 5m &hyph; AT&T&blank;fell, 3 < 4.
</TEXT>
<TEXT>
A second part.
</TEXT>
<BYLINE> By A Reporter </BYLINE>
</DOC>
<DOC><DOCNO>FT911-4</DOCNO><TEXT></TEXT></DOC>
<DOC>
<DOCNO>FT911-5
<!-- FTAG 4700 -->
<HL>Unclosed headline
<LP> The lead.
<TEXT> Unclosed text
</DOC>
"""
WEB = """<DOC>
<DOCNO>WTX001-B01-1</DOCNO>
<DOCHDR>
http://example.org/ 200
Content-type: text/html
</DOCHDR>
<html><head><title>Sonnets
of old</title><style>p {color: red}</style></head>
<body class="x">Fourteen <b>lines</b>. Mail <bob@example.org>.<script>if (a < b) {}</script></body></html>
</DOC>
"""
TOPICS = """
<top>
<head> Tipster Topic Description
<num> Number:  301
<title> Topic:  International
   Organized Crime &amp; Law

<desc> Description:
Identify organizations.

<narr> Narrative:
A relevant <title> would be odd.
</top>

<top>
<num> Number: 007 </num>
<title>Poliomyelitis</title>
</top>
<top>
<num> Number: 303
<desc> Description:
No title here.
</top>
"""
XML = """<webtrack2009>
<topic number="1" type="faceted">
  <query>obama family tree</query>
  <description> Find information. </description>
  <subtopic number="1" type="nav"> Find the page. </subtopic>
</topic>
<topic number="2"><title>french &amp; lick</title></topic>
<topic id="3">only words</topic>
<topic><number> 4 </number><query>four</query></topic>
</webtrack2009>
"""
QRELS = "301 0 FT911-3 1\n301 0 FT911-4 0\n007 0 FT911-4 2\n"


def trec(directory: Path, **changes: str | bytes) -> Any:
    files: dict[str, str | bytes] = {"docs.sgml": NEWS, "topics.txt": TOPICS, "qrels.txt": QRELS}
    lay(directory, {**files, **{name.replace("__", "/").replace("_", "."): value for name, value in changes.items()}})
    return load(f"trec:{directory}")


def test_a_trec_collection_is_read(tmp_path: Path) -> None:
    dataset = trec(tmp_path / "news")
    assert (dataset.name, dataset.splits) == ("news", ("test",))
    first, second, third = dataset.documents
    assert (first.id, first.title) == ("FT911-3", "FT 14 MAY 91 / International Company News: Contigas & Co")
    assert first.text == (
        "CONTIGAS, the German gas group is up 40%.\n\nProfits < 5m - AT&T fell, 3 < 4.\n\nA second part."
    )
    assert second == Document("FT911-4", "")
    assert (third.id, third.title, third.text) == ("FT911-5", "Unclosed headline", "The lead.\n\nUnclosed text")
    split = dataset.split()
    assert split.queries == {"301": "International Organized Crime & Law", "007": "Poliomyelitis"}
    assert split.qrels == {"301": {"FT911-3": 1, "FT911-4": 0}, "007": {"FT911-4": 2}}
    assert split.notes == ("1 query has no judgements and was left out: '303'",)
    assert split.pairs()[1] == Pair("Poliomyelitis", "FT911-4")


def test_a_web_page_is_all_of_its_text(tmp_path: Path) -> None:
    [document] = trec(tmp_path, docs_sgml=WEB).documents
    assert (document.id, document.title) == ("WTX001-B01-1", "Sonnets of old")
    assert document.text == "Fourteen lines . Mail <bob@example.org>."


def test_one_kind_of_title_is_taken_and_not_repeated(tmp_path: Path) -> None:
    sgml = "<DOC><DOCNO>1</DOCNO><HEAD>a</HEAD>\n<HEAD>b</HEAD><TEXT>c <TITLE></TITLE>d</TEXT></DOC>"
    assert trec(tmp_path, docs_sgml=sgml).documents == [Document("1", "c d", "a b")]
    sgml = "<doc><docno>1</docno><text>c <title>t</title>d</text></doc>"
    assert trec(tmp_path, docs_sgml=sgml).documents == [Document("1", "c d", "t")]
    sgml = "<DOC><DOCNO>1</DOCNO><TITLE>t\n<DATE>May</DATE>rest &eacute;</DOC>"
    assert trec(tmp_path, docs_sgml=sgml).documents == [Document("1", "May rest é", "t")]


def test_documents_in_folders_and_compressed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lay(
        tmp_path,
        {
            "docs/b/2.gz": gzip.compress(b"<DOC><DOCNO>2</DOCNO>two</DOC>\r\n\x1a"),
            "docs/a/1": b"\xef\xbb\xbf<DOC>\r\n<DOCNO>1</DOCNO>\r\ncaf\xe9</DOC>",
            "docs/b/.hidden": "x",
            "docs/README": "what this is",
            "Corpus.trec": "<DOC><DOCNO>0</DOCNO>caf\u00e9</DOC>",
            "topics.1-2.gz": gzip.compress(b"<top><num>1<title>caf\xe9</top>"),
            "topics.3": "<top><num>3<title>three</top>",
            "qrels/train.tsv": "query-id\tcorpus-id\tscore\n1\t1\t1\n",
            "qrels.b.txt": "3 0 2 1\n",
        },
    )
    dataset = load(f"trec:{tmp_path}")
    assert [(found.id, found.text) for found in dataset.documents] == [("0", "café"), ("1", "café"), ("2", "two")]
    assert "README' holds no <DOC> elements; skipped" in caplog.text
    assert dataset.splits == ("train", "b")
    assert (dataset.split("train").queries, dataset.split("b").queries) == ({"1": "café"}, {"3": "three"})


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["qrels.test.txt", "qrels-dev.txt"], {"test", "dev"}),
        (["qrels", "qrels_train.qrels"], {"test", "train"}),
        (["qrels.trec8.adhoc"], {"test"}),
        (["qrels-dev.txt"], {"dev"}),
        (["qrels.301-350.txt", "qrels.351-400.txt"], {"301-350", "351-400"}),
    ],
)
def test_splits_are_named_by_their_files(tmp_path: Path, files: list[str], splits: set[str]) -> None:
    lay(tmp_path, {"docs.sgml": NEWS, "topics.txt": TOPICS, **dict.fromkeys(files, QRELS)})
    dataset = load(f"trec:{tmp_path}")
    assert set(dataset.splits) == splits
    assert all(len(dataset.split(split).queries) == 2 for split in splits)


def test_topics_in_xml_or_in_our_own_formats(tmp_path: Path) -> None:
    qrels = "".join(f"{number} 0 FT911-3 1\n" for number in (4, 3, 2, 1))
    split = trec(tmp_path, topics_txt=XML, qrels_txt=qrels).split()
    assert split.queries == {"4": "four", "3": "only words", "2": "french & lick", "1": "obama family tree"}
    assert split.notes == ()
    split = trec(tmp_path, topics_txt="1\tone\n2\ttwo\n", qrels_txt="2 0 FT911-3 1\n").split()
    assert split.queries == {"2": "two"}


def test_judged_topics_without_title_are_counted(tmp_path: Path) -> None:
    split = trec(tmp_path, qrels_txt="301 0 a 1\n303 0 a 1\n999 0 a 1\n").split()
    assert split.queries.keys() == split.qrels.keys() == {"301"}
    assert split.notes == (
        "2 judged queries have no text and were left out: '303', '999'",
        "1 query has no judgements and was left out: '007'",
    )


def test_leading_zeros_are_matched_where_that_is_clear(tmp_path: Path) -> None:
    dataset = trec(tmp_path, qrels_txt="301 0 a 1\n7 0 a 1\n")
    split = dataset.split()
    assert split.qrels == {"301": {"a": 1}, "007": {"a": 1}}
    assert split.notes[-1] == (
        "1 judged query has other leading zeros than the topics, such as '7' for '007'; the numbers of the topics are used"
    )
    with pytest.raises(InvalidInput, match=r"qrels.txt' judges query '07'; without leading zeros it could be several"):
        trec(tmp_path, qrels_txt="7 0 a 1\n07 0 a 1\n").split()
    with pytest.raises(InvalidInput, match=r"judges query '1'; without leading zeros it could be several"):
        trec(tmp_path, topics_txt="01\tone\n001\tuno\n", qrels_txt="1 0 a 1\n").split()
    # A topic that is judged under its own number is no one else's.
    split = trec(tmp_path, topics_txt="1\tone\n", qrels_txt="1 0 a 1\n01 0 a 1\n").split()
    assert (split.qrels, split.notes[0][:14]) == ({"1": {"a": 1}}, "1 judged query")


def test_judgements_of_other_topics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"none of 1 judged queries has text; they are judged as 'MB01', the queries"
    ):
        trec(tmp_path, qrels_txt="MB01 0 a 1\n").split()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            NEWS.replace("</DOC>\n<DOC><DOCNO>FT911-4", "<DOC><DOCNO>FT911-4"),
            r"line 21: the <DOC> of line 2 is not closed",
        ),
        ("<DOC><DOCNO>1</DOCNO>\n", r"line 1: the <DOC> is not closed before the file ends; the file may be cut"),
        ("\n</DOC>", r"line 2: </DOC> closes nothing"),
        ("\n\n<DOC><TEXT>a</TEXT></DOC>", r"line 3: the document has no DOCNO"),
        ("<DOC><DOCNO> </DOCNO></DOC>", r"line 1: the document has no DOCNO"),
        (NEWS + "\n<DOC>\n<DOCNO>FT911-4</DOCNO></DOC>", r"line 31: document 'FT911-4' comes a second time"),
        ("<DOC><DOCNO>1</DOCNO></DOC>\nlost words", r"line 1: 'lost words' stands outside of the <DOC>"),
        ("", r"holds no <DOC> elements"),
        (bytes(range(256)) * 20, r"holds no <DOC> elements"),
        (b"\x1f\x9d\x90\0\0", r"is compressed by `compress`"),
    ],
)
def test_a_mistake_in_the_documents_is_named_with_its_line(tmp_path: Path, content: str | bytes, told: str) -> None:
    dataset = trec(tmp_path, docs_sgml=content)
    with pytest.raises(InvalidInput, match=rf"docs.sgml', (about )?{told}|docs.sgml' {told}"):
        _ = dataset.documents


@pytest.mark.parametrize("cut", [3, 20, -4])
def test_a_compressed_file_that_is_cut_short(tmp_path: Path, cut: int) -> None:
    dataset = trec(tmp_path, docs_sgml=gzip.compress(NEWS.encode())[:cut])
    with pytest.raises(StorageError, match=r"cannot uncompress '.*docs.sgml': .*; it is cut short or damaged"):
        _ = dataset.documents
    damaged = bytearray(gzip.compress(NEWS.encode()))
    damaged[40] ^= 255
    with pytest.raises(StorageError, match="cannot uncompress"):
        _ = trec(tmp_path, docs_sgml=bytes(damaged)).documents


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("<top>\n<title>a</top>", r"line 1: a topic has no number"),
        ("<top><num>1<title>a</top>\n\n<top><num>1<title>b</top>", r"line 3: topic '1' comes a second time"),
        ("<html></html>", r"holds no topics"),
        ("", r"is empty"),
        (b"\xff\xfe\0\x01", r"is not UTF-8"),
        (gzip.compress(b"1\tone\n", mtime=0), r"^'.*topics.txt', line 1: byte"),
    ],
)
def test_a_mistake_in_the_topics_is_named(tmp_path: Path, content: str | bytes, told: str) -> None:
    dataset = trec(tmp_path, topics_txt=content)
    with pytest.raises(InvalidInput, match=told):
        dataset.split()


def test_parts_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"it has no docs\* or corpus\* or documents\*; documents, topics"):
        load(f"trec:{tmp_path}")
    lay(tmp_path, {"docs.sgml": NEWS})
    with pytest.raises(InvalidInput, match=r"it has no topics\* or queries\*"):
        load(f"trec:{tmp_path}")
    lay(tmp_path, {"topics.txt": TOPICS})
    with pytest.raises(InvalidInput, match=r"it has no qrels\*"):
        load(f"trec:{tmp_path}")
    (tmp_path / "qrels").mkdir()
    with pytest.raises(InvalidInput, match=r"qrels' holds no file"):
        load(f"trec:{tmp_path}")
    lay(tmp_path, {"qrels/test.txt": QRELS, "qrels.txt": QRELS})
    with pytest.raises(InvalidInput, match=r"are both the split 'test'"):
        load(f"trec:{tmp_path}")
    (tmp_path / "qrels.txt").unlink()
    (tmp_path / "docs.sgml").unlink()
    (tmp_path / "docs").mkdir()
    with pytest.raises(InvalidInput, match=r"docs' holds no documents"):
        _ = load(f"trec:{tmp_path}").documents
    with pytest.raises(UnknownName, match="there is no data set or directory"):
        load(f"trec:{tmp_path / 'none'}")


words = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="<>&"), max_size=20)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=4), st.booleans())
@settings(max_examples=40, deadline=None)
def test_sgml_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, rows: list[Any], gz: bool) -> None:
    written = "\n".join(
        f"<DOC>\n<DOCNO> d{i} </DOCNO>\n<TITLE>{title}</TITLE>\n<TEXT>\n{text}\n</TEXT>\n</DOC>"
        for i, (title, text) in enumerate(rows)
    ).encode()
    dataset = trec(tmp_path_factory.mktemp("sgml"), docs_sgml=gzip.compress(written) if gz else written)
    assert [(found.title, found.text) for found in dataset.documents] == [
        (" ".join(title.split()), " ".join(text.split())) for title, text in rows
    ]


@given(
    st.lists(st.sampled_from(["<DOC>", "</DOC>", "<DOCNO>", "1", "</DOCNO>", "<TEXT", ">", "\n", "\xff", "&#0;", "a"]))
)
@settings(max_examples=60, deadline=None)
def test_any_sgml_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    content = "".join(parts).encode("latin-1")
    dataset = trec(tmp_path_factory.mktemp("sgml"), docs_sgml=content, topics_txt=content.replace(b"DOC", b"top"))
    for read in (lambda: dataset.documents, dataset.split):
        try:
            read()
        except RagistryError as error:
            assert "docs.sgml" in str(error) or "topics.txt" in str(error) or "qrels.txt" in str(error)
