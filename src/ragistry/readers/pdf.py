"""PDF: the text of each page."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO

from .chunking import Chunker, Passage
from .files import Report, tidy


def read_pdf(data: bytes, source: str, chunker: Chunker, report: Report) -> Iterator[Passage]:
    """The chunks of each page, from 1; what cannot be read is reported."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError

    # pypdf raises whatever its parsing stumbles over, so every exception here means a damaged file.
    try:
        with _quiet():
            reader = PdfReader(BytesIO(data))
            if reader.is_encrypted and not reader.decrypt(""):
                report(f"{source}: needs a password; skipped, save a copy without one")
                return
            pages = len(reader.pages)
    except DependencyError:
        report(f"{source}: is encrypted, which needs `pip install cryptography`; skipped")
        return
    except Exception as error:
        report(f"{source}: is not a PDF that can be read ({error}); skipped")
        return
    empty = True
    for number in range(1, pages + 1):
        try:
            with _quiet():
                text = tidy(reader.pages[number - 1].extract_text())
        except Exception as error:
            report(f"{source}: page {number} cannot be read ({error}); skipped")
            continue
        for passage in chunker.passages(text):
            empty = False
            yield replace(passage, page=number)
    if empty:
        report(f"{source}: holds no text; if its pages are images, run text recognition (OCR) first")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep pypdf's remarks on damaged files from the user's log: they are reported in our words."""
    logger = logging.getLogger("pypdf")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
