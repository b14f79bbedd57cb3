"""Data sets in other layouts: TREC collections, tables, and the package ir_datasets."""

import gzip
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry.errors import InvalidInput, MissingExtra, RagistryError, StorageError, UnknownName
from ragistry.evaluation import load
from ragistry.types import Document, Pair

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


def lay(directory: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return directory


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
        (gzip.compress(b"1\tone\n"), r"^'.*topics.txt', line 1: byte"),
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


TABLES: dict[str, str | bytes] = {
    "documents.csv": 'id,title,text,source,line,year\n007,Sonnet,"fourteen, lines",web,9,1609\nd2,,,,,\n',
    "queries.csv": "id,text\nq1,how long?\nq2,who?\n",
    "qrels.csv": "query-id,corpus-id,score\nq1,007,2\nq1,d2,0\n",
}


def tables(directory: Path, **changes: str | bytes | None) -> Any:
    files = {**TABLES, **{name.replace("__", "/").replace("_", "."): content for name, content in changes.items()}}
    lay(directory, {name: content for name, content in files.items() if content is not None})
    return load(f"csv:{directory}")


def test_tables_are_read(tmp_path: Path) -> None:
    dataset = tables(tmp_path / "small")
    assert (dataset.name, dataset.splits) == ("small", ("test",))
    assert dataset.documents == [
        Document("007", "fourteen, lines", "Sonnet", {"source": "web", "line": 9, "year": 1609}),
        Document("d2", ""),
    ]
    split = dataset.split()
    assert (split.queries, split.qrels) == ({"q1": "how long?"}, {"q1": {"007": 2, "d2": 0}})
    assert split.notes == ("1 query has no judgements and was left out: 'q2'",)


def test_tables_with_tabs_and_splits(tmp_path: Path) -> None:
    dataset = tables(
        tmp_path,
        documents_csv=None,
        queries_csv=None,
        qrels_csv=None,
        corpus_tsv="text\tid\tsource_\na, b\td1\tweb\n",
        queries_tsv="q1\thow?\n",
        qrels__dev_tsv="query-id\tcorpus-id\tscore\nq1\td1\t1\n",
        qrels__train_csv="query-id,corpus-id,score\nq1,d1,1\n",
    )
    assert dataset.documents == [Document("d1", "a, b", "", {"source_": "web"})]
    assert dataset.splits == ("dev", "train")
    assert dataset.split("dev") == dataset.split("train")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("id,text\n1,a\n1,b\n", r"line 3: document '1' comes a second time"),
        ("id,text\n1,a\n\n,b\n", r"line 4: the id is empty"),
        ("id,body\n1,a\n", r"line 1: the columns are 'id, body'; text is needed"),
        ("a,b\n1,a\n", r"line 1: the columns are 'a, b'; id and text are needed"),
        ("", r"line 1: the columns are ''; id and text are needed"),
        (bytes(range(256)) * 20, r"line 1: the columns are .*; id and text are needed"),
        ("id,text\n", r"holds no documents"),
        ("id,text\n1,a,b\n", r"line 2: 3 cells were given for 2 columns"),
        ('id,text\n1,"a\n', r"line 2: unexpected end of data"),
    ],
)
def test_a_mistake_in_a_table_is_named_with_its_line(tmp_path: Path, content: str | bytes, told: str) -> None:
    dataset = tables(tmp_path, documents_csv=content)
    with pytest.raises(InvalidInput, match=rf"^'.*documents.csv',? {told}"):
        _ = dataset.documents


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"documents_csv": None}, r"it has no documents.csv; each may also be .tsv"),
        (
            {"documents_csv": None, "queries_csv": None, "qrels_csv": None, "other_csv": ""},
            r"no documents.csv, no queries.csv, no qrels.csv \(or qrels/test.csv\)",
        ),
        ({"corpus_tsv": ""}, r"holds documents.csv and corpus.tsv, which are for the same"),
        ({"queries_tsv": ""}, r"holds queries.csv and queries.tsv"),
        ({"qrels__dev_csv": ""}, r"holds qrels.csv and qrels/dev.csv"),
        ({"qrels_csv": None, "qrels__dev_csv": "", "qrels__dev_tsv": ""}, r"holds qrels/dev.csv and qrels/dev.tsv"),
    ],
)
def test_tables_that_are_missing_or_there_twice(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        tables(tmp_path, **changes)


def test_tables_that_do_not_belong_together(tmp_path: Path) -> None:
    dataset = tables(tmp_path, qrels_csv="query-id,corpus-id,score\nq1,d1,1\nq9,d1,1\n")
    with pytest.raises(InvalidInput, match=r"qrels.csv' judges 1 queries that queries.csv does not have, such as 'q9'"):
        dataset.split()
    (tmp_path / "documents.csv").unlink()
    with pytest.raises(StorageError, match="does not exist"):
        _ = dataset.documents


class Rich(NamedTuple):
    doc_id: str
    title: str | None
    text: str
    abstract: str
    year: int
    tags: list[str]
    parts: tuple[Any, ...]
    raw: bytes
    metadata: dict[str, Any]

    def default_text(self) -> str:
        return f"{self.title} {self.text}"


class Bare(NamedTuple):
    query_id: str
    query: str


class Judged(NamedTuple):
    query_id: str
    doc_id: str
    relevance: Any


def rich(id: str, title: str | None, text: str, abstract: str = "") -> Rich:
    return Rich(id, title, text, abstract, 1609, ["a", "b"], ({},), b"\0", {"lang": "en", "none": None})


class Parts:
    """What ir_datasets calls a data set, from lists; an exception in a list is raised when it is reached."""

    def __init__(self, docs: Sequence[Any] = (), queries: Sequence[Any] = (), qrels: Sequence[Any] = ()) -> None:
        for part, rows in {"docs": docs, "queries": queries, "qrels": qrels}.items():
            setattr(self, f"has_{part}", lambda rows=rows: bool(rows))
            setattr(self, f"{part}_iter", lambda rows=rows: self._rows(rows))

    @staticmethod
    def _rows(rows: Sequence[Any]) -> Iterator[Any]:
        for row in rows:
            if isinstance(row, BaseException):
                raise row
            yield row


def fake(monkeypatch: pytest.MonkeyPatch, **datasets: Parts) -> None:
    package: Any = ModuleType("ir_datasets")
    package.registry = datasets
    package.load = datasets.__getitem__
    monkeypatch.setitem(sys.modules, "ir_datasets", package)


DOCS = [rich("d1", "Sonnet", "fourteen lines")]
QUERIES = [Bare("q1", " how long? ")]
JUDGED = [Judged("q1", "d1", 1)]


def test_odd_records_of_ir_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    docs = [
        rich("d1", "Sonnet", "fourteen lines", "short"),
        rich("d1", "Sonnet", "fourteen lines", "short"),
        rich("d2", None, "no title"),
        rich("d3", "The", ""),
        SimpleNamespace(doc_id=4, title="The", text="The end", default_text=lambda: "The end"),
        SimpleNamespace(doc_id="5", title="The", other="x", default_text=lambda: "Theory of all"),
        SimpleNamespace(doc_id="6", headline="H", body="b\ud800", url="u", score=float("nan"), seen=True),
        {"doc_id": "7", "text": None},
        {"doc_id": "8", "summary": "s", "body": "b", "html": "<p>b"},
    ]
    queries = [*QUERIES, *QUERIES, SimpleNamespace(query_id=2, default_text=lambda: None), Bare("q3", "why?")]
    qrels = [*JUDGED, *JUDGED, Judged("q1", "d2", "0"), Judged(2, "d1", 1.0), Judged("q9", "d1", -1)]
    fake(monkeypatch, odd=Parts(docs, queries, qrels))
    dataset = load("ir_datasets:odd")
    metadata = {"year": 1609, "tags": ["a", "b"], "lang": "en"}
    assert dataset.documents == [
        Document("d1", "fourteen lines", "Sonnet", {"abstract": "short", **metadata}),
        Document("d2", "no title", "", metadata),
        Document("d3", "", "The", metadata),
        Document("4", "The end", "The"),
        Document("5", "Theory of all", "The", {"other": "x"}),
        Document("6", "b\ufffd", "H", {"url": "u", "seen": True}),
        Document("7", ""),
        Document("8", "b\ns"),
    ]
    split = dataset.split("test")
    assert (split.queries, split.qrels) == ({"q1": "how long?"}, {"q1": {"d1": 1, "d2": 0}})
    assert split.notes == (
        "2 judged queries have no text and were left out: '2', 'q9'",
        "1 query has no judgements and was left out: 'q3'",
    )


@pytest.mark.parametrize(
    ("parts", "error", "told"),
    [
        (
            Parts([*DOCS, OSError("refused")], QUERIES, JUDGED),
            StorageError,
            "could not give the documents of 'x': OSError",
        ),
        (
            Parts([*DOCS, rich("d1", "", "x")], QUERIES, JUDGED),
            InvalidInput,
            "'d1' comes a second time, with other content",
        ),
        (
            Parts([Bare("1", "a")], QUERIES, JUDGED),
            InvalidInput,
            "'ir_datasets:x': a record has no `doc_id`, only query_id",
        ),
        (Parts([object()], QUERIES, JUDGED), InvalidInput, "a record has no `doc_id`, only nothing"),
        (
            Parts(DOCS, [Bare("q1", "a"), Bare("q1", "b")], JUDGED),
            InvalidInput,
            "'q1' comes a second time, with another",
        ),
        (Parts(DOCS, [ValueError("")], JUDGED), StorageError, "could not give the queries of 'x': ValueError"),
        (
            Parts(DOCS, QUERIES, [Judged("q1", "d1", 0.5)]),
            InvalidInput,
            "for query 'q1' is 0.5; a whole number is needed",
        ),
        (Parts(DOCS, QUERIES, [Judged("q1", "d1", "x")]), InvalidInput, "is 'x'; a whole number"),
        (Parts(DOCS, QUERIES, [Judged("q1", "d1", True)]), InvalidInput, "is True; a whole number"),
        (
            Parts(DOCS, QUERIES, [*JUDGED, Judged("q1", "d1", 0)]),
            InvalidInput,
            "has relevance 0 for query 'q1', before 1",
        ),
        (Parts(DOCS, QUERIES, [Judged("q9", "d1", 1)]), InvalidInput, "none of 1 judged queries has text"),
    ],
)
def test_mistakes_and_failures_of_ir_datasets(
    monkeypatch: pytest.MonkeyPatch, parts: Parts, error: type[RagistryError], told: str
) -> None:
    fake(monkeypatch, x=parts)
    dataset = load("ir_datasets:x")
    with pytest.raises(error, match=told):
        _ = (dataset.documents, dataset.split())


def test_ir_datasets_that_are_unknown_or_not_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(
        monkeypatch,
        **{"news": Parts(DOCS), "news/dev": Parts(DOCS, QUERIES, JUDGED), "news/queries": Parts(DOCS, QUERIES)},
    )
    with pytest.raises(UnknownName, match=r"ir_datasets has no data set 'new/dev'; did you mean 'news/dev'"):
        load("ir_datasets:new/dev")
    with pytest.raises(
        InvalidInput, match=r"'ir_datasets:news' has no queries and no judgements; .*; use one of news/dev$"
    ):
        load("ir_datasets:news")
    with pytest.raises(InvalidInput, match=r"'ir_datasets:news/queries' has no judgements; documents"):
        load("ir_datasets:news/queries")


def test_ir_datasets_that_is_missing_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(MissingExtra, match=r"needs the package 'ir_datasets'.*pip install 'ragistry\[ir-datasets\]'"):
        load("ir_datasets:cranfield")
    broken: Any = ModuleType("ir_datasets")
    monkeypatch.setitem(sys.modules, "ir_datasets", broken)
    with pytest.raises(StorageError, match=r"ir_datasets could not give 'cranfield': AttributeError"):
        load("ir_datasets:cranfield")


def test_the_real_package_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path / "home"))
    package = pytest.importorskip("ir_datasets")
    formats, local = package.formats, package.util.LocalDownload
    lay(
        tmp_path,
        {
            "docs.tsv": "d1\tfourteen lines\nd2\t\n",
            "docs.sgml": "<DOC>\n<DOCNO>d1</DOCNO>\n<TITLE>Sonnet</TITLE>\n<TEXT>\nfourteen lines\n</TEXT>\n</DOC>\n",
            "queries.tsv": "q1\thow long?\nq2\twho?\n",
            "topics.txt": "<top>\n<num> Number: 301\n<title> crime\n<desc> d\n<narr> n\n</top>\n",
            "qrels.txt": "q1 0 d1 1\nq1 0 d1 1\nq9 0 d1 2\n",
            "qrels.trec.txt": "301 0 d1 1\n",
        },
    )

    registered = package.util.Registry()
    monkeypatch.setattr(package, "registry", registered)

    def name(*handlers: Any) -> str:
        new = f"test/{len([*registered])}"
        registered.register(new, package.Dataset(*handlers))
        return f"ir_datasets:{new}"

    docs, queries = formats.TsvDocs(local(tmp_path / "docs.tsv")), formats.TsvQueries(local(tmp_path / "queries.tsv"))
    qrels = formats.TrecQrels(local(tmp_path / "qrels.txt"), {})
    dataset = load(name(docs, queries, qrels))
    assert dataset.documents == [Document("d1", "fourteen lines"), Document("d2", "")]
    split = dataset.split()
    assert (split.queries, split.qrels) == ({"q1": "how long?"}, {"q1": {"d1": 1}})
    assert len(split.notes) == 2

    docs = formats.TrecDocs(local(tmp_path / "docs.sgml"), parser="tut", docstore_path=str(tmp_path / "store"))
    topics = formats.TrecQueries(local(tmp_path / "topics.txt"))
    qrels = formats.TrecQrels(local(tmp_path / "qrels.trec.txt"), {})
    dataset = load(name(docs, topics, qrels))
    assert dataset.documents == [Document("d1", "fourteen lines", "Sonnet")]
    assert dataset.split().queries == {"301": "crime"}

    dataset = load(name(formats.TsvDocs(local(tmp_path / "none")), queries, qrels))
    with pytest.raises(StorageError, match=r"could not give the documents of 'test/2': FileNotFoundError"):
        _ = dataset.documents
    with pytest.raises(InvalidInput, match=r"'ir_datasets:test/3' has no queries and no judgements"):
        load(name(docs))


def test_the_real_package_knows_its_names() -> None:
    pytest.importorskip("ir_datasets")
    with pytest.raises(UnknownName, match=r"has no data set 'cranfeld'; did you mean .*'cranfield'"):
        load("ir_datasets:cranfeld")
    with pytest.raises(
        InvalidInput, match=r"'ir_datasets:msmarco-passage' has no queries .*; use one of msmarco-passage/"
    ):
        load("ir_datasets:msmarco-passage")
    assert load("ir_datasets:beir/scifact/test").splits == ("test",)  # nothing is downloaded
