"""Which files of a folder are read, how their bytes become text, and what is reported rather than raised."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ragistry.errors import InvalidInput, StorageError
from ragistry.readers import find, read


def write(folder: Path, name: str, content: str | bytes = "words") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_find_lists_what_read_reads_in_a_stable_order(tmp_path: Path) -> None:
    wanted = ["Makefile", "a/c.md", "a/z/x.unknown", "a.txt", "b.py"]
    for name in wanted:
        write(tmp_path, name)
    for name in (
        ".hidden",
        ".git/config.txt",
        "node_modules/a.js",
        "a/__pycache__/m.py",
        "env/pyvenv.cfg",
        "env/lib/m.py",
    ):
        write(tmp_path, name)
    write(tmp_path, "picture.png", b"\x89PNG\r\n\0\0")
    write(tmp_path, "latin.unknown", "caf\u00e9 ".encode("latin-1"))
    write(tmp_path, "cut.unknown", "\u65e5" * 30_000)  # the sample that is looked at ends within a character
    found = [file.relative_to(tmp_path).as_posix() for file in find(tmp_path)]
    assert found == ["Makefile", "a/c.md", "a/z/x.unknown", "a.txt", "b.py", "cut.unknown"]
    reports: list[str] = []
    assert list(dict.fromkeys(d.metadata["source"] for d in read(tmp_path, report=reports.append))) == found
    assert [report.split(":")[0] for report in reports] == ["latin.unknown", "picture.png"]


def test_a_single_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    file = write(tmp_path, ".hidden")
    assert find(file) == [file]
    assert [(d.metadata["source"], d.text) for d in read(str(file))] == [(".hidden", "words")]


def test_binary_files_are_reported_even_when_named(tmp_path: Path) -> None:
    for content in (b"a\0b", b"caf\xe9"):
        reports: list[str] = []
        assert not list(read(write(tmp_path, "a.bin", content), report=reports.append))
        assert reports == ["a.bin: is not text, and its extension is not one that can be read; skipped"]


def test_reports_are_logged_by_default(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert [d.text for d in read(write(tmp_path, "a.txt", b"100%s caf\xe9"))] == ["100%s caf\ufffd"]
    assert [(r.name, r.levelno, r.getMessage()) for r in caplog.records] == [
        ("ragistry", logging.WARNING, "a.txt: 1 byte is not UTF-8, replaced")
    ]


@pytest.mark.parametrize(
    "content, text, reported",
    [
        ("\ufeffh\u00e9\r\n\u65e5".encode(), "h\u00e9\r\n\u65e5", []),
        ("h\u00e9".encode("utf-16"), "h\u00e9", []),
        ("\ufeffh\u00e9".encode("utf-16-be"), "h\u00e9", []),
        ("h\u00e9".encode("utf-32"), "h\u00e9", []),
        (b"caf\xe9 \xe2\x82 ok", "caf\ufffd \ufffd ok", ["a.txt: 3 bytes are not UTF-8, replaced"]),
        (b"\xff\xfea\0\x00\xd8", "a\ufffd", ["a.txt: some bytes are not UTF-16, replaced"]),
        (b"", None, []),
        (b" \r\n\t ", None, []),
    ],
)
def test_encodings(tmp_path: Path, content: bytes, text: str | None, reported: list[str]) -> None:
    reports: list[str] = []
    documents = list(read(write(tmp_path, "a.txt", content), report=reports.append))
    assert [d.text for d in documents] == ([] if text is None else [text])
    assert reports == reported


def test_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    file = write(tmp_path, "sub/a.txt")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "link.txt").symlink_to(file)
    (tmp_path / "broken.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self.txt").symlink_to(tmp_path / "self.txt")
    reports: list[str] = []
    assert [d.metadata["source"] for d in read(tmp_path, report=reports.append)] == ["link.txt", "sub/a.txt"]
    assert [report.split(":")[0] for report in reports] == ["broken.txt", "self.txt", "sub/loop"]


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    reports: list[str] = []
    assert not list(read(tmp_path, report=reports.append))
    assert reports == ["pipe.txt: is not a regular file; skipped"]
    with pytest.raises(StorageError, match="neither a file nor a folder"):
        read(tmp_path / "pipe.txt")


def test_a_file_that_goes_away_is_reported_in_a_folder_and_raised_alone(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "first")
    gone = write(tmp_path, "b.txt", "gone")
    reports: list[str] = []
    documents = read(tmp_path, report=reports.append)
    assert next(documents).text == "first"
    alone = read(gone)
    gone.unlink()
    assert not list(documents)
    assert reports == ["b.txt: cannot be read (No such file or directory); skipped"]
    with pytest.raises(StorageError, match=r"b\.txt.*No such file"):
        next(alone)


def test_folders_that_may_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.txt")
    locked = write(tmp_path, "locked/b.txt").parent
    scandir = os.scandir

    def refuse(folder: Path | str) -> object:
        if Path(folder) == locked:
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    reports: list[str] = []
    assert [d.metadata["source"] for d in read(tmp_path, report=reports.append)] == ["a.txt"]
    assert reports == ["locked: cannot be listed (Permission denied); skipped"]
    with pytest.raises(StorageError, match=r"locked.*Permission denied"):
        find(locked)


@pytest.mark.parametrize("path", ["", b"a", None, 3])
def test_what_is_not_a_path_is_refused(path: object) -> None:
    for reader in (read, find):
        with pytest.raises(InvalidInput, match="a file or folder to read is needed"):
            reader(path)


@pytest.mark.parametrize("name", ["nowhere", "a\0b", "x" * 5000])
def test_a_missing_path_is_refused_at_the_call(tmp_path: Path, name: str) -> None:
    for reader in (read, find):
        with pytest.raises(StorageError, match=r"does not exist|cannot read"):
            reader(tmp_path / name)


def test_file_names_that_utf8_cannot_hold(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("words")
    (document,) = read(tmp_path)
    assert document.metadata["source"] == "caf\ufffd.txt"


def test_importing_the_readers_loads_no_parser() -> None:
    heavy = {"bs4", "pypdf", "semantic_text_splitter", "tree_sitter_python", "markdown_it"}
    code = f"import sys, ragistry.readers; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
