"""Chunks of text, Markdown, HTML, Python and PDF files: offsets, lines, budgets, ids and titles."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Callable
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pypdf import PdfWriter

from ragistry import Document
from ragistry.errors import InvalidInput
from ragistry.readers import read
from ragistry.readers.chunking import count_tokens

WORDS = (
    "word",
    "naïve",
    "日本語。",
    "👩\u200d👩\u200d👧",
    "e\u0301",
    "\x00",
    ".",
    "(",
    "| a |",
    "- ",
    "---",
    "# ",
    "## h",
    "```",
)
CODE = ("def f():", "class A:", "    return 1", "@x", "'''")
SPACES = (" ", "\t", "\f", "\u00a0", "\u2028", "\n", "\r\n", "\r", "\n\n", "\r\n\r\n")
PIECES = st.sampled_from([*WORDS, *CODE, *SPACES])
TEXTS = st.lists(PIECES | st.text(max_size=8), max_size=60).map("".join)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def read_all(path: Path, **options: int) -> tuple[list[Document], list[str]]:
    reports: list[str] = []
    return list(read(path, report=reports.append, **options)), reports


def pdf(*pages: str) -> bytes:
    """A PDF with one line of text on each page."""
    kids = " ".join(f"{4 + 2 * i} 0 R" for i in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for i, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        fonts = "/Resources << /Font << /F1 3 0 R >> >> /MediaBox [0 0 612 792]"
        objects.append(f"<< /Type /Page /Parent 2 0 R {fonts} /Contents {5 + 2 * i} 0 R >>")
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    end = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{len(body)}\n%%EOF\n"
    return body + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}".encode()


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.py", "a.sql"])
@given(text=TEXTS, tokens=st.integers(1, 12), share=st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_offsets_lines_and_budget_hold_for_any_text(name: str, text: str, tokens: int, share: int) -> None:
    overlap = min(share, tokens - 1)
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), name, text)
        decoded = text.encode().decode("utf-8-sig")
        documents, _ = read_all(file, tokens=tokens, overlap=overlap)
    previous = -1
    for document in documents:
        start, end = document.metadata["start"], document.metadata["end"]
        assert decoded[start:end] == document.text != ""
        assert document.metadata["line"] == len(re.findall("\r\n|\r|\n", decoded[:start])) + 1
        assert count_tokens(document.text) <= tokens or len(document.text) < 8  # one grapheme is never cut
        assert start >= previous
        previous = start
    if not overlap:
        kept = "".join(document.text for document in documents)
        assert "".join(kept.split()) == "".join(decoded.split())
    assert len({document.id for document in documents}) == len(documents)


def test_long_files_are_cut_in_stretches_without_losing_place(tmp_path: Path) -> None:
    sections = "".join(f"## Part {i}\r\n\r\n{'Ein Wörtchen – 日本. ' * 30}\r\n\r\n" for i in range(120))
    for name, text in (("a.md", sections), ("a.txt", "日" * 45_000), ("b.txt", "ab cd\t" * 9_000)):
        documents, _ = read_all(write(tmp_path, name, text))
        assert all(text[d.metadata["start"] : d.metadata["end"]] == d.text for d in documents)
        assert "".join("".join(d.text for d in documents).split()) == "".join(text.split())
        assert all(count_tokens(d.text) <= 200 for d in documents)
    assert {d.title for d in read(tmp_path / "a.md")} == {f"Part {i}" for i in range(120)}


def test_an_edit_keeps_the_ids_of_other_chunks_and_repeats_are_numbered(tmp_path: Path) -> None:
    parts = [f"# Part {i}\n\n{'some words here ' * 15}\n" for i in range(6)]
    before = [d.id for d in read(write(tmp_path, "a.md", "\n".join(parts)), tokens=60)]
    parts[2] = parts[2].replace("some", "any")
    after = [d.id for d in read(write(tmp_path, "a.md", "\n".join(parts)), tokens=60)]
    assert [i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new] == [2]
    same = [d.id for d in read(write(tmp_path, "b.txt", "a b c\n\n" * 3), tokens=3)]
    assert same == [same[0], f"{same[0]}-2", f"{same[0]}-3"]
    assert re.fullmatch(r"b\.txt#[0-9a-f]{12}", same[0])


def test_overlap_is_shared_by_neighbours(tmp_path: Path) -> None:
    file = write(tmp_path, "a.txt", " ".join(f"w{i}" for i in range(40)))
    documents, _ = read_all(file, tokens=10, overlap=4)
    assert all(b.metadata["start"] < a.metadata["end"] for a, b in pairwise(documents))


def test_a_counter_of_ones_own_sets_the_budget(tmp_path: Path) -> None:
    file = write(tmp_path, "a.txt", "one two three four five six seven")
    assert [d.text for d in read(file, tokens=9, count=len)] == ["one two", "three", "four five", "six seven"]


@pytest.mark.parametrize(
    "text, tokens", [("", 0), ("It's 3 cats.", 6), ("日本語", 3), ("snake_case", 3), ("abcdefgh", 2)]
)
def test_tokens_are_about_word_pieces(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


BAD_COUNT: list[Callable[[str], object]] = [lambda text: "3", lambda text: -1, lambda text: 2.5, lambda text: True]


@pytest.mark.parametrize(
    "options",
    [{"tokens": 0}, {"tokens": 2.5}, {"tokens": True}, {"overlap": -1}, {"tokens": 5, "overlap": 5}, {"count": 3}]
    + [{"count": count} for count in BAD_COUNT],
)
def test_bad_options_are_refused_at_the_call(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match=r"tokens|overlap|count"):
        read(tmp_path, **options)


def test_markdown_titles_are_trails_of_headings(tmp_path: Path) -> None:
    text = (
        "---\ntitle: front\n---\n\n# The `Guide` & [more](x)\n\nIntro words.\n\n```sh\n# no heading\n```\n\n"
        "Install\n-------\n\nUse pip, not much else is needed.\n\n### On *Windows*\n\nUse pip there too, or winget.\n\n"
        "# End\n\nThis was the whole guide to it.\n"
    )
    titles = {d.text.split("\n")[0]: d.title for d in read(write(tmp_path, "a.md", text), tokens=12)}
    assert titles["---"] == ""
    assert titles["# The `Guide` & [more](x)"] == "The Guide & more"
    assert titles["Install"] == "The Guide & more > Install"
    assert titles["### On *Windows*"] == "The Guide & more > Install > On Windows"
    assert titles["# End"] == "End"


def test_a_chunk_of_several_sections_has_the_title_they_share(tmp_path: Path) -> None:
    file = write(tmp_path, "a.md", "# Guide\n\n## A\n\na\n\n## B\n\nb\n")
    assert [d.title for d in read(file)] == ["Guide"]


PAGE = """<!doctype html>
<html><head><title>My
 Site</title><style>p {}</style><script>let x
 = 1</script></head><body>
<h1>My Site</h1><p>Hello <b>bo</b>ld, caf&eacute;<br>line two &amp;
more.</p><!-- a
comment -->
<h2><a href="#i">Install</a> it</h2>
<ul><li>one<li><p>two</p></ul>
<pre>
def f():
    # comment
</pre>
<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>
</body></html>"""


def test_html_becomes_structured_text_with_lines_of_the_source(tmp_path: Path) -> None:
    documents, reports = read_all(write(tmp_path, "a.html", PAGE), tokens=18)
    assert not reports
    assert [(d.title, d.text, d.metadata["line"]) for d in documents] == [
        ("My Site", "# My Site\n\nHello bold, café\nline two & more.", 5),
        ("My Site > Install it", "## Install it\n\n- one\n\n- two", 8),
        ("My Site > Install it", "```\ndef f():\n    # comment\n```", 11),
        ("My Site > Install it", "a | b\n1 | 2", 14),
    ]
    whole = "\n\n".join(d.text for d in documents)
    assert all(whole[d.metadata["start"] : d.metadata["end"]] == d.text for d in documents)


@pytest.mark.parametrize(
    "page, text",
    [
        ("<meta charset=iso-8859-1><p>café €".encode("cp1252"), "café €"),
        ("<meta charset=shift_jis><p>日本".encode("shift_jis"), "日本"),
        ("<meta charset=windows-9999><p>café".encode(), "café"),
        ("<meta charset=rot13><p>café".encode(), "café"),
        ("<p>café".encode("utf-16"), "café"),
        ("<div>" * 3000 + "deep &#xD800;x", "deep �x"),
        ("<h1>never closed<p>text", "# never closed\n\ntext"),
        ("", None),
    ],
)
def test_html_of_any_kind_is_read(tmp_path: Path, page: str | bytes, text: str | None) -> None:
    documents, reports = read_all(write(tmp_path, "a.htm", page))
    assert ([d.text for d in documents], reports) == ([text] if text else [], [])


TAGS = (
    "<h1>",
    "</h1>",
    "<p>",
    "<pre>",
    "</pre>",
    "<li>",
    "<td>",
    "<br>",
    "<title>",
    "</title>",
    "<![x",
    "<!--",
    "&#0;",
)


@given(page=st.lists(st.sampled_from(TAGS) | st.text(max_size=6), max_size=25).map("".join))
@example("<pre><li></pre>")
@settings(deadline=None)
def test_broken_html_never_fails(page: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        documents, _ = read_all(write(Path(folder), "a.html", page), tokens=5)
    for document in documents:
        assert 1 <= document.metadata["line"] <= page.count("\n") + page.count("\r") + 1
        assert document.text.strip()


def test_python_titles_are_qualified_names(tmp_path: Path) -> None:
    source = (
        "import os\n\n\nclass A:\n    '''A doc.'''\n\n"
        "    def b(self):\n        x = 1\n        y = 2\n        return x + y\n"
        "\n    @property\n    def c(self):\n        return 3\n\n\nif os:\n    def f(): return 4\n\n\n"
        "async def g(): return 5\n"
    )
    titles = {d.text.split("\n")[0]: d.title for d in read(write(tmp_path, "a.py", source), tokens=20)}
    assert titles["import os"] == ""
    assert titles["def b(self):"] == "A.b"
    assert titles["@property"] == "A.c"
    assert titles["if os:"] == "f, g"
    assert [d.title for d in read(write(tmp_path, "c.py", "class A:\n    def b(self): ...\n"))] == ["A"]
    assert [d.title for d in read(write(tmp_path, "b.py", "def broken(:\n    '\\d'\n"))] == [""]


def test_pdf_pages(tmp_path: Path) -> None:
    documents, reports = read_all(write(tmp_path, "a.pdf", pdf("Hello page one.", "", "Hello page one.")))
    assert [(d.text, d.metadata["page"], d.metadata["start"], d.metadata["end"]) for d in documents] == [
        ("Hello page one.", 1, 0, 15),
        ("Hello page one.", 3, 0, 15),
    ]
    assert documents[1].id == f"{documents[0].id}-2"
    assert not reports


def test_a_page_that_cannot_be_read_leaves_the_others(tmp_path: Path) -> None:
    second = len("BT /F1 12 Tf 72 720 Td (Bad page.) Tj ET")
    content = pdf("Good page.", "Bad page.").replace(
        f"/Length {second}".encode(), f"/Length {second} /Filter /X".encode()
    )
    documents, reports = read_all(write(tmp_path, "a.pdf", content))
    assert [(d.text, d.metadata["page"]) for d in documents] == [("Good page.", 1)]
    assert len(reports) == 1
    assert reports[0].startswith("a.pdf: page 2 cannot be read")


def encrypted(password: str) -> bytes:
    writer, out = PdfWriter(clone_from=BytesIO(pdf("Secret words."))), BytesIO()
    writer.encrypt(password, "owner", algorithm="RC4-128")
    writer.write(out)
    return out.getvalue()


def test_pdfs_that_cannot_be_read_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good = pdf("Fine.")
    for name, content in {
        "broken": good[:200],
        "empty": b"",
        "garbage": b"%PDF-1.4\n" + bytes(range(256)) * 8,
        "locked": encrypted("user"),
        "scan": pdf(""),
    }.items():
        write(tmp_path, f"{name}.pdf", content)
    write(tmp_path, "open.pdf", encrypted(""))
    with caplog.at_level(logging.DEBUG):
        documents, reports = read_all(tmp_path)
    assert [d.text for d in documents] == ["Secret words."]
    assert [report.split(":")[0] for report in reports] == [
        "broken.pdf",
        "empty.pdf",
        "garbage.pdf",
        "locked.pdf",
        "scan.pdf",
    ]
    assert "password" in reports[3]
    assert "no text" in reports[4]
    assert not caplog.records
