"""Which files are read, and how their bytes become text."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from ..errors import InvalidInput, StorageError

Report: TypeAlias = Callable[[str], object]
"""Takes one line about a file that was skipped or damaged."""

APART = ".ragistry-compare"
"""A folder that holds a file of this name is passed over: what comparisons leave there is not for reading."""

_EXTENSIONS = {
    "markdown": "md markdown mdown mkd",
    "html": "html htm xhtml",
    "pdf": "pdf",
    "table": "csv tsv",
    "lines": "jsonl ndjson",
    "json": "json",
    "python": "py pyi pyw",
    "text": "txt text log rst adoc org tex xml yaml yml toml ini cfg conf properties sql sh bash zsh ps1 bat js mjs "
    "cjs jsx ts tsx java go rs c h cc cpp cxx hpp hh cs rb php kt kts scala swift lua r jl m pl pm hs ml ex exs erl "
    "clj dart vue css scss less proto graphql tf cmake gradle",
}
_FORMATS = {extension: name for name, extensions in _EXTENSIONS.items() for extension in extensions.split()}
_PASSED_OVER = {"node_modules", "__pycache__", "CVS", "_darcs"}
_SNIFFED = 1 << 16
_NOT_TEXT = "is not text, and its extension is not one that can be read"
# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_ESCAPED = re.compile("[\udc80-\udcff]")


def format_of(path: Path) -> str:
    """What a file's extension says it holds; empty if it says nothing known."""
    return _FORMATS.get(path.suffix[1:].lower(), "")


def checked(path: str | os.PathLike[str]) -> Path:
    """A path that exists and is a file or a folder."""
    if not isinstance(path, (str, os.PathLike)) or os.fspath(path) in {"", b""}:
        raise InvalidInput(f"a file or folder to read is needed; given {path!r}")
    root = Path(path)
    try:
        usable = root.is_file() or root.is_dir()
        exists = usable or root.exists()
    except (OSError, ValueError) as error:
        raise unreadable(root, error) from error
    if not exists:
        raise StorageError(f"there is nothing to read at {str(root)!r}: it does not exist; check the path")
    if not usable:
        raise StorageError(f"{str(root)!r} is neither a file nor a folder; give a regular file or a folder of them")
    return root


def unreadable(path: Path, error: OSError | ValueError) -> StorageError:
    """The error for a path that the operating system does not let us read."""
    reason = getattr(error, "strerror", None) or error
    return StorageError(f"cannot read {str(path)!r}: {reason}; check the path and its permissions")


def walk(root: Path, report: Report) -> list[Path]:
    """The files to read at or below a path, reporting those that are left out though they are not hidden."""
    if not root.is_dir():
        return [root]

    def unlisted(error: OSError) -> None:
        folder = Path(error.filename)
        if folder == root:
            raise unreadable(root, error) from error
        report(f"{relative(folder, root)}: cannot be listed ({error.strerror}); skipped")

    found = []
    for folder, subfolders, names in os.walk(root, onerror=unlisted):
        here = Path(folder)
        subfolders[:] = [name for name in sorted(subfolders) if _entered(here / name, root, report)]
        for name in sorted(names):
            problem = "" if name.startswith(".") else _problem(here / name)
            if problem:
                report(f"{relative(here / name, root)}: {problem}; skipped")
            elif not name.startswith("."):
                found.append(here / name)
    return sorted(found, key=lambda file: file.parts)


def _entered(folder: Path, root: Path, report: Report) -> bool:
    if folder.name.startswith(".") or folder.name in _PASSED_OVER:
        return False
    with contextlib.suppress(OSError):  # a folder that may not be searched is reported when it is listed
        if (folder / "pyvenv.cfg").exists() or (folder / APART).exists():
            return False
    if folder.is_symlink():
        report(f"{relative(folder, root)}: is a link to a folder, which is not followed; skipped")
        return False
    return True


def _problem(file: Path) -> str:
    """Why a file is not read, as far as its name and first bytes tell; empty if nothing speaks against it."""
    try:
        if not file.is_file():
            return "is a broken link" if file.is_symlink() else "is not a regular file"
        if format_of(file):
            return ""
        with open(file, "rb") as stream:
            start = stream.read(_SNIFFED)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    try:
        # An incremental decoder forgives the character that the end of the sample cuts.
        text = codecs.getincrementaldecoder(encoding_of(start))().decode(start)
    except UnicodeDecodeError:
        return _NOT_TEXT
    return _NOT_TEXT if "\0" in text else ""


def relative(file: Path, root: Path) -> str:
    """The path below the folder that is read, with forward slashes and only characters that UTF-8 holds."""
    path = file.name if file == root else file.relative_to(root).as_posix()
    return os.fsencode(path).decode("utf-8", "replace")


def encoding_of(data: bytes, default: str = "utf-8") -> str:
    """The encoding that a byte order mark names, or the default."""
    return next((codec for mark, codec in _MARKS.items() if data.startswith(mark)), default)


def read_text(file: Path, source: str, report: Report) -> str:
    """The text of a file. One with an unknown extension that is not text is reported, and empty."""
    data = file.read_bytes()
    if format_of(file):
        return decode(data, source, report)
    try:
        text = data.decode(encoding_of(data))
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        report(f"{source}: {_NOT_TEXT}; skipped")
        return ""
    return text


def decode(data: bytes, source: str, report: Report, default: str = "utf-8") -> str:
    """Bytes as text, without the byte order mark; bytes that are not text are replaced and reported."""
    encoding = encoding_of(data, default)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        if encoding.startswith("utf-8"):
            report_replaced(source, len(_ESCAPED.findall(data.decode(encoding, "surrogateescape"))), report)
        else:
            report(f"{source}: some bytes are not {encoding.upper()}, replaced")
        return data.decode(encoding, "replace")


def unescape(text: str) -> tuple[str, int]:
    """Replace what `surrogateescape` let through; the text and the number of bytes replaced."""
    return (text, 0) if text.isascii() else _ESCAPED.subn("\ufffd", text)


def report_replaced(source: str, bad: int, report: Report) -> None:
    """Report bytes that are not UTF-8."""
    if bad:
        report(f"{source}: {bad} byte{'s are' if bad > 1 else ' is'} not UTF-8, replaced")


def tidy(text: str) -> str:
    """Text that UTF-8 can hold: surrogate pairs joined, lone ones replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
